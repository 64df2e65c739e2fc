"""Ages use the monotonic clock: a wall clock that jumps deletes neither ids nor receipts."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.transforms.feed.journal.support import events, open_journal
from transforms.event import Batch
from transforms.feed.journal.space import EXPIRE_EVERY
from transforms.write.delivery.ledger import Settlement

YEAR = 366 * 86400.0


class JumpingClock:
    """The wall clock is set by the test; the monotonic one advances by itself, a little at a time."""

    def __init__(self) -> None:
        self.wall = 1_772_366_400.0
        self.steady = 100.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        raise AssertionError("the journal never waits")


def test_a_wall_clock_that_jumps_back_and_forth_deletes_nothing(tmp_path: Path) -> None:
    clock = JumpingClock()
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=3600.0)
    cursor = journal.cursor("kafka")
    journal.append(events(0, 100), [])
    batches = [Batch(events(n, n + 10), range(n, n + 10)) for n in range(0, 100, 10)]
    cursor.commit((), batches)
    cursor.commit([Settlement(batches[4], batches[4].offsets)], ())
    for jump in (YEAR, -3 * YEAR, 10 * YEAR, -8 * YEAR):
        clock.wall += jump
        clock.steady += EXPIRE_EVERY
        journal.trim()
        journal.close()
        journal = open_journal(tmp_path, clock=clock, dedupe_horizon=3600.0)
        assert journal.append(events(0, 100), []) == 0
        cursor = journal.cursor("kafka")
        assert (cursor.pending, cursor.delivered, len(cursor.recover())) == (90, 10, 9)
    journal.close()


def test_arrival_times_never_step_back_within_a_run(tmp_path: Path) -> None:
    clock = JumpingClock()
    journal = open_journal(tmp_path, clock=clock)
    began = clock.wall
    for number, jump in enumerate((0.0, 60.0, -YEAR, YEAR)):
        clock.wall += jump
        journal.append(events(number, number + 1), [])
    taken = [chunk.taken_at for chunk in journal.read(0, 10)]
    assert taken == [began, began + 60, began + 60, began + 60]
    journal.close()


def test_a_gap_never_ends_before_it_begins(tmp_path: Path) -> None:
    clock = JumpingClock()
    journal = open_journal(tmp_path, clock=clock)
    journal.heard()
    journal.open_gap("connection lost")
    clock.wall -= YEAR
    journal.close_gap()
    [gap] = journal.gaps()
    assert gap.until == gap.since
    journal.close()
