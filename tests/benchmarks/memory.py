"""`make bench-memory`: resident memory of the job over many tiny bundles, one event each.

The feed sends single events at a rate, `max_events` is 1, so every event is a request and about a bundle.
Prints MB over time and how much it grew after the first two fifths, in which caches and threads settle and
the set of ids fills the 32,768 that it holds unpacked and sets up its filter (8 MB); 16 bytes an id remain.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

from tests.benchmarks.measure import BenchmarkError, stop
from tests.benchmarks.processes import running, server, stats
from tests.benchmarks.sides import Task, by_hand, ours

LIMIT = 300.0  # MB, what the job must stay below
SETTLED = 0.4  # share of the bundles
GROWTH_LIMIT = 6.0  # MB after that: 0.1 KB a bundle over 100,000


def settings() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Resident memory over many tiny bundles.")
    parser.add_argument("--bundles", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=150.0, help="events a second")
    parser.add_argument("--samples", type=int, default=40, help="lines to print")
    parser.add_argument(
        "--subject", choices=("ours", "by_hand"), default="ours", help="by_hand: the harness alone"
    )
    return parser.parse_args()


def watch(arguments: argparse.Namespace) -> list[tuple[int, float]]:
    """Run the job and give (requests so far, MB resident), one for every line printed."""
    seen: list[tuple[int, float]] = []
    command = ours if arguments.subject == "ours" else by_hand
    feed_arguments = (f"--events={arguments.bundles}", f"--spacing={1 / arguments.rate}")
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", *feed_arguments) as (feed,),
        server("counting_server") as hecs,
        running(command(Task(feed, hecs, state, max_events=1, max_age=0.05))) as side,
    ):
        print(f"{'seconds':>8} {'requests':>9} {'events':>9} {'MB':>7}")
        figures = stats(hecs[0])
        while figures["events"] < arguments.bundles:
            time.sleep(max(0.5, arguments.bundles / arguments.rate / arguments.samples))
            if not side.running:
                raise BenchmarkError(side.failure("It ended by itself"))
            figures = stats(hecs[0])
            seen.append((figures["requests"], side.memory("VmRSS")))
            taken = time.monotonic() - side.started
            print(f"{taken:8.0f} {seen[-1][0]:9} {figures['events']:9} {seen[-1][1]:7.1f}", flush=True)
        peak = side.memory("VmHWM")
        stop(side, command)
    print(f"Peak {peak:.1f} MB (must stay below {LIMIT:.0f})")
    return seen


def main() -> None:
    """Run, print, and exit 1 when memory was not flat or too much."""
    arguments = settings()
    try:
        seen = watch(arguments)
    except BenchmarkError as error:
        sys.exit(f"The benchmark stopped: {error}")
    settled = [megabytes for requests, megabytes in seen if requests >= arguments.bundles * SETTLED]
    growth = settled[-1] - settled[0]
    print(f"Grew by {growth:+.1f} MB after the first two fifths, {seen[-1][0]} requests in all")
    if growth > GROWTH_LIMIT or max(megabytes for _, megabytes in seen) > LIMIT:
        sys.exit("Memory is not flat, or above the limit.")


if __name__ == "__main__":
    main()
