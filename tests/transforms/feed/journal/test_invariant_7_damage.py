"""A damaged journal is moved aside; what can be read goes on, the rest is counted and a gap recorded."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import (
    copy_files,
    events,
    number_of,
    open_journal,
    read_all,
    unsealed,
)
from transforms.event import Batch
from transforms.feed.journal import Journal
from transforms.feed.journal.database import JournalDamaged
from transforms.write.delivery.ledger import Settlement

PAYLOAD = 300
EVENTS = 20_000
PAGE = 4096
DATABASE, LOG = "journal.sqlite3", "journal.sqlite3-wal"


def begin(directory: Path, chunks_in_log: int = 4) -> Journal:
    """A journal with a backlog: `early` is at 3000, with settled and unsettled batches ahead of it."""
    journal = open_journal(directory)
    early, _ = journal.cursor("early"), journal.cursor("down")
    journal.heard()
    for start in range(0, EVENTS, 500):
        journal.append(events(start, start + 500, PAYLOAD), [])
    batches = [Batch(events(n, n + 500, PAYLOAD), range(n, n + 500)) for n in range(0, 6000, 500)]
    early.commit([], batches)
    done = [*batches[:6], *batches[8:10]]
    early.commit([Settlement(batch, batch.offsets) for batch in done], [])
    journal._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    for start in range(EVENTS, EVENTS + chunks_in_log * 500, 500):
        journal.append(events(start, start + 500, PAYLOAD), [])
    return journal


def damage(file: Path, position: int, content: bytes) -> None:
    with open(file, "r+b") as handle:
        handle.seek(position)
        handle.write(content)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of such a journal after kill -9."""
    place = tmp_path_factory.mktemp("crashed")
    journal = begin(place / "journal")
    copy = copy_files(place / "journal", place / "copy")
    journal.close()
    return copy


def reopen_damaged(directory: Path) -> Journal:
    """Open it and check what holds for every damage."""
    journal = open_journal(directory)
    assert len(list(directory.glob("journal.damaged-*Z"))) == 1
    assert [gap.reason for gap in journal.gaps()] == ["the journal was damaged"]
    assert journal.gap_open
    assert not [*directory.glob("journal.salvag*"), *directory.glob("journal.suspect")]
    for name in ("early", "down"):
        deliver_the_rest(journal, name)
    first_new = journal.end
    assert len(journal.append(events(10**6, 10**6 + 10), [])) == 10
    assert read_all(journal, first_new) == events(10**6, 10**6 + 10)
    assert journal.books()["early"].pending == journal.books()["down"].pending == 10
    return journal


def deliver_the_rest(journal: Journal, name: str) -> None:
    """No lost offset may hold up the lane, and no event comes twice."""
    cursor = journal.cursor(name)
    assert journal.books()[name].balanced, journal.books()
    batches = cursor.recover()
    pairs = list(unsealed(cursor, journal))
    again = [offset for batch in batches for offset in batch.offsets] + [offset for offset, _ in pairs]
    assert len(again) == len(set(again)) == cursor.pending
    assert all(offset == number_of(found) for offset, found in pairs)
    assert all(
        offset == number_of(found)
        for batch in batches
        for offset, found in zip(batch.offsets, batch.events, strict=True)
    )
    fresh = [Batch([found for _, found in pairs], [offset for offset, _ in pairs])] if pairs else []
    cursor.commit([Settlement(batch, batch.offsets) for batch in batches], fresh)
    cursor.commit([Settlement(batch, batch.offsets) for batch in fresh], [])
    assert (cursor.position, cursor.pending) == (journal.end, 0)
    assert journal.books()[name].balanced


def damaged_copy(crashed: Path, target: Path) -> Path:
    return copy_files(crashed, target)


def test_the_files_without_damage_are_no_repair(crashed: Path, tmp_path: Path) -> None:
    journal = open_journal(damaged_copy(crashed, tmp_path / "x"))
    assert journal.end == EVENTS + 2000
    assert journal.gaps() == []
    assert not list((tmp_path / "x").glob("journal.damaged*"))
    assert journal.books()["early"].delivered == 4000
    journal.close()


