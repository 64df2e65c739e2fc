"""`make bench ARGS=--curves`: how the job scales with destinations, size of events, backlog, remembered ids.

Prints a table for each and draws them (`--picture=FILE`). What should be straight should look straight.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tests.benchmarks.events import events as make_events
from tests.benchmarks.measure import Burst, Load, await_events, burst, stop
from tests.benchmarks.picture import Curve, picture
from tests.benchmarks.processes import memory_of, running, server
from tests.benchmarks.receipts import APPEND, appends
from tests.benchmarks.sides import Task, ours
from transforms.event import Event
from transforms.feed.journal import Journal
from transforms.parse import parse_frames

MILLION = 1_000_000


def all_curves(arguments: argparse.Namespace) -> None:
    """Measure, print and draw."""
    curves = []
    for curve in (over_destinations, over_bytes, over_backlog, over_ids):
        curves.append(curve(arguments))
        show(curves[-1])
    if arguments.picture is not None:
        note = (
            f"{os.cpu_count()} cores, Python {platform.python_version()}; 1,000 events a batch, "
            f"HEC on loopback; medians of {arguments.runs}"
        )
        arguments.picture.write_text(picture(curves, note), encoding="utf-8")
        print(f"\nDrawn: {arguments.picture}")


def over_destinations(arguments: argparse.Namespace) -> Curve:
    """Every event to each of one to eight destinations."""
    curve = Curve(
        f"{arguments.events:,} events to each", "destinations", "s", ("wall", "CPU beyond the start")
    )
    for count in (1, 2) if arguments.quick else range(1, 9):
        runs = repeated(arguments, Load(arguments.events, 1000, destinations=count))
        curve.points.append((count, (median(runs, "wall"), median(runs, "cpu"))))
    return curve


def over_bytes(arguments: argparse.Namespace) -> Curve:
    """Events of 100 to 5,000 bytes to one destination."""
    curve = Curve("One destination", "bytes an event", "µs an event", ("wall", "CPU beyond the start"))
    for size in (100, 1000) if arguments.quick else (100, 280, 1000, 2000, 3000, 4000, 5000):
        events = arguments.events // 2  # as many of each size: what does not depend on it is spread over them
        runs = repeated(arguments, Load(events, 1000, event_bytes=size))
        scale = MILLION / events
        curve.points.append((size, (median(runs, "wall") * scale, median(runs, "cpu") * scale)))
    return curve


def over_backlog(arguments: argparse.Namespace) -> Curve:
    """A start over a journal that holds events for one destination."""
    curve = Curve(
        "Events held back for one destination", "events", "s", ("start to first delivery", "all delivered")
    )
    sizes = (10_000, 50_000) if arguments.quick else (10_000, MILLION, 2 * MILLION, 3 * MILLION, 5 * MILLION)
    print(
        f"\n{'events held':>12} {'MB of disk':>10} {'first, s':>9} {'all, s':>8} {'MB resident at most':>20}"
    )
    for size in sizes:
        disk, first, whole, peak = drained(size)
        print(f"{size:12,} {disk:10.0f} {first:9.2f} {whole:8.2f} {peak:20.0f}", flush=True)
        curve.points.append((size, (first, whole)))
    return curve


def drained(events: int) -> tuple[float, float, float, float]:
    """MB of the journal, seconds to the first and to the last delivery, MB resident."""
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", "--events=0") as (feed,),
        server("counting_server") as hecs,
    ):
        journal = Journal(Path(state), feed_url=f"http://127.0.0.1:{feed}", receipt_retention=86_400.0)
        journal.cursor("splunk")
        source = make_events(events)
        while raws := list(islice(source, APPEND)):
            journal.append(parse_frames(raws, time.time())[0], [])
        journal.close()
        disk = sum(path.stat().st_size for path in Path(state).glob("journal*")) / MILLION
        with running(ours(Task(feed, hecs, state, max_events=1000))) as side:
            figures = await_events(side, hecs[0], events, [])
            peak = side.memory("VmHWM")
            stop(side, ours)
        return disk, figures["first"] - side.started, figures["last"] - side.started, peak


def over_ids(arguments: argparse.Namespace) -> Curve:
    """Appends while ever more ids are remembered, and a start over them."""
    curve = Curve(
        "Ids remembered within the horizon",
        "events received",
        "s",
        ("append of a million", "start over them"),
    )
    step = 20_000 if arguments.quick else MILLION
    steps = 2 if arguments.quick else 10
    print(f"\n{'received':>12} {'µs an event':>12} {'start, s':>9} {'MB resident':>12}")
    with tempfile.TemporaryDirectory() as state:
        source = appends(steps * step, 1000)
        for number in range(1, steps + 1):
            began = time.monotonic()
            journal = Journal(Path(state), feed_url="https://feed.test")
            start = time.monotonic() - began
            spent = _append(journal, source, step)
            journal.close()
            curve.points.append((number * step, (spent * MILLION, start)))
            resident = memory_of(os.getpid())
            print(f"{number * step:12,} {spent * MILLION:12.2f} {start:9.2f} {resident:12.0f}", flush=True)
    return curve


def _append(journal: Journal, source: Iterator[Sequence[Event]], events: int) -> float:
    """Seconds an event that appending takes, delivered at once."""
    cursor = journal.cursor("splunk")
    spent = 0.0
    for number in range(events // APPEND):
        some = next(source)
        before = time.perf_counter()
        journal.append(some, [])
        cursor.advance(journal.end)
        if number % 50 == 0:
            journal.trim()
        spent += time.perf_counter() - before
    journal.trim()
    return spent / events


def repeated(arguments: argparse.Namespace, load: Load) -> list[Burst]:
    """The same burst several times."""
    return [burst(ours, load) for _ in range(arguments.runs)]


def median(runs: Sequence[Burst], figure: str) -> float:
    """The middle one of a figure."""
    return float(statistics.median(getattr(run, figure) for run in runs))


def show(curve: Curve) -> None:
    """Print it as a table."""
    print(f"\n{curve.title}, {curve.unit}")
    print(f"  {curve.over:>16}" + "".join(f"{name:>26}" for name in curve.names))
    for x, figures in curve.points:
        print(f"  {x:16,.0f}" + "".join(f"{figure:26.2f}" for figure in figures), flush=True)
