"""`make bench`: the job against by_hand.py and others, in turn, on the same input; prints plain text.

All sides run in turn, each as a whole child process, against the same servers, so that a slow minute of the
machine falls on all. What is timed starts when the feed has read the stream's request.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks import alone, cluster, curves, guarantees, tables
from tests.benchmarks.capacity import counting_capacity, feed_capacity
from tests.benchmarks.measure import BenchmarkError
from tests.benchmarks.sides import by_hand, ours

# In the order in which they run.
PARTS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "table": tables.side_by_side,
    "one": tables.one_destination,
    "five": tables.five_destinations,
    "transports": tables.transports,
    "alone": alone.each_destination,
    "idle": tables.idle_minute,
    "latency": tables.single_events,
    "guarantees": guarantees.costs,
    "cluster": cluster.on_a_cluster,
}


def settings() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The job against by_hand.py, side by side.")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part of it; repeatable")
    parser.add_argument("--runs", type=int, default=3, help="pairs for each table")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--singles", type=int, default=300, help="events for the delay")
    parser.add_argument(
        "--node_package",
        type=Path,
        default=Path("node_modules/@grantex/destinations"),
        help="where the service's own package is built, for its row of the table",
    )
    parser.add_argument("--curves", action="store_true", help="how it scales, and nothing else")
    parser.add_argument("--picture", type=Path, help="with --curves: an SVG file to draw them in")
    parser.add_argument("--quick", action="store_true", help="small figures that only show that it runs")
    parser.add_argument(
        "--subject", choices=("ours", "by_hand"), default="ours", help="by_hand: the harness alone"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs, arguments.events, arguments.idle, arguments.singles = 1, 20_000, 5.0, 40
    arguments.command = ours if arguments.subject == "ours" else by_hand
    return arguments


def main() -> None:
    """Run everything and print it."""
    arguments = settings()
    print(
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()},",
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start",
    )
    feed, hec = feed_capacity(arguments.events, 65_536), counting_capacity(arguments.events, 100)
    print(
        f"The servers alone: feed {feed / 1e6:.1f} M events/s,",
        f"counting {hec / 1e6:.1f} M events/s at 100 a batch",
        flush=True,
    )
    try:
        if arguments.curves:
            curves.all_curves(arguments)
            return
        for name, part in PARTS.items():
            if arguments.only is None or name in arguments.only:
                part(arguments)
    except BenchmarkError as error:
        sys.exit(f"\nThe benchmark stopped: {error}")


if __name__ == "__main__":
    main()
