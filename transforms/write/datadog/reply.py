"""What a reply of Datadog's logs intake means for each event of a batch: pure functions.

Statuses are those of Datadog's API reference, "Send logs" v2: 202 takes all logs of a request, everything
else takes none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transforms.secret import shown
from transforms.write.advice import DATADOG, HTTP
from transforms.write.answer import described, fields, is_receipt
from transforms.write.contract import Outcome
from transforms.write.failure import failed, is_credential, is_delivered, refused

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


BAD_REQUEST = 400


# What the intake says when it has taken a request: "{}" today; what stands in for it may say these.
_TAKEN: Mapping[str, tuple[object, ...]] = {
    "errors": (None, []),
    "status": ("ok", "accepted", 200, 202),
}
_BEGINNING = re.compile(rb"\{\s*")


def said_in(body: bytes) -> str:
    """Datadog's own words in an error's body, or "no reason given" when it gives none."""
    errors = (fields(body) or {}).get("errors")
    words = "; ".join(_words(error) for error in errors[:10]) if isinstance(errors, list) else ""
    return shown(words) or "no reason given"


def _words(error: object) -> str:
    if isinstance(error, dict):
        return ": ".join(
            text for key in ("title", "detail") if isinstance(text := error.get(key), str) and text
        )
    return error if isinstance(error, str) else ""


def is_datadogs(body: bytes) -> bool:
    """Whether Datadog itself wrote an error's body: a proxy's 400 says nothing about an event."""
    return isinstance((fields(body) or {}).get("errors"), list)


def _says_taken(members: dict[str, Any]) -> bool:
    return all(key in _TAKEN and value in _TAKEN[key] for key, value in members.items())


def outcome_of(
    where: str, site: str, status: int, headers: Mapping[str, str], body: bytes, count: int, now: float
) -> Outcome | None:
    """The outcome of a reply for a batch of `count` events; None when all of them are delivered.

    where: the service as a person knows it. site: the one that was asked, "" for another endpoint. now:
    seconds since the epoch.
    """
    later = range(count)
    if is_delivered(status):
        if is_receipt(body, _says_taken, cut=_BEGINNING):
            return None
        said = f"{status}, {described(headers, body)}"
        return failed(where, HTTP["not_its_words"], later, said, unknown=True)
    own = is_datadogs(body)
    if own and status == BAD_REQUEST:
        return bad_request(where, said_in(body), count)
    if own and is_credential(status):
        and_site = f", and the --datadog_site that it belongs to ({others(site)})" if site else ""
        return failed(where, DATADOG["api_key"], later, f"{status}: {said_in(body)}", and_site=and_site)
    return refused(where, status, headers, count, now, body, own, "--datadog_api_key")


def bad_request(where: str, said: str, count: int) -> Outcome:
    """Datadog does not say which log it cannot read, so halving finds it: a half without it passes, and at
    last it stands alone."""
    if count == 1:
        reason = f"datadog_400: {said}"
        return Outcome(rejected={0: reason}, cause=f"{where} refused an event for good: {said}.")
    cause = f"{where} refused a request without naming an event: {said}. It is sent again in halves."
    return Outcome(later=range(count), cause=cause, too_large=True)
