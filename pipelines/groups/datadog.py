"""Datadog: its parameters, the rule between them, and the destination they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.flags import parameter
from pipelines.flags.command_line import Arrived
from pipelines.flags.parameter import Group, byte_count, choice, names, seconds, secret, text, url, whole
from transforms.secret import Secret
from transforms.write.datadog import reply as datadog_sites
from transforms.write.datadog.destination import MAX_BYTES, MAX_EVENTS, Datadog

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("Datadog", destination="datadog", first="datadog_api_key")
# Datadog's "Getting started with tags": a letter first, 200 characters, no colon at the end. What else there
# may be it turns into "_", so that nobody would find it.
TAG = re.compile(r"[^\W\d_][\w:./-]{0,198}[\w./-]")
OURS = ("type", "grantex_late", "grantex_early", "grantex_cut")


def site(text: str) -> str:
    """One of Datadog's sites."""
    if fault := datadog_sites.fault(text):
        raise ValueError(fault)
    return text


def tags(text: str) -> tuple[str, ...]:
    """KEY:VALUE,KEY:VALUE."""
    found = parameter.read_names(text)
    for tag in found:
        if not TAG.fullmatch(tag):
            raise ValueError(
                "must be KEY:VALUE, at most 200 letters, digits, _, -, :, . and /, a letter first, as "
                "Datadog's tags are"
            )
        if tag.partition(":")[0] in OURS:
            raise ValueError(f"must not have the key {tag.partition(':')[0]}, which each event has already")
    return found


@dataclass(frozen=True, kw_only=True)
class DatadogParameters:
    datadog_api_key: Secret | None = secret(GROUP, "API key.", example="env:DATADOG_API_KEY")
    datadog_site: str = text(GROUP, "datadoghq.com", "Site of the account.", read=site, in_demo=False)
    datadog_endpoint: str = url(
        GROUP,
        "",
        "Root of a proxy to use instead of the site's intake.",
        ours="/api/v2/logs",
        example="https://proxy.example.com",
    )
    datadog_service: str = text(GROUP, "grantex", "Datadog's service of each event.")
    datadog_tags: tuple[str, ...] = names(
        GROUP,
        "Tags of each event, beside its type.",
        read=tags,
        placeholder="KEY:VALUE,KEY:VALUE",
        example="env:production,team:identity",
    )
    datadog_too_old: Literal["tag", "dead_letter"] = choice(
        GROUP,
        "tag",
        "What Datadog would drop as older than 18 h: sent with a tag and no time, or a dead letter.",
        ("tag", "dead_letter"),
    )
    datadog_max_events: int = whole(GROUP, 500, "Events in one request.", at_least=1, at_most=MAX_EVENTS)
    # Nine tenths of what Datadog takes.
    datadog_max_bytes: int = byte_count(
        GROUP, 4_500_000, "Bytes in one request, before compression.", at_most=MAX_BYTES
    )
    datadog_max_age: float = seconds(GROUP, 2, "How long an event waits for others.")


def faults(settings: Settings, arrived: Arrived) -> Iterator[str]:
    """A site beside an endpoint would be passed over in silence."""
    if settings.datadog_endpoint and "datadog_site" in settings.given:
        source = arrived.source("datadog_site")
        yield f"{source}: has no meaning beside --datadog_endpoint; leave out one of them"


def destination(settings: Settings) -> Datadog:
    """What `settings` ask for."""
    assert settings.datadog_api_key is not None  # it is what switches Datadog on
    return Datadog(
        api_key=settings.datadog_api_key,
        site=settings.datadog_site,
        endpoint=settings.datadog_endpoint or None,
        service=settings.datadog_service,
        tags=settings.datadog_tags,
        too_old=settings.datadog_too_old,
        compression=settings.http_compression,
        way_out=settings.way_out,
        policy=settings.batch_policy(GROUP.destination),
    )
