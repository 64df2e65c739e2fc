"""Ages use the monotonic clock: a wall clock that jumps deletes neither ids nor receipts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import events, open_journal
from transforms.event import Batch
from transforms.feed.journal import Gap
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
        assert len(journal.append(events(0, 100), [])) == 0
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


def gap_over(tmp_path: Path, before: float, within: float) -> tuple[Gap, JumpingClock]:
    """A gap of 20 s that begins 5 s after the feed was heard; the wall clock is set by so much before it
    and in its middle."""
    clock = JumpingClock()
    journal = open_journal(tmp_path, clock=clock)
    journal.heard()
    clock.wall += 5 + before
    clock.steady += 5
    journal.open_gap("cut")
    assert journal.gaps()[0].since <= clock.wall
    clock.wall += 20 + within
    clock.steady += 20
    journal.close_gap()
    [gap] = journal.gaps()
    [(_, letter)] = journal.dead_letters()
    assert gap.until is not None
    assert f'"seconds":{gap.until - gap.since}' in letter.raw.decode()
    journal.close()
    return gap, clock


@pytest.mark.parametrize(("before", "within"), [(0, 0), (-3600, 0), (0, -3600), (-10, -10), (-YEAR, -YEAR)])
def test_a_gap_is_as_long_as_it_was_when_the_wall_clock_is_set_back(
    tmp_path: Path, before: float, within: float
) -> None:
    gap, clock = gap_over(tmp_path, before, within)
    assert gap == Gap(clock.wall - 25, clock.wall, "cut")


def test_a_gap_over_a_clock_set_forward_begins_where_the_feed_was_heard(tmp_path: Path) -> None:
    gap, clock = gap_over(tmp_path, 3600, 0)
    assert gap == Gap(clock.wall - 3625, clock.wall, "cut")


def test_a_gap_over_a_restart_with_a_clock_set_back_is_not_in_the_future(tmp_path: Path) -> None:
    clock = JumpingClock()
    journal = open_journal(tmp_path, clock=clock)
    journal.append(events(0, 1), [])
    journal.close()
    clock.wall -= 3600
    clock.steady += 10
    journal = open_journal(tmp_path, clock=clock)
    journal.open_gap("not running")
    began = clock.wall
    clock.wall += 2
    clock.steady += 2
    journal.close_gap()
    assert journal.gaps() == [Gap(began, began + 2, "not running")]
    journal.close()
