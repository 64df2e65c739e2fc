"""`make bench`: the job against by_hand.py, in pairs, on the same input; prints plain text.

Both sides run in turn, each as a whole child process, against the same servers, so that a slow minute of the
machine falls on both. What is timed starts when the feed has read the stream's request.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks.capacity import counting_capacity, feed_capacity
from tests.benchmarks.measure import BenchmarkError, Burst, burst, idle, latency
from tests.benchmarks.sides import Command, by_hand, ours

EVENTS = 200_000
CHUNK_BYTES = 65_536
LABELS: Mapping[Command, str] = {ours: "ours", by_hand: "by hand"}
ROWS: Sequence[tuple[str, str, Callable[[Burst], float]]] = (
    ("wall, stream asked to last event", "s", lambda run: run.wall),
    ("CPU in that time", "s", lambda run: run.cpu),
    ("CPU of the whole process", "s", lambda run: run.cpu_whole),
    ("peak resident memory", "MB", lambda run: run.peak),
    ("process start to first delivery", "s", lambda run: run.first),
    ("requests", "", lambda run: run.requests),
)


def pairs(subject: Command, arguments: argparse.Namespace, max_events: int, chunk_bytes: int) -> float:
    """Run and print one table; gives the median wall time of the subject."""
    runs: list[tuple[Burst, Burst]] = []
    for number in range(arguments.runs):
        sides = (subject, by_hand) if number % 2 == 0 else (by_hand, subject)
        done = [burst(side, arguments.events, max_events, chunk_bytes, "none") for side in sides]
        runs.append((done[0], done[1]) if number % 2 == 0 else (done[1], done[0]))
    chunks = f"{chunk_bytes // 1024} KiB" if chunk_bytes else "one event"
    print(f"\n1 destination, {max_events} a batch, {arguments.events} events, HTTP chunks of {chunks}")
    title = f"median of {arguments.runs}"
    print(f"  {title:34} {LABELS[subject]:>10} {'by hand':>10} {'ratio':>7}   each pair")
    for name, unit, figure in ROWS:
        mine, theirs = (statistics.median(figure(run[side]) for run in runs) for side in (0, 1))
        each = " ".join(f"{figure(first) / figure(second):.2f}" for first, second in runs)
        print(f"  {name:34} {mine:8.2f} {unit:2}{theirs:8.2f} {unit:2}{mine / theirs:7.2f}   {each}")
    sys.stdout.flush()
    return statistics.median(run[0].wall for run in runs)


def gzip_cost(subject: Command, arguments: argparse.Namespace, plain: float) -> None:
    """Ours with compressed requests, against ours without."""
    runs = [burst(subject, arguments.events, 1000, CHUNK_BYTES, "gzip") for _ in range(arguments.runs)]
    wall, cpu = (statistics.median(figure(run) for run in runs) for figure in (ROWS[0][2], ROWS[1][2]))
    print(
        f"\nWith --http_compression=gzip, 1000 a batch: wall {wall:.2f} s ({wall / plain:.2f} times without),"
    )
    print(f"  CPU in that time {cpu:.2f} s", flush=True)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of them are; the nearest one that occurred."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quiet(subject: Command, arguments: argparse.Namespace) -> None:
    """Idle CPU and the delay of single events, both sides."""
    print(f"\nIdle for {arguments.idle:.0f} s, connected, share of one core")
    for name, side in ((LABELS[subject], subject), (LABELS[by_hand], by_hand)):
        print(f"  {name:8} {idle(side, arguments.idle):7.2%}", flush=True)
    print(f"\nOne event to its request, max_age 0.2 s, {arguments.singles} events 50 ms apart on average")
    for name, side in ((LABELS[subject], subject), (LABELS[by_hand], by_hand)):
        delays = latency(side, arguments.singles)
        middle, high = percentile(delays, 0.5), percentile(delays, 0.99)
        print(f"  {name:8} p50 {middle:.3f} s   p99 {high:.3f} s   max {delays[-1]:.3f} s", flush=True)


def settings() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The job against by_hand.py, side by side.")
    parser.add_argument("--runs", type=int, default=3, help="pairs for each table")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--singles", type=int, default=300, help="events for the delay")
    parser.add_argument("--quick", action="store_true", help="small figures that only show that it runs")
    parser.add_argument(
        "--subject", choices=("ours", "by_hand"), default="ours", help="by_hand: the harness alone"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs, arguments.events, arguments.idle, arguments.singles = 1, 20_000, 5.0, 40
    return arguments


def main() -> None:
    """Run everything and print it."""
    arguments = settings()
    subject = ours if arguments.subject == "ours" else by_hand
    print(
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
    )
    feed, hec = feed_capacity(arguments.events, CHUNK_BYTES), counting_capacity(arguments.events, 100)
    print(
        f"The servers alone: feed {feed / 1e6:.1f} M events/s,",
        f"counting {hec / 1e6:.1f} M events/s at 100 a batch",
    )
    try:
        plain = pairs(subject, arguments, 1000, CHUNK_BYTES)
        pairs(subject, arguments, 100, CHUNK_BYTES)
        pairs(subject, arguments, 1000, 0)
        if subject is ours:
            gzip_cost(subject, arguments, plain)
        quiet(subject, arguments)
    except BenchmarkError as error:
        sys.exit(f"\nThe benchmark stopped: {error}")


if __name__ == "__main__":
    main()
