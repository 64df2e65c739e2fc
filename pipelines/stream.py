"""The job: reads the Grantex event feed and keeps every destination complete."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipelines.beam  # noqa: F401 - before anything imports Beam

# isort: split
import apache_beam as beam

from pipelines import exit_codes
from pipelines.check import check, in_force
from pipelines.cluster import run as cluster
from pipelines.findings import report, table
from pipelines.flags.destinations import destinations, feed_settings
from pipelines.flags.general import DATAFLOW
from pipelines.flags.settings import BadParameters, Settings, parse
from pipelines.local import logs
from pipelines.local import run as local
from pipelines.local.lane import Lane, ReadInLane, WriteInLane
from pipelines.local.listener import ListenFailed
from pipelines.local.run import CannotStart
from pipelines.local.signals import stop_on_signals
from pipelines.preflight import Preflight, announce, tries
from transforms.feed.journal import JournalUnavailable
from transforms.feed.pubsub import ReadFromPubSub
from transforms.feed.read import ReadFromGrantex
from transforms.window import Window
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import WriteDeadLetters
from transforms.write.keyed.attempts import DrainTime
from transforms.write.receipt_objects import WriteReceipts
from transforms.write.write_to import WriteTo, label

log = logging.getLogger("grantex.run")

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


def build(pipeline: beam.Pipeline, to: Sequence[Destination], stages: Stages, window_size: float) -> None:
    """The whole graph, the same on every runner; what differs is in `stages`."""
    feed = pipeline | stages.read
    if stages.feed_letters:
        feed.dead_letters | "WriteFeedDeadLetters" >> stages.keep()
    windowed = feed.chunks | "Window" >> Window(window_size)
    for destination in to:
        name = label(destination)
        written = windowed | f"WriteTo{name}" >> stages.write(destination)
        written.dead_letters | f"Write{name}DeadLetters" >> stages.keep()
        if stages.keep_receipts is not None:
            (written.delivered, written.dead_letters) | f"Write{name}Receipts" >> stages.keep_receipts()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments (the process's own by default); returns the exit code."""
    stop = stop_on_signals()
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ)
    except BadParameters as error:
        return exit_codes.refuse(error.lines, error.code)
    logs.begin(settings, log)
    if settings.validate_only:
        return check(settings)
    try:
        return _on_this_machine(settings, stop) if settings.in_process else _on_a_cluster(settings, stop)
    except BadParameters as error:  # what the cluster's runner finds in its own
        return exit_codes.refuse(error.lines, error.code)
    except CannotStart as error:
        return exit_codes.refuse([str(error)])
    except (JournalUnavailable, ListenFailed) as error:
        log.error("%s", error)
        return exit_codes.FAILED


def _on_this_machine(settings: Settings, stop: threading.Event) -> int:
    """A lane for each destination, over one journal."""
    with in_force(settings, stop) as effective:

        def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
            stages = in_a_lane(lane, effective.dead_letters_place)
            build(pipeline, [lane.destination], stages, effective.window_size)

        feed, to = feed_settings(effective), destinations(effective)
        preflight = Preflight(tries(feed, to) if effective.preflight != "off" else {})
        return local.run(effective, feed, to, graph, stop, preflight=preflight)


def _on_a_cluster(settings: Settings, stop: threading.Event) -> int:
    """One job with all destinations. They are tried from here, whatever its workers can reach: in strict mode
    before it is submitted, otherwise meanwhile."""
    if settings.preflight == "strict" and not _passes(settings):
        return exit_codes.PREFLIGHT_FAILED
    stages, to = on_a_cluster(settings), destinations(settings)
    feed = None if settings.pubsub_subscription else feed_settings(settings)
    announce(settings.pubsub_subscription if feed is None else feed.root, to)
    preflight = Preflight(tries(feed, to) if settings.preflight == "warn" else {})
    preflight.start()
    code = cluster.run(settings, lambda pipeline: build(pipeline, to, stages, settings.window_size), stop)
    preflight.wait()  # where nobody waits for the job's end, its findings would go unsaid
    return code


def _passes(settings: Settings) -> bool:
    """Try everything that costs and writes nothing, and say what was found."""
    feed = None if settings.pubsub_subscription else feed_settings(settings)
    preflight = Preflight(tries(feed, destinations(settings)))
    preflight.start()
    passed = preflight.wait()
    print(table(report(preflight.found())))
    return passed


if __name__ == "__main__":
    # The module of that name, not this copy: what Beam pickles must be importable.
    from pipelines.stream import main as importable_main

    sys.exit(importable_main())
