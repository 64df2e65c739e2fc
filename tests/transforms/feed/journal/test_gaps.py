"""Feed gaps: an open one survives a crash, a closed one becomes a dead letter, a new journal has none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.transforms.feed.journal.support import copy_files, events, open_journal
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.journal import Gap
from transforms.feed.journal.database import Database
from transforms.feed.journal.gaps import HEARD_EVERY


def test_a_brand_new_journal_has_no_gap(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.open_gap("not running")
    journal.close_gap()
    assert (journal.gaps(), journal.gap_open, journal.gap_total, journal.dead_letters()) == ([], False, 0, [])
    journal.close()


def test_after_a_restart_the_gap_begins_when_the_feed_was_last_heard(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock)
    clock.advance(50)
    journal.append(events(0, 1), [])
    stopped = clock.now()
    journal.close()

    clock.advance(600)
    journal = open_journal(tmp_path, clock=clock)
    journal.open_gap("not running")
    clock.advance(2)
    journal.close_gap()
    assert journal.gaps() == [Gap(stopped, stopped + 602, "not running")]
    journal.close()


def test_after_a_kill_the_gap_begins_at_most_a_few_seconds_early(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path / "a", clock=clock)
    for _ in range(100):
        clock.advance(0.9)
        journal.heard()
    killed = clock.now()
    crashed = open_journal(copy_files(tmp_path / "a", tmp_path / "b"), clock=clock)
    crashed.open_gap("not running")
    [gap] = crashed.gaps()
    assert killed - HEARD_EVERY - 1 <= gap.since <= killed
    for opened in (journal, crashed):
        opened.close()


def test_a_gap_open_at_a_crash_goes_on_as_the_same_gap(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path / "a", clock=clock)
    journal.heard()
    began = clock.now()
    clock.advance(3)
    journal.open_gap("connection reset")
    crashed = open_journal(copy_files(tmp_path / "a", tmp_path / "b"), clock=clock)
    assert crashed.gap_open
    crashed.open_gap("not running")
    clock.advance(60)
    crashed.close_gap()
    assert crashed.gaps() == [Gap(began, began + 63, "connection reset")]
    assert crashed.gap_total == 1
    for opened in (journal, crashed):
        opened.close()


def test_a_closed_gap_is_a_dead_letter_once(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock)
    woken: list[bool] = []
    journal.listeners.append(lambda: woken.append(True))
    journal.heard()
    journal.open_gap("silent", since=clock.now() - 75)
    clock.advance(5)
    journal.close_gap()
    journal.close_gap()
    [(number, letter)] = journal.dead_letters()
    assert (letter.stage, letter.cause, letter.at) == ("feed", "feed_gap: silent", clock.now())
    assert msgspec.json.decode(letter.raw) == {
        "since": "2026-03-01T11:58:45.000Z",
        "until": "2026-03-01T12:00:05.000Z",
        "seconds": 80.0,
        "reason": "silent",
    }
    assert woken == [True]
    journal.drop_dead_letters(number)
    journal.close()
    journal = open_journal(tmp_path)
    assert (journal.dead_letters(), journal.gap_total, journal.gap_open) == ([], 1, False)
    journal.close()


def test_a_gap_that_cannot_be_written_is_written_when_it_can(tmp_path: Path) -> None:
    clock = ManualClock()
    full: list[bool] = []

    class SometimesFull(Database):
        @contextmanager
        def transaction(self) -> Iterator[sqlite3.Connection]:
            if full:
                raise sqlite3.OperationalError("database or disk is full")
            with super().transaction() as connection:
                yield connection

    journal = open_journal(tmp_path, clock=clock, database=SometimesFull)
    journal.heard()
    began = clock.now()
    full.append(True)
    clock.advance(1)
    journal.open_gap("the journal was full")
    assert (journal.gap_open, journal.gap_total) == (True, 1)
    clock.advance(1)
    journal.close_gap()
    assert journal.gap_open, "its end is not on disk"
    full.clear()
    clock.advance(HEARD_EVERY)
    journal.heard()
    assert journal.gaps() == [Gap(began, began + 2, "the journal was full")]
    assert len(journal.dead_letters()) == 1
    assert not journal.gap_open
    journal.close()


@pytest.mark.parametrize("kept", [3])
def test_old_gaps_make_room_and_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("transforms.feed.journal.gaps.KEEP_GAPS", kept)
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock)
    journal.heard()
    for number in range(10):
        journal.open_gap(f"number {number}")
        clock.advance(1)
        journal.close_gap()
    assert [gap.reason for gap in journal.gaps()] == ["number 7", "number 8", "number 9"]
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.gap_total == 10
    journal.close()
