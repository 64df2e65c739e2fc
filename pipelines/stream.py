"""The job: reads the Grantex event feed and keeps every destination complete."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam

from pipelines import exit_codes
from pipelines.destinations import destinations, feed_settings
from pipelines.local import logs
from pipelines.local.demo import practice
from pipelines.local.lane import Lane
from pipelines.local.run import CannotStart, run
from pipelines.local.signals import stop_on_signals
from pipelines.settings import BadParameters, Settings, parse
from transforms.dead_letter import WriteDeadLetters
from transforms.feed.read import ReadFromGrantex
from transforms.window import Window
from transforms.write.contract import Destination
from transforms.write.write_to import WriteTo, label

log = logging.getLogger("grantex.run")


def build(
    pipeline: beam.Pipeline,
    to: Sequence[Destination],
    *,
    source: str,
    window_size: float,
    dead_letters: Path,
    lane: str | None = None,
) -> None:
    """The whole graph. On one machine it is built once for each destination, in a lane of its own."""
    feed = pipeline | "ReadFromGrantex" >> ReadFromGrantex(source=source)
    feed.dead_letters | "WriteFeedDeadLetters" >> WriteDeadLetters(dead_letters)
    windowed = feed.chunks | "Window" >> Window(window_size)
    for destination in to:
        name = label(destination)
        written = windowed | f"WriteTo{name}" >> WriteTo(destination, lane=lane)
        written.dead_letters | f"Write{name}DeadLetters" >> WriteDeadLetters(dead_letters)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments (the process's own by default); returns the exit code."""
    stop = stop_on_signals()
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ)
    except BadParameters as error:
        return _refuse(error.lines)
    logs.configure(settings.log_format, settings.log_level)
    for line in settings.warnings:
        log.warning(line)
    try:
        with practice(settings, stop) if settings.demo else _as_given(settings) as effective:

            def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
                build(
                    pipeline,
                    [lane.destination],
                    source=lane.name,
                    window_size=effective.window_size,
                    dead_letters=effective.dead_letters_dir,
                    lane=lane.name,
                )

            return run(effective, feed_settings(effective), destinations(effective), graph, stop)
    except CannotStart as error:
        return _refuse([str(error)])


@contextlib.contextmanager
def _as_given(settings: Settings) -> Iterator[Settings]:
    yield settings


def _refuse(lines: Sequence[str]) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return exit_codes.BAD_PARAMETERS


if __name__ == "__main__":
    # The module of that name, not this copy: what Beam pickles must be importable.
    from pipelines.stream import main as importable_main

    sys.exit(importable_main())
