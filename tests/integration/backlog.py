"""`make backlog-test`: a destination is away until a key holds gigabytes; then it is back, or the input ends.

No element of state and no commit may come near what services refuse for ever (80 MB, 180 MB), and what waits
is written twice at most: as it comes, and as it leaves the inbox.

The state lies in files, as it would at a runner's; everything else is the real thing.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.transforms.write.drivers import longest
from tests.transforms.write.keyed.cluster import KEY, Cluster, FakeBag
from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.service import Fake, Service
from transforms.batch import BatchPolicy
from transforms.event import Event, Receipt
from transforms.write.keyed.attempts import DrainTime
from transforms.write.keyed.firing import Budget, Result

MOST = 64_000_000  # bytes of an element, and of a commit
EVENT_BYTES = 20_000
POLICY = BatchPolicy(max_events=500, max_bytes=4_500_000, max_age=2.0)


class BagOnDisk(FakeBag):
    """What is kept in `_store` is where each element lies in the file."""

    def read(self) -> Iterable[bytes]:
        cluster = self._cluster
        assert isinstance(cluster, ClusterOnDisk)
        for first, size in self._store.get(self._name, ()):
            cluster.bytes_read += size
            yield os.pread(cluster.file.fileno(), size, first)

    def add(self, value: bytes) -> None:
        cluster = self._cluster
        assert isinstance(cluster, ClusterOnDisk)
        first = cluster.file.seek(0, os.SEEK_END)
        cluster.file.write(value)
        cluster.note(len(value))
        self._store.setdefault(self._name, []).append((first, len(value)))


class ClusterOnDisk(Cluster):
    """Counts what it is given instead of keeping it."""

    bag = BagOnDisk

    def __init__(self, place: Path) -> None:
        self.file = (place / "state").open("w+b", buffering=0)
        self.service = Service()
        super().__init__(Fake(self.service, POLICY), ManualClock(), longest)
        self.drain_time = DrainTime(idle=0.1)
        self.delivered = self.dead = 0
        self.clock.wait = self._wait  # type: ignore[method-assign]
        self.new_process()

    def _wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Whoever waits for a time lets it pass; whoever waits for a writer waits for it."""
        if timeout is None or event.wait(0.05):
            return event.wait()
        self.clock.advance(timeout)
        return event.is_set()

    def take(self, results: Iterator[Result]) -> None:
        for result in results:
            super().take(iter([result]))
            if isinstance(result, Receipt):
                self.delivered += len(result.event_ids)
            else:
                self.dead += 1
            self.receipts.clear()
            self.letters.clear()
        self.service.writes.clear()


def fill(cluster: ClusterOnDisk, size: int, seed: int = 1) -> int:
    """Events until the key holds so many bytes, packed, of which nothing can be packed; says how many."""
    dice, count = random.Random(seed), 0
    cluster.service.refuse = httpx.ConnectError("refused")
    while cluster.key_state().size() < size:
        raws = [dice.randbytes(EVENT_BYTES) for _ in range(500)]
        cluster.arrive([Event(f"evt_{count + n}", "", "", raw) for n, raw in enumerate(raws)])
        count += len(raws)
        cluster.clock.advance(1.0)
        cluster.settle()
    return count


def come_back(cluster: ClusterOnDisk) -> None:
    """The destination takes everything."""
    cluster.service.refuse = None
    while cluster.pending():
        cluster.clock.advance(1.0)
        cluster.settle()


def end(cluster: ClusterOnDisk) -> int:
    """The input ends while the destination is away; says in how many firings."""
    firings = 0
    while cluster.store:
        with cluster.bundle() as (delivery, beam_state):
            cluster.take(delivery.end(KEY, beam_state, budget=Budget()))
        firings += 1
    return firings


def run(size: int, place: Path, say: Any = print) -> list[str]:
    """Both ways with `size` bytes; what is wrong with them."""
    wrong = []
    for name in ("it comes back", "the input ends"):
        cluster = ClusterOnDisk(place)
        started = time.monotonic()
        count = fill(cluster, size)
        held, blocks = cluster.key_state().size(), cluster.key_state().blocks
        written, largest = cluster.bytes_written, max(each.packed for each in blocks)
        say(
            f"{name}: {held / 1e6:.0f} MB of {count} events wait in {len(blocks)} blocks, "
            f"the largest {largest / 1e6:.0f} MB; {written / held:.2f} times written"
        )
        before = cluster.bytes_written
        if name == "it comes back":
            come_back(cluster)
        else:
            end(cluster)
        assert cluster.close()
        more = (cluster.bytes_written - before) / 1e6
        say(
            f"  delivered {cluster.delivered}, dead letters {cluster.dead}; largest element "
            f"{cluster.largest_element / 1e6:.1f} MB, commit {cluster.largest_commit / 1e6:.1f} MB; "
            f"{more:.1f} MB written and {cluster.bytes_read / held:.1f} times read for it; "
            f"{time.monotonic() - started:.0f} s"
        )
        cluster.file.close()
        wrong += [
            f"{name}: {what}"
            for what, is_wrong in (
                ("an event is missing", cluster.delivered + cluster.dead != count),
                ("an element is too large", cluster.largest_element >= MOST),
                ("a commit is too large", cluster.largest_commit >= MOST),
                ("events are written again", cluster.bytes_written > 2.3 * held),
            )
            if is_wrong
        ]
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="packed, in one key")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wrong = run(int(arguments.gigabytes * 1e9), Path(place))
    sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
