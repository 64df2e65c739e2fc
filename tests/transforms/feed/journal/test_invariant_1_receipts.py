"""A cursor moves only by receipts, never by reading."""

from __future__ import annotations

from pathlib import Path

from tests.transforms.feed.journal.support import events, open_journal, read_all
from transforms.event import Batch
from transforms.write.delivery.ledger import Settlement


def test_reading_and_sealing_do_not_move_a_cursor(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("kafka")
    journal.append(events(0, 100), [])
    assert len(read_all(journal)) == 100
    cursor.commit((), [Batch(events(0, 100), range(100))])
    journal.trim()
    assert (cursor.position, cursor.pending, len(read_all(journal))) == (0, 100, 100)
    journal.close()


def test_a_receipt_beyond_the_position_waits_for_the_ones_before_it(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("kafka")
    journal.append(events(0, 30), [])
    first, second, third = (Batch(events(n, n + 10), range(n, n + 10)) for n in (0, 10, 20))
    cursor.commit((), [first, second, third])
    positions = []
    for batch in (third, first, second):
        cursor.commit([Settlement(batch, batch.offsets)], ())
        positions.append((cursor.position, cursor.pending))
    assert positions == [(0, 20), (10, 10), (30, 0)]
    journal.close()


def test_an_attempt_that_settles_nothing_counts_and_moves_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("kafka")
    journal.append(events(0, 5), [])
    batch = Batch(events(0, 5), range(5))
    cursor.commit((), [batch])
    batch.attempts = 3
    cursor.commit([Settlement(batch)], ())
    journal.close()

    journal = open_journal(tmp_path)
    [again] = journal.cursor("kafka").recover()
    assert (again.attempts, journal.cursor("kafka").position) == (3, 0)
    journal.close()


def test_a_chunk_is_kept_until_the_slowest_cursor_has_passed_all_of_it(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    quick, slow = journal.cursor("quick"), journal.cursor("slow")
    journal.append(events(0, 10), [])
    journal.append(events(10, 20), [])
    for cursor, upto in ((quick, 20), (slow, 15)):
        batch = Batch(events(0, upto), range(upto))
        cursor.commit((), [batch])
        cursor.commit([Settlement(batch, batch.offsets)], ())
    journal.trim()
    assert [chunk.first for chunk in journal.read(0, 100)] == [10]
    assert [taken.id for taken in read_all(journal, 15)] == [taken.id for taken in events(15, 20)]
    journal.close()


def test_a_reader_without_receipts_says_itself_how_far_it_is(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("pipeline")
    journal.append(events(0, 10), [])
    cursor.advance(6)
    cursor.advance(4)  # never back
    journal.close()

    journal = open_journal(tmp_path)
    cursor = journal.cursor("pipeline")
    assert (cursor.position, cursor.pending, cursor.delivered) == (6, 4, 6)
    assert journal.books()["pipeline"].balanced
    journal.close()
