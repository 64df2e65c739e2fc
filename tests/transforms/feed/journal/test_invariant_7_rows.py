"""Whatever row of the journal is altered, lost or out of order: the next start comes up and counts it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.transforms.feed.journal.support import copy_files, events, number_of, open_journal, unsealed
from tests.transforms.write.manual_clock import ManualClock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch
from transforms.feed.journal import Journal, JournalDamaged
from transforms.feed.journal.gaps import HEARD_EVERY
from transforms.feed.journal.repair import _keys
from transforms.feed.journal.schema import MOST, sign
from transforms.write.delivery.ledger import Settlement

DATABASE = "journal.sqlite3"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten chunks of 50; of `s3` 100 to 150 and 200 to 250 are settled, 0 to 100 and 150 to 200 sealed."""
    place = tmp_path_factory.mktemp("killed")
    clock = ManualClock()
    journal = open_journal(place / "alive", clock=clock)
    journal.check_account("dev_01")
    s3, _ = journal.cursor("s3", exactly_once=True), journal.cursor("down")
    for start in range(0, 500, 50):
        clock.advance(1)
        journal.append(events(start, start + 50), [letter(start)] if start < 150 else [])
    batches = [Batch(events(n, n + 50), range(n, n + 50)) for n in range(0, 250, 50)]
    s3.commit([], batches)
    batches[0].remember(b"key")
    s3.commit([Settlement(batch, batch.offsets) for batch in (batches[2], batches[4])], [])
    journal.open_gap("cut")
    clock.advance(2)
    journal.close_gap()
    copy = copy_files(place / "alive", place / "copy")
    journal.close()
    return copy


def letter(number: int) -> DeadLetter:
    return DeadLetter("feed", "", f"not_json: frame {number}", b"{%d" % number, at=1.5)


