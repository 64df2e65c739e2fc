"""What receipts cost in the journal, and how long `where` takes when many events are kept.

`python -m tests.benchmarks.receipts --events=10000000`: appends, batches, receipts and trimming as in a job
with two destinations, with a tenth of the events without receipts and with them, then with all of them, and
look-ups from another connection.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from transforms.clock import SystemClock
from transforms.event import Batch, Event
from transforms.feed.journal import Journal
from transforms.feed.journal.id_blocks import RANDOM, ulid_texts
from transforms.feed.journal.receipts import Receipts
from transforms.write.delivery.ledger import Settlement

APPEND = 500  # events: what two full reads of the socket hold
DESTINATIONS = ("s3", "splunk")
PLACE = "s3://audit-archive/grantex-events/date=2026-03-01/hour=12/0123456789abcdef0123456789abcdef.ndjson.gz"
BEGAN = 1_772_366_400_000  # ms


def appends(total: int, rate: int) -> Iterator[list[Event]]:
    """Events of some 280 bytes with the service's ids, `rate` of them a second."""
    rng = np.random.default_rng(1)
    padding = b"x" * 200
    for first in range(0, total, APPEND):
        times = BEGAN + (np.arange(first, first + APPEND) * 1000) // rate
        ids = ulid_texts(times, rng.integers(0, 256, (APPEND, RANDOM), np.uint8))
        yield [
            Event(each, "grant.created", "", b'{"id":"%s","d":"%s"}' % (each.encode(), padding))
            for each in ids
        ]


def fill(directory: Path, total: int, retention: float) -> tuple[float, float, list[str]]:
    """Seconds of CPU a million events (that of making them taken off), bytes of the file, and some ids."""
    logging.disable()
    journal = Journal(
        directory, feed_url="https://feed.test", receipt_retention=retention, receipt_max_bytes=4 * 1024**3
    )
    cursors = [journal.cursor(name) for name in DESTINATIONS]
    sample: list[str] = []
    spent = 0.0
    for number, events in enumerate(appends(total, 1000)):
        before = time.process_time()
        first = journal.end
        journal.append(events, [], None, "sse 1")
        for cursor in cursors:
            batch = Batch(events, range(first, first + APPEND), attempts=1)
            cursor.commit([], [batch])
            cursor.commit([Settlement(batch, batch.offsets, at=1.0, place=PLACE)], [])
        if number % 20 == 19:
            journal.trim()
        spent += time.process_time() - before
        if number % (max(1, total // APPEND // 1000)) == 0:
            sample.append(events[number % APPEND].id)
    before = time.process_time()
    journal.close()
    spent += time.process_time() - before
    size = sum(path.stat().st_size for path in directory.iterdir() if path.name.startswith("journal"))
    return spent / total * 1e6, size, sample


def timed(what: Callable[[], object], times: int = 200) -> str:
    """Milliseconds: the median and the worst."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        found.append((time.perf_counter() - began) * 1000)
    return f"{statistics.median(found):.1f} ms (worst {max(found):.1f})"


def main(argv: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where journals are made; a temporary one by default")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        tenth = max(APPEND, options.events // 10)
        without, small, _ = fill(Path(place, "without"), tenth, 0.0)
        cpu, more, _ = fill(Path(place, "as many"), tenth, 86_400.0)
        print(f"CPU a million events: {without:.2f} s without receipts, {cpu:.2f} s with")
        print(f"disk a million events: {small / tenth:.1f} MB without receipts, {more / tenth:.1f} MB with")
        _, size, ids = fill(Path(place, "with"), options.events, 86_400.0)
        print(f"disk: {size / options.events:.1f} bytes an event, {size / 1e6:.0f} MB")
        rng = random.Random(1)
        with contextlib.closing(Receipts(Path(place, "with"))) as receipts:
            assert all(found.destinations["s3"].place == PLACE for found in receipts.find(ids))
            print("where, one id of many:", timed(lambda: list(receipts.find([rng.choice(ids)]))))
            print("where, an id that never came:", timed(lambda: list(receipts.find([ids[0][:-4] + "0000"]))))
            print("where, no ULID:", timed(lambda: list(receipts.find([f"evt_{rng.random()}"]))))
            print(f"delivered, {len(ids)} ids at once:", timed(lambda: receipts.delivered("s3", ids), 3))
        began = time.perf_counter()
        with contextlib.closing(Receipts(Path(place, "with"))) as receipts:
            list(receipts.find(ids[:1]))
        print(f"where, opened for one id: {(time.perf_counter() - began) * 1000:.1f} ms")
        began = time.perf_counter()
        with contextlib.closing(Receipts(Path(place, "with"))) as receipts:
            count = sum(1 for _ in receipts.received(0.0, 1e12))
        seconds = time.perf_counter() - began
        print(f"received, all {count} streamed: {seconds:.1f} s, {count / seconds:.0f} a second")
        began = time.perf_counter()
        clock = SystemClock()
        Journal(
            Path(place, "with"), feed_url="https://feed.test", receipt_retention=86_400.0, clock=clock
        ).close()
        print(f"start over it, and end: {time.perf_counter() - began:.1f} s")
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