@pytest.mark.parametrize("seed", range(12))
def test_pages_overwritten_at_random_cost_little_more_than_themselves(
    crashed: Path, tmp_path: Path, seed: int
) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    rng = random.Random(seed)
    pages = (copy / DATABASE).stat().st_size // PAGE
    for page in rng.sample(range(12, pages), 3):  # the first ones hold the tables' roots: see below
        damage(copy / DATABASE, page * PAGE, noise(PAGE, seed))
    journal = reopen_damaged(copy)
    lost = journal.books()["down"].lost
    assert 0 < lost + journal.books()["early"].lost <= 2 * 3 * 12 * 500
    journal.close()


@pytest.mark.parametrize("page", range(1, 16))
def test_any_of_the_first_pages_may_be_gone(crashed: Path, tmp_path: Path, page: int) -> None:
    """The roots of the tables among them: cursors, seals, ids or the list of chunks."""
    copy = damaged_copy(crashed, tmp_path / "x")
    damage(copy / DATABASE, page * PAGE, noise(PAGE, page))
    journal = open_journal(copy)
    for name in ("early", "down"):
        journal.cursor(name)
    for name in ("early", "down"):
        deliver_the_rest(journal, name)
    journal.close()


def test_lost_cursors_begin_before_everything_that_could_be_read(crashed: Path, tmp_path: Path) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    for page in roots(crashed, "cursors"):
        damage(copy / DATABASE, (page - 1) * PAGE, noise(PAGE))
    journal = open_journal(copy)
    assert journal.cursors.keys() == {"early", "down"}, "a note tells their names"
    journal.trim()
    journal.close()
    journal = open_journal(copy)  # a failed preflight in between loses nothing either
    cursor = journal.cursor("early")
    assert (cursor.position, cursor.lost) == (0, 0)
    assert (cursor.pending, cursor.delivered) == (EVENTS + 2000 - 1000, 1000), "two seals tell of 1000"
    assert len(read_all(journal)) == EVENTS + 2000
    deliver_the_rest(journal, "early")
    journal.close()
    journal = open_journal(copy)
    assert journal.cursor("later").born == journal.end
    journal.close()


def test_lost_seals_repeat_events_and_leave_the_books_balanced(crashed: Path, tmp_path: Path) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    for page in roots(crashed, "seals"):
        damage(copy / DATABASE, (page - 1) * PAGE, noise(PAGE))
    journal = open_journal(copy)
    cursor = journal.cursor("early")
    assert (cursor.position, cursor.delivered, cursor.lost) == (3000, 3000, 0)
    assert cursor.recover() == []
    deliver_the_rest(journal, "early")
    journal.close()


def roots(directory: Path, table: str) -> list[int]:
    with sqlite3.connect(f"file:{directory / DATABASE}?mode=ro&immutable=1", uri=True) as connection:
        rows = connection.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = ?", (table,))
        return [int(page) for (page,) in rows if page]


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1])
def test_a_truncated_file(crashed: Path, tmp_path: Path, keep: float) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    size = (copy / DATABASE).stat().st_size
    with open(copy / DATABASE, "r+b") as handle:
        handle.truncate(int(size * keep))
    (copy / LOG).unlink()
    journal = reopen_damaged(copy)
    books = journal.books()["down"]
    # A leaf of the tree may stand far behind the bodies of its rows, up to a dozen, which all go with it.
    assert books.delivered >= 0.8 * keep * EVENTS - 3000
    journal.close()


def test_a_garbage_header_costs_nothing(crashed: Path, tmp_path: Path) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    damage(copy / DATABASE, 0, noise(PAGE))
    journal = reopen_damaged(copy)
    assert journal.books()["down"].lost == journal.books()["early"].lost == 0
    assert journal.books()["down"].delivered == EVENTS + 2000
    journal.close()


def test_a_garbage_header_without_a_log_costs_nothing_either(tmp_path: Path) -> None:
    begin(tmp_path).close()
    damage(tmp_path / DATABASE, 0, noise(PAGE))
    journal = reopen_damaged(tmp_path)
    assert journal.books()["down"].lost == 0
    assert journal.books()["down"].delivered == EVENTS + 2000
    journal.close()


def test_an_empty_file_is_no_new_journal(crashed: Path, tmp_path: Path) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    (copy / DATABASE).write_bytes(b"")
    journal = open_journal(copy)
    assert [gap.reason for gap in journal.gaps()] == ["the journal was damaged"]
    read_all(journal)
    journal.close()