def altered(killed: Path, target: Path, *statements: str) -> Path:
    copy = copy_files(killed, target)
    with contextlib.closing(sqlite3.connect(copy / DATABASE, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement
    return copy


def asides(place: Path) -> list[Path]:
    return [path for path in place.glob("journal.damaged-*") if not path.name.endswith(".applied")]


def drain(journal: Journal, name: str) -> list[int]:
    """The offsets that were still delivered."""
    cursor = journal.cursor(name, exactly_once=name == "s3")
    batches = cursor.recover()
    rest = list(unsealed(cursor, journal))
    assert all(offset == number_of(found) for offset, found in rest)
    fresh = [Batch([found for _, found in rest], [offset for offset, _ in rest])] if rest else []
    cursor.commit([Settlement(batch, batch.offsets) for batch in batches], fresh)
    cursor.commit([Settlement(batch, batch.offsets) for batch in fresh], [])
    assert (cursor.position, cursor.pending) == (journal.end, 0)
    assert journal.books()[name].balanced
    return [offset for batch in [*batches, *fresh] for offset in batch.offsets]


def letters_in(journal: Journal) -> list[DeadLetter]:
    """All of the feed's dead letters, which come some at a time."""
    found: list[DeadLetter] = []
    while numbered := journal.dead_letters():
        found += [letter for _, letter in numbered]
        journal.drop_dead_letters(numbered[-1][0])
    return found


ALTERATIONS = [
    "UPDATE chunks SET first = 10000 WHERE first = 250",
    "UPDATE chunks SET first = first + 1 WHERE first = 250",
    "UPDATE chunks SET count = 49 WHERE first = 250",
    "UPDATE chunks SET taken_at = taken_at + 1 WHERE first = 250",
    "UPDATE chunks SET taken_at = 'x' WHERE first = 250",
    "UPDATE chunks SET size = 0 WHERE first = 250",
    "DELETE FROM chunks WHERE first = 250",
    "DELETE FROM chunks WHERE first = 450",
    "UPDATE ids SET packed = x'00' WHERE first = 250",
    "UPDATE ids SET count = 51 WHERE first = 250",
    "DELETE FROM ids WHERE first = 250",
    "DELETE FROM ids",
    "UPDATE cursors SET position = 50 WHERE name = 's3'",
    "UPDATE cursors SET born = -1 WHERE name = 's3'",
    "UPDATE cursors SET name = 's4' WHERE name = 's3'",
    "UPDATE cursors SET delivered = 'x' WHERE name = 'down'",
    "DELETE FROM cursors WHERE name = 's3'",
    "DELETE FROM cursors",
    "UPDATE seals SET settled = x'' WHERE number = 3",
    "UPDATE seals SET offsets = x'00' WHERE number = 3",
    "UPDATE seals SET memo = x'00ff' WHERE number = 1",
    "UPDATE seals SET destination = 'down' WHERE number = 3",
    "DELETE FROM seals WHERE number = 3",
    "DELETE FROM seals",
    "UPDATE gaps SET since = 0.0",
    "UPDATE gaps SET reason = CAST(x'ff' AS TEXT)",
    "UPDATE strays SET number = 77 WHERE number = 2",
    "DELETE FROM strays WHERE number = 2",
    "DELETE FROM strays",
    "UPDATE meta SET value = 'https://other.test' WHERE key = 'feed'",
    "UPDATE meta SET value = value + 1 WHERE key = 'end'",
    "UPDATE meta SET value = 'x' WHERE key = 'letters'",
    *[
        f"DELETE FROM meta WHERE key = '{key}'"
        for key in ("end", "trimmed", "heard", "destinations", "letters")
    ],
    "DELETE FROM meta",
]


@pytest.mark.parametrize("statement", ALTERATIONS)
def test_a_row_that_is_not_what_was_written_is_found_at_the_start(
    killed: Path, tmp_path: Path, statement: str
) -> None:
    copy = altered(killed, tmp_path / "x", statement)
    journal = open_journal(copy)
    assert len(asides(copy)) == 1
    assert journal.gaps()[-1].reason == "the journal was damaged"
    again = drain(journal, "s3")
    assert not {*again} & {*range(100, 150), *range(200, 250)}, "delivered before, and never twice"
    letters = letters_in(journal)
    dead = [found.event_id for found in letters if found.stage == "write"]
    assert len(dead) == journal.cursors["s3"].dead_lettered
    lost = journal.books()["down"].lost
    assert lost == (50 if "chunks" in statement else 0)
    assert [*drain(journal, "down")] == sorted({*range(500)} - ({*range(lost)} and lost_offsets(statement)))
    assert len(letters) - len(dead) == 4, "none unnoticed"
    journal.close()
    open_journal(copy).close()
    assert len(asides(copy)) == 1, "repaired once"


def lost_offsets(statement: str) -> set[int]:
    first = 450 if "450" in statement else 250
    return {*range(first, first + 50)} if "chunks" in statement else set()


def test_without_alteration_nothing_is_repaired(killed: Path, tmp_path: Path) -> None:
    journal = open_journal(copy_files(killed, tmp_path / "x"))
    assert not asides(tmp_path / "x")
    assert drain(journal, "s3") == [*range(100), *range(150, 200), *range(250, 500)]
    journal.close()


def test_what_may_have_been_delivered_is_a_dead_letter_where_each_comes_once(
    killed: Path, tmp_path: Path
) -> None:
    copy = altered(killed, tmp_path / "x", "DELETE FROM seals WHERE number = 3")
    journal = open_journal(copy)
    assert drain(journal, "s3") == [*range(100), *range(150, 200), *range(250, 500)]
    doubtful = [found for _, found in journal.dead_letters() if found.cause.startswith("in_doubt: ")]
    assert [int(found.event_id[4:]) for found in doubtful] == [*range(100, 150)]
    assert doubtful[0].raw == events(100, 101)[0].raw
    assert (doubtful[0].stage, doubtful[0].destination) == ("write", "s3")
    books = journal.books()["s3"]
    assert (books.delivered, books.dead_lettered, books.lost) == (450, 50, 0)
    journal.close()


def test_elsewhere_it_comes_again(killed: Path, tmp_path: Path) -> None:
    copy = altered(killed, tmp_path / "x", "DELETE FROM seals WHERE number = 3")
    journal = open_journal(copy)
    cursor = journal.cursor("s3", exactly_once=False)
    cursor.recover()
    assert [offset for offset, _ in unsealed(cursor, journal)][:50] == [*range(100, 150)]
    journal.close()


def test_a_destination_whose_row_is_lost_begins_at_the_lowest_offset_kept(
    killed: Path, tmp_path: Path
) -> None:
    """Also when the note of the names is lost, and the process ends before it has added it."""
    statements = ["DELETE FROM cursors WHERE name = 'down'", "DELETE FROM meta WHERE key = 'destinations'"]
    copy = altered(killed, tmp_path / "x", *statements)
    open_journal(copy).close()
    journal = open_journal(copy)
    assert journal.cursor("down").position == 0
    assert drain(journal, "down") == [*range(500)]
    journal.append(events(500, 510), [])
    assert journal.cursor("new").born == 510, "whoever is added later begins at the end, as ever"
    journal.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"journal.damaged-1", b"\xff\xff", b'{"aside":"../x","written":1}']
)
def test_an_unreadable_marker_means_repair_anew(killed: Path, tmp_path: Path, content: bytes) -> None:
    copy = copy_files(killed, tmp_path / "x")
    (copy / "journal.salvaging").write_bytes(content)
    journal = open_journal(copy)
    assert drain(journal, "down") == [*range(500)]
    journal.close()
    assert not [*copy.glob("journal.salvag*")]


