"""Datadog's sites: every public one, and what people write instead."""

from __future__ import annotations

import pytest

from transforms.secret import LiteralSecret
from transforms.write.datadog.destination import Datadog
from transforms.write.datadog.reply import SITES, fault, others


@pytest.mark.parametrize("site", SITES.values())
def test_every_site_is_one(site: str) -> None:
    assert not fault(site)
    assert Datadog(LiteralSecret("k"), site=site).site == site
    assert site not in others(site).split(", ")
    assert len(others(site).split(", ")) == len(SITES) - 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("app.datadoghq.eu", "datadoghq.eu"),
        ("https://us5.datadoghq.com", "us5.datadoghq.com"),
        ("https://us5.datadoghq.com/logs?x=y", "us5.datadoghq.com"),
        ("https://api.datadoghq.com/", "datadoghq.com"),
        ("https://http-intake.logs.us3.datadoghq.com:443/api/v2/logs", "us3.datadoghq.com"),
        ("https://app.ddog-gov.com", "ddog-gov.com"),
        ("DATADOGHQ.EU", "datadoghq.eu"),
        ("US5", "us5.datadoghq.com"),
        ("eu", "datadoghq.eu"),
        ("EU1", "datadoghq.eu"),
        ("us1-fed", "ddog-gov.com"),
    ],
)
def test_what_is_meant_is_said(given: str, meant: str) -> None:
    assert fault(given) == f"must be the site itself: {meant}"


@pytest.mark.parametrize(
    "given", ["", "datadoghq.org", "us6.datadoghq.com", "datadog", "https://", "evil.example"]
)
def test_anything_else_names_them_all_and_the_way_round(given: str) -> None:
    said = fault(given)
    assert all(site in said for site in SITES.values())
    assert "--datadog_endpoint" in said
    with pytest.raises(ValueError, match="must be"):
        Datadog(LiteralSecret("k"), site=given)


def test_with_an_endpoint_the_site_does_not_matter() -> None:
    assert Datadog(LiteralSecret("k"), site="x", endpoint="https://proxy.example.com").site == "x"
