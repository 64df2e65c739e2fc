"""Datadog's sites: an account lives on one of them, and its API key is good there and nowhere else."""

from __future__ import annotations

import re

# Region and site, from "Send logs" of the API reference; an intake is "https://http-intake.logs.<site>".
SITES = {
    "US1": "datadoghq.com",
    "US3": "us3.datadoghq.com",
    "US5": "us5.datadoghq.com",
    "EU1": "datadoghq.eu",
    "UK1": "uk1.datadoghq.com",
    "AP1": "ap1.datadoghq.com",
    "AP2": "ap2.datadoghq.com",
    "US1-FED": "ddog-gov.com",
    "US2-FED": "us2.ddog-gov.com",
}
# What stands around a site in the addresses that people copy.
PASTED = re.compile(
    r"(?:https?://)?(?:app|api|http-intake\.logs)?\.?([a-z0-9.-]*?)\.?(?:[:/].*)?", re.IGNORECASE
)


def fault(site: str) -> str:
    """Why `site` is none, and which one may be meant; "" when it is one."""
    if site in SITES.values():
        return ""
    found = PASTED.fullmatch(site.strip())
    bare = found[1].lower() if found else ""
    region = SITES.get(site.strip().upper()) or SITES.get(f"{site.strip().upper()}1")
    meant = region or (bare if bare in SITES.values() else "")
    if meant:
        return f"must be the site itself: {meant}"
    return (
        f"must be the account's site, one of {', '.join(SITES.values())}; any other by "
        "--datadog_endpoint=https://http-intake.logs.<site>"
    )


def others(site: str) -> str:
    """The sites that a key which is refused at `site` may belong to."""
    return ", ".join(each for each in SITES.values() if each != site)
