"""What differs between one machine and a cluster: how the graph reads, delivers and keeps dead letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.flags.destinations import feed_settings
from pipelines.flags.general import DATAFLOW
from pipelines.flags.settings import Settings
from pipelines.local.lane import Lane, ReadInLane, WriteInLane
from transforms.feed.pubsub import ReadFromPubSub
from transforms.feed.read import ReadFromGrantex
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import WriteDeadLetters
from transforms.write.keyed.attempts import DrainTime
from transforms.write.receipt_objects import WriteReceipts
from transforms.write.write_to import WriteTo

# Parts of --drain_timeout: for what the destinations do not take to become dead letters, and for those to be
# written, which begins when the last destination has ended. The rest is the runner's own.
TO_DELIVER, TO_KEEP = 0.6, 0.2


@dataclass(frozen=True)
class Stages:
    """The transforms that the graph is made of.

    read: the beginning, under its own label; gives `.chunks` and `.dead_letters`.
    feed_letters: whether the graph is to keep the feed's own dead letters.
    write: a destination's sink; gives `.delivered` and `.dead_letters`.
    keep: what dead letters go into.
    keep_receipts: what keeps a sink's result as receipts; None where a journal does, or nothing.
    """

    read: Any
    write: Callable[[Destination], Any]
    keep: Callable[[], Any]
    feed_letters: bool = True
    keep_receipts: Callable[[], Any] | None = None


def in_a_lane(lane: Lane, dead_letters: str | Path) -> Stages:
    """One machine: the graph is built once for each destination, whose lane has its own cursor.

    The lane's source and delivery work by ticks: the in-process runner fires timers at once or erratically,
    and grouping waits for the end. Everything is one fused stage, so a dead letter is on disk before its
    receipt; the journal has taken out repeated ids already, and the feed's dead letters have a thread of
    their own.
    """
    return Stages(
        read=ReadInLane(lane.name, lane.source),
        write=lambda _: WriteInLane(lane.delivery),
        keep=lambda: WriteDeadLetters(dead_letters),
        feed_letters=False,
    )


def on_a_cluster(settings: Settings) -> Stages:
    """A cluster: one graph with a keyed stage for each destination, on state and processing-time timers.

    Workers keep nothing on their disks: the runner's checkpoints take the journal's place, and dead letters
    go where all workers can write.
    """
    if settings.pubsub_subscription:
        read: Any = ReadFromPubSub(settings.pubsub_subscription)
    else:
        feed = feed_settings(settings)
        connections = feed.connections(settings.feed_connections)
        read = ReadFromGrantex(feed, connections=connections, horizon=settings.dedupe_horizon)
    return Stages(
        read=read,
        write=lambda destination: WriteTo(
            destination,
            timers=True,
            dead_letter_limit=settings.dead_letter_limit,
            drain=_drain_time(settings, TO_DELIVER),
        ),
        keep=lambda: WriteDeadLetters(
            settings.dead_letters, timers=True, drain=_drain_time(settings, TO_KEEP)
        ),
        keep_receipts=_keep_receipts(settings) if settings.receipts else None,
    )


def _keep_receipts(settings: Settings) -> Callable[[], Any]:
    return lambda: WriteReceipts(settings.receipts, timers=True, drain=_drain_time(settings, TO_KEEP))


def _drain_time(settings: Settings, part: float) -> DrainTime:
    """Dataflow waits for a drain as long as it takes; elsewhere this process cancels the job after a time."""
    if settings.runner == DATAFLOW:
        return DrainTime(idle=settings.drain_timeout)
    seconds = part * settings.drain_timeout
    return DrainTime(idle=seconds, at_most=seconds)
