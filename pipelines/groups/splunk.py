"""Splunk HEC: its parameters, and the destination they ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.flags.parameter import Group, byte_count, seconds, secret, switch, text, url, whole
from transforms.secret import Secret
from transforms.write.splunk.destination import Splunk

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("Splunk HEC", destination="splunk", first="splunk_hec_url")


def index(text: str) -> str:
    """An index name as Splunk allows it."""
    if not re.fullmatch(r"[a-z0-9_][a-z0-9_-]*", text, re.ASCII):
        raise ValueError("must be lower-case letters, digits, _ and -, as Splunk's index names are")
    return text


@dataclass(frozen=True, kw_only=True)
class SplunkParameters:
    splunk_hec_url: str = url(
        GROUP,
        "",
        "Root of the HTTP Event Collector.",
        ours="/services/collector",
        example="https://splunk.example.com:8088",
    )
    splunk_hec_token: Secret | None = secret(GROUP, "HEC token.", required=True, example="env:SPLUNK_TOKEN")
    splunk_index: str = text(GROUP, "main", "Index that events go to.", read=index)
    splunk_source: str = text(GROUP, "grantex", "Splunk's source of each event.")
    splunk_sourcetype: str = text(GROUP, "_json", "Splunk's sourcetype of each event.")
    splunk_host: str = text(GROUP, "", "Splunk's host of each event; without it Splunk puts the sender's.")
    splunk_acknowledge: bool = switch(
        GROUP, "Delivered is what an indexer has acknowledged; the token must have acknowledgement."
    )
    splunk_max_events: int = whole(GROUP, 500, "Events in one request.", at_least=1)
    # The most that Splunk Cloud asks for.
    splunk_max_bytes: int = byte_count(GROUP, 1_000_000, "Bytes in one request, before compression.")
    splunk_max_age: float = seconds(GROUP, 2, "How long an event waits for others.")


def destination(settings: Settings) -> Splunk:
    """What `settings` ask for."""
    assert settings.splunk_hec_token is not None  # `parse` asks for it
    return Splunk(
        url=settings.splunk_hec_url,
        token=settings.splunk_hec_token,
        index=settings.splunk_index,
        source=settings.splunk_source,
        sourcetype=settings.splunk_sourcetype,
        host=settings.splunk_host or None,
        acknowledge=settings.splunk_acknowledge,
        compression=settings.http_compression,
        way_out=settings.way_out,
        policy=settings.batch_policy(GROUP.destination),
    )
