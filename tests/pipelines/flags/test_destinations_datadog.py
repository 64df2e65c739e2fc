"""Datadog's flags: what they take, refuse and mean together."""

from __future__ import annotations

import pytest

from pipelines.flags.settings import parse
from tests.pipelines.flags.refusing import ENVIRON, FEED, refused

KEY = "--datadog_api_key=env:DD_KEY"
SITE = "--datadog_site{}: must be the site itself: datadoghq.eu; the default is datadoghq.com"
TAGS = (
    "--datadog_tags: must be KEY:VALUE, at most 200 letters, digits, _, -, :, . and /, a letter first, as "
    "Datadog's tags are; for example --datadog_tags=env:production,team:identity"
)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--datadog_site=https://datadoghq.eu", SITE.format("=https://datadoghq.eu")),
        ("--datadog_site=app.datadoghq.eu", SITE.format("")),
        ("--datadog_site=EU", SITE.format("")),
        (
            "--datadog_site=datadoghq.org",
            "--datadog_site: must be the account's site, one of datadoghq.com, us3.datadoghq.com, "
            "us5.datadoghq.com, datadoghq.eu, uk1.datadoghq.com, ap1.datadoghq.com, ap2.datadoghq.com, "
            "ddog-gov.com, us2.ddog-gov.com; any other by --datadog_endpoint=https://http-intake.logs.<site>"
            "; the default is datadoghq.com",
        ),
        (
            "--datadog_too_old=drop",
            "--datadog_too_old: must be one of tag, dead_letter; the default is tag",
        ),
        ("--datadog_tags=env:production,1team", TAGS),
        ("--datadog_tags=team:", TAGS),
        ("--datadog_tags=name:a|b", TAGS),
        (f"--datadog_tags=a{'b' * 200}", TAGS),
        (
            "--datadog_tags=env:a,type:b",
            "--datadog_tags: must not have the key type, which each event has already; "
            "for example --datadog_tags=env:production,team:identity",
        ),
        (
            "--datadog_max_events=1001",
            "--datadog_max_events=1001: must be from 1 to 1000; the default is 500",
        ),
        (
            "--datadog_max_bytes=6MB",
            "--datadog_max_bytes=6MB: must be from 1 to 5000000 bytes; the default is 4500 kB",
        ),
        (
            "--datadog_endpoint=https://proxy.example.com/api/v2/logs",
            "--datadog_endpoint=https://proxy.example.com/api/v2/logs: must be the root of the service; "
            "/api/v2/logs is added by itself; for example --datadog_endpoint=https://proxy.example.com",
        ),
    ],
)
def test_a_wrong_flag_gets_one_line(argument: str, line: str) -> None:
    assert refused(KEY, argument) == [line]


def test_a_site_beside_an_endpoint_is_refused() -> None:
    assert refused(KEY, "--datadog_site=datadoghq.eu", "--datadog_endpoint=https://proxy.example.com") == [
        "--datadog_site: has no meaning beside --datadog_endpoint; leave out one of them"
    ]


def test_every_flag_but_the_first_needs_the_first() -> None:
    assert refused("--datadog_tags=env:production", "--files_dir=./out") == [
        "--datadog_tags: needs --datadog_api_key, which switches Datadog on"
    ]


def test_a_key_that_cannot_be_read_is_a_fault() -> None:
    assert refused("--datadog_api_key=env:ELSEWHERE") == [
        "--datadog_api_key: env:ELSEWHERE: this environment variable is not set"
    ]


def test_tags_are_taken_as_datadog_takes_them() -> None:
    given = "env:production, team:identity/eu, kube_pod:a-1.b, größe:x, simple"
    settings = parse([FEED, KEY, f"--datadog_tags={given}"], ENVIRON)
    assert settings["datadog_tags"] == (
        "env:production",
        "team:identity/eu",
        "kube_pod:a-1.b",
        "größe:x",
        "simple",
    )