def test_an_unreadable_marker_after_the_file_was_moved(killed: Path, tmp_path: Path) -> None:
    copy = copy_files(killed, tmp_path / "x")
    for suffix in ("-wal", ""):
        (copy / (DATABASE + suffix)).rename(copy / ("journal.damaged-20260101T000000Z" + suffix))
    (copy / "journal.salvaging").touch()
    journal = open_journal(copy)
    assert drain(journal, "down") == [*range(500)]
    journal.close()


class _OutOfOrder:
    """As SQLite answers over pages whose keys are out of order: a damaged one, then some of before."""

    def __init__(self) -> None:
        self.asked = 0

    def execute(self, _: str, parameters: tuple[int]) -> Iterator[tuple[Any]]:
        self.asked += 1
        yield from [(5,), (4,), ("x",)] if parameters[0] < 5 else [(3,)]
        raise sqlite3.DatabaseError("database disk image is malformed")


@pytest.mark.parametrize(("at", "step"), [(-1, 1), (MOST, -1)])
def test_a_repair_ends_whatever_the_order_of_keys(at: int, step: int) -> None:
    source = _OutOfOrder()
    found = list(_keys(source, "chunks", "first", at, step))  # type: ignore[arg-type]
    assert len(found) <= 4
    assert source.asked < 300


def test_a_damaged_letter_is_counted_when_it_is_read(killed: Path, tmp_path: Path) -> None:
    copy = altered(killed, tmp_path / "x", "UPDATE strays SET body = x'00' || body WHERE number = 2")
    journal = open_journal(copy)
    causes = [found.cause.partition(":")[0] for found in letters_in(journal)]
    assert causes == ["not_json", "journal_damaged", "not_json", "feed_gap"]
    assert not journal.is_suspect, "the others wait for no restart"
    journal.close()


def test_the_gap_of_a_repair_begins_when_the_feed_was_last_heard(killed: Path, tmp_path: Path) -> None:
    copy = altered(killed, tmp_path / "x", "UPDATE gaps SET since = 0.0")
    heard = ManualClock().now() + 12
    clock = ManualClock(now=heard + 3600)
    journal = open_journal(copy, clock=clock)
    assert heard - HEARD_EVERY <= journal.gaps()[-1].since <= heard
    journal.close()


def test_the_gap_of_a_repair_begins_at_the_newest_event_when_the_note_is_lost(
    killed: Path, tmp_path: Path
) -> None:
    copy = altered(killed, tmp_path / "x", "DELETE FROM meta WHERE key = 'heard'")
    journal = open_journal(copy, clock=ManualClock(now=ManualClock().now() + 3600))
    assert journal.gaps()[-1].since == ManualClock().now() + 10
    journal.close()


def test_a_log_without_its_header_and_first_frame_is_still_read(killed: Path, tmp_path: Path) -> None:
    copy = copy_files(killed, tmp_path / "x")
    with open(copy / f"{DATABASE}-wal", "r+b") as file:
        file.write(bytes(range(256)) * 16)
    journal = open_journal(copy)
    assert len(asides(copy)) == 1
    assert journal.end == 500
    assert journal.books()["s3"].balanced
    journal.close()


def test_a_row_of_the_future_is_signed_by_its_table_and_all_its_columns() -> None:
    assert sign("meta", "a", 1) != sign("gaps", "a", 1) != sign("meta", "a", 2)


def test_a_database_that_is_gone_is_no_new_journal(killed: Path, tmp_path: Path) -> None:
    copy = copy_files(killed, tmp_path / "x")
    open_journal(copy).close()
    (copy / DATABASE).unlink()
    journal = open_journal(copy)
    assert [gap.reason for gap in journal.gaps()] == ["the journal was damaged"]
    journal.close()


def test_seals_read_from_another_tables_page_are_not_taken_for_an_older_journals(
    killed: Path, tmp_path: Path
) -> None:
    copy = altered(killed, tmp_path / "x", "DELETE FROM meta", "DELETE FROM seals WHERE number = 3")
    journal = open_journal(copy)
    assert not {*drain(journal, "s3")} & {*range(100, 150)}
    journal.close()


def test_damage_is_known_to_the_run_that_met_it_though_nothing_can_be_written(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = altered(killed, tmp_path / "x", "UPDATE chunks SET body = x'00' || body WHERE first = 250")
    journal = open_journal(copy)

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transforms.feed.journal.database.make_private", full)
    with pytest.raises(JournalDamaged):
        journal.read(250, 1)
    assert journal.is_suspect
    journal.close()
