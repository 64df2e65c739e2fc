"""replay: sends archived events or dead letters to destinations, by a bounded pipeline on any runner."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pipelines.beam  # noqa: F401 - before anything imports Beam

# isort: split
import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions

from pipelines import exit_codes
from pipelines.cluster import run as cluster
from pipelines.findings import report, table
from pipelines.flags.destinations import destinations
from pipelines.flags.general import DATAFLOW
from pipelines.flags.replay import PROGRAM, archive_of, kept_at, overlaps
from pipelines.flags.settings import BadParameters, Settings, parse
from pipelines.local import logs, replay_lanes, replay_shown
from pipelines.local.replay_lanes import Lane
from pipelines.local.replay_shown import Outcome
from pipelines.local.signals import stop_on_signals
from pipelines.preflight import Preflight, tries
from transforms.archive.choice import Archive, Choice
from transforms.archive.read_archive import ChooseFor, ReadFromArchive
from transforms.archive.sources import ArchiveError, Shard
from transforms.event import Event
from transforms.feed.journal import JournalError
from transforms.secret import redact
from transforms.write.contract import Destination, name_of
from transforms.write.dead_letters.directory import WriteDeadLetters
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.write_to import WriteTo, label

log = logging.getLogger("grantex.replay")


def build(
    pipeline: beam.Pipeline,
    archive: Archive,
    to: Sequence[tuple[Destination, Callable[..., Choice]]],
    kept: str,
    limit: int | None = None,
    lane: Lane | None = None,
) -> None:
    """The whole graph: the archive, and for each destination what is chosen for it.

    lane: who looks on, where the pipeline has one destination and runs inside this process.
    """
    ticket = None if lane is None else lane.ticket
    found = pipeline | "ReadFromArchive" >> ReadFromArchive(archive, ticket)
    for destination, choice in to:
        name = label(destination)
        chosen = found | f"ChooseFor{name}" >> ChooseFor(name_of(destination), choice, ticket)
        sink = WriteTo(destination, timers=False, dead_letter_limit=limit)
        written = chosen.main | f"WriteTo{name}" >> sink
        # One by one: flattened, they would wait for the end inside this process.
        letters = written.dead_letters | f"Write{name}DeadLetters" >> WriteDeadLetters(kept)
        conflicts = chosen[DEAD_LETTERS] | f"Write{name}Conflicts" >> WriteDeadLetters(kept)
        if ticket is not None:
            for what, results in (
                ("Delivered", written.delivered),
                ("DeadLettered", letters),
                ("Conflicts", conflicts),
            ):
                results | f"Record{name}{what}" >> beam.ParDo(replay_lanes.Record(ticket))


def main(argv: Sequence[str] | None = None) -> int:
    """Replay with these arguments (the process's own by default); returns the exit code."""
    return run(sys.argv[1:] if argv is None else argv, stop_on_signals())


def run(argv: Sequence[str], stop: threading.Event) -> int:
    """As `main`, until `stop` is set."""
    try:
        settings = parse(argv, os.environ, PROGRAM)
        archive, to = archive_of(settings), destinations(settings)
        if faults := list(overlaps(archive.source, to)):
            raise BadParameters(faults)
    except BadParameters as error:
        return exit_codes.refuse(error.lines, error.code)
    logs.begin(settings, log)
    try:
        shards = list(archive.source.shards())
        if not shards and not archive.source.letters:
            raise BadParameters([f"--from: nothing is archived under {archive.source}: look at the name"])
        return _replay(settings, archive, list(filter(archive.selection.may_hold, shards)), to, stop)
    except BadParameters as error:  # what only running finds out
        return exit_codes.refuse(error.lines, error.code)
    except ArchiveError as error:
        log.error("%s", error)
        return exit_codes.FAILED


def _replay(
    settings: Settings,
    archive: Archive,
    shards: Sequence[Shard],
    to: Sequence[Destination],
    stop: threading.Event,
) -> int:
    """shards: what is to be read, as listed a moment ago."""
    if settings["plan_only"]:
        return _plan(settings, archive, shards, to)
    if settings.preflight != "off":
        preflight = Preflight(tries(None, to))
        preflight.start()
        if settings.preflight == "strict" and not preflight.wait():
            print(table(report(preflight.found())))
            return exit_codes.PREFLIGHT_FAILED
    kept = kept_at(settings, archive.source)
    if settings.in_process:
        work = sum(shard.size for shard in shards)
        outcomes: Sequence[Outcome] | None = _on_this_machine(settings, archive, to, kept, work, stop)
    else:
        outcomes = _on_a_cluster(settings, archive, to, kept)
    if outcomes is None:
        return exit_codes.DRAINED
    print(redact(replay_shown.table(archive, outcomes, kept)))
    return exit_codes.DRAINED if all(each.complete for each in outcomes) else exit_codes.FAILED


def _lanes(
    settings: Settings, archive: Archive, to: Sequence[Destination], stop: threading.Event
) -> list[Lane]:
    """Raises BadParameters while another process does the same, or when receipts cannot be read."""
    try:
        return [replay_lanes.lane(settings, archive, each, stop) for each in to]
    except BlockingIOError:
        raise BadParameters([f"--from: another process replays {archive.source}; wait for its end"]) from None
    except JournalError as error:
        line = f"--state_dir: its receipts cannot be read: {error}; --force=true replays without them"
        raise BadParameters([line]) from error


def _on_this_machine(
    settings: Settings,
    archive: Archive,
    to: Sequence[Destination],
    kept: str,
    work: int,
    stop: threading.Event,
) -> Sequence[Outcome]:
    """A pipeline for each destination, so that none waits for another. work: how much there is to read."""
    lanes = _lanes(settings, archive, to, stop)

    def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
        build(
            pipeline,
            archive,
            [(lane.destination, partial(replay_lanes.choice_in, lane.ticket))],
            kept,
            settings.dead_letter_limit,
            lane,
        )

    return replay_lanes.run(lanes, graph, work, settings.drain_timeout, stop)


def _on_a_cluster(
    settings: Settings, archive: Archive, to: Sequence[Destination], kept: str
) -> Sequence[Outcome] | None:
    """One job with all destinations; None when it goes on without this process. Raises BadParameters."""
    options = cluster.pipeline_options(settings, os.environ)
    options.view_as(StandardOptions).streaming = False
    pipeline = cluster.pipeline_with(options)
    choices = [
        (each, partial(Choice, name_of(each), to_all=settings["to_all"], types=each.asked.type_filter()))
        for each in to
    ]
    build(pipeline, archive, choices, kept, settings.dead_letter_limit)
    result = pipeline.run()
    if settings.runner == DATAFLOW:
        cluster.submitted(result, options.view_as(GoogleCloudOptions))
        return None
    failure = ""
    try:
        state = str(result.wait_until_finish())
        failure = "" if state == "DONE" else f"the job ended {state}"
    except Exception as error:  # noqa: BLE001 - how Beam says that a job failed or was cancelled
        failure = f"the job ended with {type(error).__name__}: {error}"
    counted = cluster.counters(result) or {}
    return [_outcome(name_of(each), counted, failure) for each in to]


def _outcome(name: str, counted: Mapping[str, int], failure: str) -> Outcome:
    """What a job's counters say of one destination."""

    def of(what: str) -> Counter[str]:
        head = f"replay_{what}: "
        return Counter({key.removeprefix(head): n for key, n in counted.items() if key.startswith(head)})

    delivered, lettered = (counted.get(f"{name}_events_{what}", 0) for what in ("delivered", "dead_lettered"))
    return Outcome(name, of("archive"), of(name), delivered, lettered, failure)


def _plan(settings: Settings, archive: Archive, shards: Sequence[Shard], to: Sequence[Destination]) -> int:
    """Read everything, send nothing, and say what would be sent."""
    lanes = _lanes(settings, archive, to, threading.Event())
    planned = [Planned(lane.destination, lane.choice(once=True)) for lane in lanes]
    counts: Counter[str] = Counter()
    for shard in shards:
        for where, events in archive.read(shard, counts):
            for each in planned:
                each.add(where, events)
    lines = [f"From {archive.source}: {replay_shown.found(counts)}"]
    for each in planned:
        lines += each.lines()
    lines.append("Nothing was sent (--plan_only=true).")
    print(redact("\n".join(lines)))
    return exit_codes.DRAINED


class Planned:
    """What would be sent to one destination."""

    def __init__(self, destination: Destination, choice: Choice) -> None:
        self._destination, self._choice = destination, choice
        self._types: Counter[str] = Counter()
        self._times: list[str] = []  # the first and the last, once there are any

    def add(self, where: str, events: Sequence[Event]) -> None:
        """Choose among some events."""
        chosen, _ = self._choice.of(where, events)
        self._types.update(event.type for event in chosen)
        times = sorted([*self._times, *(event.created_at for event in chosen if event.created_at)])
        self._times = times[:1] + times[-1:]

    def lines(self) -> list[str]:
        """As a person reads it: how many, from when to when, of which types, and what is left out."""
        target = self._destination.target()
        when = f", created {self._times[0]} to {self._times[-1]}" if self._times else ""
        found = [
            f"{name_of(self._destination)}{f' ({target})' if target else ''}: "
            f"{self._types.total():,} events{when}"
        ]
        found += [f"  {kind or '(no type)':<28} {number:>12,}" for kind, number in self._types.most_common()]
        if left := replay_shown.left_out(self._choice.counts):
            found.append(f"  left out: {left}")
        return found


if __name__ == "__main__":
    # The module of that name, not this copy: what Beam pickles must be importable.
    from pipelines.replay import main as importable_main

    sys.exit(importable_main())
