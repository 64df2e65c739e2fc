"""A chunk and its ids commit together; ids outlive the chunk and find duplicates until the horizon."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import (
    copy_files,
    event,
    events,
    open_journal,
    read_all,
    recording_database,
)
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.journal import Journal, seen_ids
from transforms.feed.journal.seen_ids import JOIN_IDS, JOIN_ROWS
from transforms.feed.journal.space import EXPIRE_EVERY

HORIZON = 3600.0


def deliver_all(journal: Journal, name: str = "kafka") -> None:
    journal.cursor(name).advance(journal.end)
    journal.trim()


def stored_ids(directory: Path) -> int:
    with sqlite3.connect(directory / "journal.sqlite3") as connection:
        return int(connection.execute("SELECT coalesce(sum(count), 0) FROM ids").fetchone()[0])


def rows_of_ids(directory: Path) -> list[int]:
    """How many ids each row holds, oldest first."""
    with sqlite3.connect(directory / "journal.sqlite3") as connection:
        return [count for (count,) in connection.execute("SELECT count FROM ids ORDER BY first")]


def test_after_any_crash_there_are_as_many_ids_as_events(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def look() -> None:
        copy = copy_files(tmp_path / "journal", tmp_path / f"copy-{len(seen)}")
        with sqlite3.connect(copy / "journal.sqlite3") as connection:
            seen.append(
                connection.execute(
                    "SELECT (SELECT coalesce(sum(count), 0) FROM chunks), "
                    "(SELECT coalesce(sum(count), 0) FROM ids), (SELECT count(*) FROM strays)"
                ).fetchone()
            )

    journal = open_journal(tmp_path / "journal", database=recording_database(look))
    journal.append(events(0, 1200), [])
    journal.append([event(3, b"other"), *events(1200, 1300)], [])
    assert all(in_chunks == in_ids for in_chunks, in_ids, _ in seen)
    assert seen[-1][0] == 1300
    assert {(total, strays) for total, _, strays in seen} == {(0, 0), (1200, 0), (1300, 1)}
    journal.close()


def test_duplicates_within_an_append_across_appends_and_across_restarts(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    assert len(journal.append([*events(0, 5), *events(2, 7)], [])) == 7
    assert len(journal.append(events(0, 9), [])) == 2
    assert journal.duplicates == 3 + 7
    journal.close()

    journal = open_journal(tmp_path)
    assert len(journal.append(events(0, 10), [])) == 1
    assert [taken.id for taken in read_all(journal)] == [taken.id for taken in events(0, 10)]
    journal.close()


@pytest.mark.parametrize("restart", [False, True])
def test_the_same_id_with_other_bytes_is_kept_aside(tmp_path: Path, restart: bool) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    journal.append([event(1, b"one"), event(1, b"two")], [])
    if restart:
        journal.close()
        journal = open_journal(tmp_path)
    assert len(journal.append([event(1, b"three"), event(1, b"one")], [])) == 0
    letters = [letter for _, letter in journal.dead_letters()]
    assert [letter.raw for letter in letters] == [event(1, b"two").raw, event(1, b"three").raw]
    assert {letter.cause.split(":")[0] for letter in letters} == {"id_conflict"}
    assert {(letter.event_id, letter.stage) for letter in letters} == {(event(1).id, "feed")}
    assert [taken.raw for taken in read_all(journal)] == [event(1, b"one").raw]
    journal.close()


def test_ids_outlive_their_chunk_until_the_horizon(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=HORIZON)
    journal.cursor("kafka")
    journal.append(events(0, 600), [])
    deliver_all(journal)
    assert journal.bytes == 0
    clock.advance(HORIZON - 1)
    journal.trim()
    assert len(journal.append(events(0, 600), [])) == 0
    clock.advance(1)
    journal.trim()
    clock.advance(EXPIRE_EVERY)
    journal.trim()
    assert stored_ids(tmp_path) == 0
    assert len(journal.append(events(0, 600), [])) == 600
    journal.close()


def test_ids_of_events_still_held_never_expire(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=HORIZON)
    journal.cursor("down")
    journal.append(events(0, 10), [])
    clock.advance(100 * HORIZON)
    journal.trim()
    assert len(journal.append(events(0, 10), [])) == 0
    journal.close()


def test_after_a_restart_ids_live_for_another_horizon(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=HORIZON)
    journal.cursor("kafka")
    journal.append(events(0, 10), [])
    deliver_all(journal)
    clock.advance(HORIZON - 1)
    journal.close()

    clock = ManualClock(monotonic=5.0)  # a restarted machine: its monotonic clock begins anew
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=HORIZON)
    clock.advance(HORIZON - 1)
    journal.trim()
    assert len(journal.append(events(0, 10), [])) == 0
    clock.advance(EXPIRE_EVERY + 1)
    journal.trim()
    assert len(journal.append(events(0, 10), [])) == 10
    journal.close()


def test_offsets_go_on_after_a_restart_with_an_empty_journal(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    journal.append(events(0, 700), [])
    deliver_all(journal)
    journal.close()

    journal = open_journal(tmp_path)
    assert (journal.end, journal.bytes, journal.cursor("kafka").pending) == (700, 0, 0)
    journal.append(events(700, 703), [])
    assert [chunk.first for chunk in journal.read(700, 10)] == [700]
    journal.close()


def test_many_small_appends_leave_few_rows_of_ids_and_find_what_they_found(tmp_path: Path) -> None:
    many = 2 * JOIN_ROWS + 10
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    for number in range(many):
        journal.append([event(number)], [])
        if number % 100 == 0:
            journal.trim()
    journal.trim()
    assert rows_of_ids(tmp_path) == [JOIN_ROWS, JOIN_ROWS, *[1] * 10]
    journal.close()

    journal = open_journal(tmp_path)
    assert list(tmp_path.glob("journal.damaged-*")) == []
    assert journal.append(events(0, many), []) == []
    assert len(journal.append([event(7, b"other"), event(many)], [])) == 1
    assert {letter.cause.split(":")[0] for _, letter in journal.dead_letters()} == {"id_conflict"}
    journal.close()


def test_big_rows_of_ids_are_left_as_they_are(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for start in range(0, 3 * JOIN_IDS, 500):
        journal.append(events(start, start + 500), [])
    journal.trim()
    assert set(rows_of_ids(tmp_path)) == {500}
    journal.close()


def test_joined_rows_never_reach_into_ids_that_are_kept_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_ids, "RECENT", 40)
    clock = ManualClock()
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=HORIZON)
    journal.cursor("kafka")
    for number in range(100):
        journal.append([event(number)], [])
        clock.advance(HORIZON / 50)
        deliver_all(journal)
    clock.advance(EXPIRE_EVERY)
    journal.trim()
    left = rows_of_ids(tmp_path)
    assert 40 <= sum(left) < 100
    assert 40 in left
    journal.close()

    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=HORIZON)
    assert list(tmp_path.glob("journal.damaged-*")) == [], "no hole between those that are left"
    assert len(journal.append(events(60, 101), [])) == 1
    journal.close()
