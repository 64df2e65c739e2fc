"""Pub/Sub: its parameters, and the destination they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.flags.parameter import Group, byte_count, seconds, text, url, whole
from transforms.pubsub_names import topic
from transforms.write.pubsub.destination import MAX_BYTES, MAX_EVENTS, PubSub

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("Pub/Sub", destination="pubsub", first="pubsub_topic")


@dataclass(frozen=True, kw_only=True)
class PubSubParameters:
    pubsub_topic: str = text(
        GROUP,
        "",
        "Topic that events go to; it must exist. --pubsub_subscription reads them on Dataflow.",
        read=topic,
        placeholder="projects/PROJECT/topics/NAME",
        pattern=r"projects/[^/\s]+/topics/[^/\s]+",
        param_type="PUBSUB_TOPIC",
        in_demo=False,
        example="projects/my-project/topics/grantex-events",
    )
    pubsub_endpoint: str = url(
        GROUP,
        "",
        "Root of a regional service; http:// is an emulator without credentials.",
        ours="/google.pubsub",
        example="https://europe-west1-pubsub.googleapis.com",
    )
    pubsub_max_events: int = whole(GROUP, 1000, "Events in one request.", at_least=1, at_most=MAX_EVENTS)
    # Pub/Sub refuses requests above 10 MB.
    pubsub_max_bytes: int = byte_count(GROUP, 9_000_000, "Bytes in one request.", at_most=MAX_BYTES)
    pubsub_max_age: float = seconds(GROUP, 0.2, "How long an event waits for others.")


def destination(settings: Settings) -> PubSub:
    """What `settings` ask for."""
    return PubSub(
        topic=settings.pubsub_topic,
        endpoint=settings.pubsub_endpoint or None,
        way_out=settings.way_out,
        policy=settings.batch_policy(GROUP.destination),
    )