def test_an_empty_file_without_a_log_leaves_a_gap_and_a_working_journal(tmp_path: Path) -> None:
    begin(tmp_path).close()
    (tmp_path / DATABASE).write_bytes(b"")
    journal = open_journal(tmp_path)
    assert [gap.reason for gap in journal.gaps()] == ["the journal was damaged"]
    assert (journal.end, len(journal.append(events(0, 3), []))) == (0, 3)
    journal.close()


@pytest.mark.parametrize("position", [8, 40, 60, 4096 * 30, 4096 * 60 + 99])
def test_a_log_damaged_in_the_middle_is_not_taken_for_a_shorter_one(
    crashed: Path, tmp_path: Path, position: int
) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    damage(copy / LOG, position, noise(16))
    journal = reopen_damaged(copy)
    assert journal.books()["down"].delivered >= EVENTS
    journal.close()


def test_a_torn_end_of_the_log_is_an_ordinary_crash(crashed: Path, tmp_path: Path) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    with open(copy / LOG, "r+b") as handle:
        handle.truncate(32 + (4096 + 24) * 20 + 1000)
    journal = open_journal(copy)
    assert journal.gaps() == []
    assert EVENTS <= journal.end < EVENTS + 2000
    assert len(read_all(journal)) == journal.end
    journal.close()


def find_body(file: Path, number: int) -> int:
    """Where the file holds the middle of the packed chunk with that event."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        query = "SELECT body FROM chunks WHERE first <= ? ORDER BY first DESC LIMIT 1"
        body: bytes = connection.execute(query, (number,)).fetchone()[0]
    content, middle = file.read_bytes(), len(body) // 2
    # A slice that does not cross the end of a page stands in the file as it is.
    return next(at for near in range(0, PAGE, 16) if (at := content.find(body[middle + near :][:16])) >= 0)


def test_altered_bytes_within_a_chunk_are_never_delivered(tmp_path: Path) -> None:
    begin(tmp_path).close()
    damage(tmp_path / DATABASE, find_body(tmp_path / DATABASE, 7_250), b"altered")
    journal = open_journal(tmp_path)  # SQLite finds nothing wrong with that
    assert journal.gaps() == []
    with pytest.raises(JournalDamaged, match="start again"):
        read_all(journal)
    journal.close()

    journal = reopen_damaged(tmp_path)
    assert journal.books()["down"].lost == 500
    assert journal.books()["down"].delivered == EVENTS + 2000 - 500
    journal.close()
    open_journal(tmp_path).close()
    assert len(list(tmp_path.glob("journal.damaged-*Z"))) == 1, "repaired once"


class Stop(Exception):
    """Where a test lets the process die."""


def die(*_: object) -> None:
    raise Stop


@pytest.mark.parametrize("dies_in", ["apply_wal", "put_first_page", "copy_readable", "sync"])
def test_a_repair_that_dies_is_done_again(
    crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    damage(copy / DATABASE, 40 * PAGE, noise(PAGE))

    with monkeypatch.context() as patch:
        patch.setattr(f"transforms.feed.journal.repair.{dies_in}", die)
        with pytest.raises(Stop):
            open_journal(copy)
    journal = reopen_damaged(copy)
    assert journal.books()["down"].delivered >= EVENTS + 2000 - 12 * 500
    journal.close()


def test_consequences_are_drawn_again_when_the_process_dies_in_them(
    crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = damaged_copy(crashed, tmp_path / "x")
    damage(copy / DATABASE, 40 * PAGE, noise(PAGE))
    with monkeypatch.context() as patch:
        patch.setattr("transforms.feed.journal.cursor.Cursor.repair", die)
        with pytest.raises(Stop):
            open_journal(copy)
    journal = reopen_damaged(copy)
    journal.close()


def test_two_damages_within_a_second_keep_both_files(tmp_path: Path) -> None:
    begin(tmp_path).close()
    for _ in range(2):
        damage(tmp_path / DATABASE, 0, noise(PAGE))
        open_journal(tmp_path).close()
    aside = [path.name for path in tmp_path.glob("journal.damaged-*") if not path.name.endswith(".applied")]
    assert len(aside) == 2, aside
