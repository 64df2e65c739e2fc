"""The writers' threads: a ring reaches whoever can do something, and nobody else."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.transforms.write.encodings import batch
from transforms.clock import SystemClock
from transforms.event import Batch
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.delivery.writer_threads import WriterThreads

WRITERS = 16


@dataclass(frozen=True)
class Held(Destination):
    """Its writers deliver once they may."""

    may: threading.Event
    concurrency: int = WRITERS

    def open(self) -> Writer:
        held = self

        class HeldWriter(Writer):
            def write(self, batch: Batch) -> None:
                held.may.wait(10)

            def close(self) -> None:
                pass

        return HeldWriter()


class Work:
    """Batches to take, and what became of them; `looked` counts how often anybody asked."""

    def __init__(self) -> None:
        self.waiting: deque[Batch] = deque()
        self.done: list[Batch] = []
        self.taken = 0
        self.looked = 0
        self.changed = threading.Condition()

    def take(self) -> tuple[Batch | None, float | None]:
        with self.changed:
            self.looked += 1
            found = self.waiting.popleft() if self.waiting else None
            self.taken += found is not None
            self.changed.notify_all()
            return found, -math.inf if self.waiting else None

    def finish(self, batch: Batch, outcome: Outcome | None, seconds: float) -> None:
        with self.changed:
            self.done.append(batch)
            self.changed.notify_all()

    def until(self, true: Callable[[], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(true, 10)


def fail(error: Exception) -> None:
    raise AssertionError from error


@pytest.fixture
def work() -> Work:
    return Work()


def started(work: Work, may: threading.Event) -> WriterThreads:
    threads = WriterThreads(Held(may), "held", SystemClock(), take=work.take, done=work.finish, failed=fail)
    threads.ring()
    assert work.until(lambda: work.looked >= WRITERS)
    return threads


def test_one_ring_for_many_batches_brings_out_as_many_writers(work: Work) -> None:
    may = threading.Event()
    threads = started(work, may)
    work.waiting.extend(batch(1) for _ in range(WRITERS))
    threads.ring()
    assert work.until(lambda: work.taken == WRITERS)
    may.set()
    assert work.until(lambda: len(work.done) == WRITERS)
    assert threads.close(5)


def test_a_ring_for_one_batch_does_not_wake_all(work: Work) -> None:
    may = threading.Event()
    may.set()
    threads = started(work, may)
    time.sleep(0.05)  # every one of them rests
    before = work.looked
    for number in range(20):
        work.waiting.append(batch(1))
        threads.ring()
        assert work.until(lambda wanted=number + 1: len(work.done) == wanted)  # type: ignore[misc]
    # Who takes it looks once more afterwards; as nothing is behind it, nobody else does.
    assert work.looked - before <= 20 * 2
    assert threads.close(5)


def test_no_ring_is_missed(work: Work) -> None:
    may = threading.Event()
    may.set()
    threads = started(work, may)
    for number in range(2000):
        work.waiting.append(batch(1))
        threads.ring()
        if number % 7 == 0:
            assert work.until(lambda wanted=number + 1: len(work.done) == wanted)  # type: ignore[misc]
    assert work.until(lambda: len(work.done) == 2000)
    assert threads.close(5)


def test_closing_ends_those_that_rest(work: Work) -> None:
    threads = started(work, threading.Event())
    assert threads.close(5)
