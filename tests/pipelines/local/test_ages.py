"""Ages of received events on clocks that a test moves: the wall clock as it pleases, the other forward."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local import ages
from pipelines.local.ages import Ages
from tests.pipelines.local.test_lane import some
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.journal import Journal

HOUR = 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    made = Journal(tmp_path, feed_url="http://feed.test", clock=clock)
    made.cursor("shelved")
    yield made
    made.close()


def append(journal: Journal, count: int) -> int:
    """Events at the end; the offset of the first."""
    first = journal.end
    journal.append(some(first, first + count), [])
    return first


def test_an_age_is_exact_to_a_second_whatever_comes_before_and_after(
    journal: Journal, clock: ManualClock
) -> None:
    ages = Ages(journal, clock)
    clock.advance(100)
    first = append(journal, 10)
    clock.advance(0.5)
    tail = append(journal, 10)
    clock.advance(HOUR)
    later = append(journal, 10)
    clock.advance(7)
    for offset, age in (
        (first, HOUR + 7.5),
        (tail, HOUR + 7),
        (tail + 9, HOUR + 7),
        (later, 7),
        (later + 9, 7),
    ):
        assert ages.of(offset) == pytest.approx(age, abs=1.0)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_wall_clock_that_jumps_changes_no_age(journal: Journal, clock: ManualClock, jump: float) -> None:
    ages = Ages(journal, clock)
    clock._now += jump
    first = append(journal, 10)
    clock._now -= jump
    clock.advance(60)
    assert ages.of(first) == pytest.approx(60, abs=1.0)


def test_what_was_there_at_the_start_is_as_old_as_the_wall_clock_said_then(
    journal: Journal, clock: ManualClock
) -> None:
    first = append(journal, 10)
    clock.advance(500)
    ages = Ages(journal, clock)
    clock._now -= 2 * HOUR
    clock.advance(20)
    assert ages.of(first) == pytest.approx(520)


def test_a_run_of_days_holds_no_more_marks_than_it_may(journal: Journal, clock: ManualClock) -> None:
    made = Ages(journal, clock)
    first = append(journal, 1)
    for _ in range(ages.MOST_MARKS + 100):
        clock.advance(1.0)
        append(journal, 1)
    assert sys.getsizeof(made._firsts) < 9 * ages.MOST_MARKS
    assert made.of(first) == pytest.approx(ages.MOST_MARKS + 100, abs=1.0)
    assert made.of(journal.end - 1) <= 1.0
