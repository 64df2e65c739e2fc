"""Attempts of a worker process: remembered until every bundle that may ask has asked."""

from __future__ import annotations

import threading

from tests.transforms.write.encodings import batch
from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Batch
from transforms.write.contract import Destination, Writer
from transforms.write.keyed.attempts import REMEMBERED, UNSEEN_SECONDS, Attempts


class Counting(Destination, Writer):
    """A destination and its writer in one that takes everything."""

    def __init__(self) -> None:
        self.written = 0

    def open(self) -> Writer:
        return self

    def write(self, batch: Batch) -> None:
        self.written += 1

    def close(self) -> None:
        pass


def test_an_ended_attempt_that_nobody_has_looked_at_is_not_made_again() -> None:
    clock, counting = ManualClock(), Counting()
    attempts = Attempts(counting, "counting", clock)
    first = attempts.start(("000", "first"), batch(1))
    for number in range(2 * REMEMBERED):
        assert attempts.start(("000", number), batch(1)).done.wait(5)
    assert attempts.start(("000", "first"), batch(1)) is first
    clock.advance(UNSEEN_SECONDS)
    attempts.start(("000", "last"), batch(1))
    assert attempts.find(("000", "first")) is None
    assert attempts.find(("000", 2 * REMEMBERED - 1)) is not None
    assert attempts.close(5.0)


def test_what_another_attempt_left_of_a_batch_is_an_attempt_of_its_own() -> None:
    """The first attempt was forgotten, made again, and left other events of the same batch this time."""
    attempts = Attempts(Counting(), "counting", ManualClock())
    whole, less = batch(3), batch(3)
    less.events = less.events[1:]
    whole.attempts = less.attempts = 2
    made = attempts.start(("000", "second"), whole)
    assert made.done.wait(5)
    assert attempts.start(("000", "second"), whole) is made
    again = attempts.start(("000", "second"), less)
    assert again is not made
    assert again.done.wait(5)
    assert attempts.find(("000", "second")) is again
    assert attempts.close(5.0)


def test_two_first_rings_at_once_start_one_set_of_writers() -> None:
    counting = Counting()
    attempts = Attempts(counting, "counting", ManualClock())
    together = threading.Barrier(8)

    def ring() -> None:
        together.wait()
        attempts._threads.ring()

    before = threading.active_count()
    ringers = [threading.Thread(target=ring) for _ in range(8)]
    for each in ringers:
        each.start()
    for each in ringers:
        each.join()
    assert threading.active_count() - before == counting.concurrency
    assert attempts.close(5.0)
