"""Events that a destination did not ask for: settled for good, in few rows, counted through any repair."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import events, open_journal
from transforms.event import Batch
from transforms.feed.journal import Cursor, Journal
from transforms.feed.journal.database import suspect_mark
from transforms.feed.journal.receipts import Receipts
from transforms.feed.journal.seals import MOST_RANGES, filtered_note
from transforms.write.delivery.ledger import Filtered, Settlement


def leave_out(cursor: Cursor, *ranges: tuple[int, int]) -> None:
    cursor.commit([], [], Filtered(ranges, 1.0))


def deliver(journal: Journal, cursor: Cursor, offsets: Sequence[int]) -> None:
    batch = Batch(events(offsets[0], offsets[-1] + 1), offsets)
    cursor.commit([], [batch])
    cursor.commit([Settlement(batch, offsets)], [])


def seals(journal: Journal) -> list[int]:
    """The numbers of its ranges, of each seal of what was not asked for."""
    rows = journal._database.rows("SELECT length(offsets) / 16 FROM seals WHERE batch = 'filtered'")
    return [int(str(number)) for (number,) in rows]


def test_what_lies_behind_an_event_that_waits_is_one_seal_whatever_comes(tmp_path: Path) -> None:
    with closing(open_journal(tmp_path)) as journal:
        cursor = journal.cursor("siem")
        journal.append(events(0, 100), [])
        for first in range(1, 90, 2):
            leave_out(cursor, (first, first + 1))
        assert seals(journal) == [45]
        leave_out(cursor, (90, 95), (95, 100))
        assert seals(journal) == [45], "ranges that touch are one"
        assert (cursor.position, cursor.filtered, cursor.pending) == (0, 55, 45)
        deliver(journal, cursor, [0])
        assert cursor.position == 2
        leave_out(cursor, (2, 3))
        assert cursor.position == 4
        assert seals(journal) == [44], "what is passed is not kept"


def test_no_seal_of_it_grows_without_end(tmp_path: Path) -> None:
    with closing(open_journal(tmp_path)) as journal:
        cursor = journal.cursor("siem")
        end = 2 * MOST_RANGES + 101
        journal.append(events(0, end), [])
        for first in range(1, end, 50):
            leave_out(cursor, *((offset, offset + 1) for offset in range(first, first + 50, 2)))
        assert seals(journal) == [MOST_RANGES, 50]
        assert journal.books()["siem"].balanced


def test_when_nothing_waits_no_seal_is_left(tmp_path: Path) -> None:
    with closing(open_journal(tmp_path)) as journal:
        cursor = journal.cursor("siem")
        journal.append(events(0, 100), [])
        leave_out(cursor, (0, 60))
        leave_out(cursor, (60, 100))
        assert (cursor.position, seals(journal)) == (100, [])
        with closing(Receipts(tmp_path)) as receipts:
            states = {found.destinations["siem"].state for found in receipts.received(0.0, 1e12)}
        assert states <= {"filtered", "not_kept"}


@pytest.mark.parametrize("lost", ["", "seals", "cursors", "meta WHERE key LIKE 'filtered:%'"])
def test_the_books_balance_after_a_repair(tmp_path: Path, lost: str) -> None:
    with closing(open_journal(tmp_path)) as journal:
        cursor = journal.cursor("siem")
        journal.append(events(0, 100), [])
        leave_out(cursor, (10, 20), (30, 60))
        deliver(journal, cursor, range(60, 70))
        before = journal.books()["siem"]
        assert (before.delivered, before.filtered, before.pending) == (10, 40, 50)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection:
        if lost:
            connection.execute(f"DELETE FROM {lost}")
        connection.commit()
    suspect_mark(tmp_path / "journal.sqlite3").touch()
    with closing(open_journal(tmp_path)) as journal:
        journal.cursor("siem")
        books = journal.books()["siem"]
        assert books.balanced
        assert lost or books == before
    with closing(open_journal(tmp_path)) as journal:
        assert journal.books()["siem"] == books


def test_a_destination_that_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    with closing(open_journal(tmp_path)) as journal:
        journal.append(events(0, 10), [])
        cursor = journal.cursor("siem")
        journal.append(events(10, 20), [])
        leave_out(cursor, (10, 20))
        assert journal.forget("siem")
        assert journal._database.rows("SELECT * FROM meta WHERE key = ?", filtered_note("siem")) == []
        assert journal.cursor("siem").filtered == 0


def test_without_receipts_it_is_settled_all_the_same(tmp_path: Path) -> None:
    with closing(open_journal(tmp_path, receipt_retention=0.0)) as journal:
        cursor = journal.cursor("siem")
        journal.append(events(0, 10), [])
        leave_out(cursor, (0, 10))
        assert (cursor.position, cursor.filtered) == (10, 10)
        assert journal._database.rows("SELECT * FROM receipts") == []
