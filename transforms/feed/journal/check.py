"""What a whole row of each table is, and whether a journal's rows fit each other: asked at every start.

The same functions decide in a repair which rows go on: nothing is loaded that they do not let pass.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from transforms.feed.journal.chunks import decode_row
from transforms.feed.journal.database import Database, JournalDamaged, is_passing, put_note
from transforms.feed.journal.letters import decode_letter
from transforms.feed.journal.ranges import Range, subtract, unpack
from transforms.feed.journal.schema import (
    COLUMNS,
    FROM_VERSION_1,
    MOST,
    NEW_NOTES,
    RECEIPTS,
    VERSION,
    sign,
    signed_body,
)
from transforms.feed.journal.seen_ids import stored_pairs, unknown_ids

Row = tuple[Any, ...]
ADDED_NOTES = ("receipts", "received", "receipts_since", "lived")  # by schema 3
IN_VERSION_1 = ("meta", "cursors", "seals", "gaps")  # without the checksum that they have since
# Tables whose last column is the checksum of the others.
SIGNED = (*IN_VERSION_1, "received", "receipts", "troubles")


def whole(table: str, row: Row, *, unsigned: bool = False) -> Row | None:
    """The row as it is to be kept, or None when it is damaged.

    unsigned: rows as schema 1 wrote them are let pass where they make sense, and signed.
    """
    try:
        if table not in SIGNED:
            return row if _MAKES_SENSE[table](row) else None
        signed = sign(table, *row[:-1])
        if row[-1] != signed and not (unsigned and row[-1] is None):
            return None
        return (*row[:-1], signed) if _MAKES_SENSE[table](row[:-1]) else None
    except Exception:  # noqa: BLE001 - damaged bytes may fail in any way; each means the same
        return None


def check(database: Database) -> None:
    """Raises JournalDamaged unless every row that is loaded is whole and nothing is missing between them.

    The bodies of chunks, of the feed's dead letters and of received ids are looked at when they are read, and
    so are receipts: there may be a million, and no delivery depends on them. A journal of an older schema
    becomes one of the present schema.
    """
    try:
        _migrate(database)
        notes: dict[str, Any] = dict(_rows(database, "meta"))
        cursors = list(_rows(database, "cursors"))
        seals = list(_rows(database, "seals"))
        for _ in _rows(database, "gaps"):
            pass
        ids = [(first, first + count) for first, count, _ in _rows(database, "ids")]
        chunks = list(_chunk_ranges(database))
        letters = [number for (number,) in database.rows("SELECT number FROM strays ORDER BY number")]
        received = [(row[0], row[0] + row[1]) for row in _rows(database, "received")]
        for _ in _rows(database, "troubles"):
            pass
        if "salvaged" not in notes:  # else a repair has copied the rows and not yet made them fit
            _fit(notes, cursors, seals, ids, chunks, letters)
            bounds = pairwise([(0, notes["receipts"]), *received, (notes["received"], notes["end"])])
            expect(all(before[1] == after[0] for before, after in bounds), "received ids are missing")
    except (JournalDamaged, OSError):
        raise
    except Exception as error:  # damaged content may fail in any way; each means the same
        if isinstance(error, sqlite3.Error) and is_passing(error):
            raise
        raise JournalDamaged(f"{type(error).__name__}: {error}") from error


def _rows(database: Database, table: str) -> Iterator[Row]:
    for row in database.each(f"SELECT {COLUMNS[table]} FROM {table}"):  # noqa: S608
        kept = whole(table, row)
        if kept is None:
            raise JournalDamaged(f"a row of its table {table} was altered")
        yield kept if table not in SIGNED else kept[:-1]


def _chunk_ranges(database: Database) -> Iterator[Range]:
    """Where the chunks begin and end. The bodies of those that schema 1 wrote are read for it."""
    old = []
    for row in database.each("SELECT first, count, taken_at, size, checksum FROM chunks ORDER BY first"):
        if row[-1] != sign("chunks", *row[:-1]):
            old.append(row[0])
        yield row[0], row[0] + row[1]
    for first in old:
        found = database.rows(f"SELECT {COLUMNS['chunks']} FROM chunks WHERE first = ?", first)  # noqa: S608
        if not found or whole("chunks", found[0]) is None:
            raise JournalDamaged("a chunk was altered")


def _fit(
    notes: dict[str, Any],
    cursors: Sequence[Row],
    seals: Sequence[Row],
    ids: Sequence[Range],
    chunks: Sequence[Range],
    letters: Sequence[object],
) -> None:
    expect(NEW_NOTES.keys() <= notes.keys(), "a note is missing")
    end = notes["end"]
    expect(
        json.loads(str(notes["destinations"])) == sorted(str(row[0]) for row in cursors),
        "a cursor is missing",
    )
    expect(letters == list(range(notes["letters"] + 1, notes["letters_end"] + 1)), "a dead letter is missing")
    bounds = pairwise([(0, notes["ids"]), *ids, (end, end)])
    expect(all(before[1] == after[0] for before, after in bounds), "ids are missing")
    bounds = pairwise([*chunks, (end, end)])
    expect(all(before[1] <= after[0] for before, after in bounds), "chunks overlap")
    for name, _, position, _, _, _, sealed, digest, *_ in cursors:
        mine = [row for row in seals if row[0] == name]
        settled = [pair for row in mine for pair in unpack(row[5])]
        ends = [unpack(row[4])[-1][1] for row in mine]
        expect(seals_digest(mine) == digest, "a sealed batch is missing")
        expect(max([position, sealed, *ends]) <= end, "its end is missing")
        held = subtract(subtract([(position, end)], chunks), settled)
        expect(not held, "a chunk is missing")
    expect({row[0] for row in seals} <= {row[0] for row in cursors}, "a cursor is missing")


def expect(right: bool, otherwise: str) -> None:
    """Raises JournalDamaged, saying what is wrong, unless it is right."""
    if not right:
        raise JournalDamaged(otherwise)


def seals_digest(seals: Iterable[Row]) -> int:
    """One number for a set of rows of `seals`, without their checksums."""
    digest = 0
    for row in seals:
        digest ^= sign("seals", *row)
    return digest


def _migrate(database: Database) -> None:
    """Make a journal of an older schema one of the present schema, in one transaction."""
    if database.version == 1:
        _migrate_1(database)
    elif database.version < VERSION:
        database.write(lambda connection: _migrate_2(connection, {}))
    database.version = VERSION


def _migrate_2(connection: sqlite3.Connection, notes: dict[str, Any]) -> None:
    """Add the tables of schema 3; of what was delivered until now there are no receipts."""
    for statement in RECEIPTS.split(";"):
        connection.execute(statement)
    old = {**dict(connection.execute("SELECT key, value FROM meta")), **notes}
    oldest = connection.execute("SELECT first, taken_at FROM chunks ORDER BY first LIMIT 1").fetchall()
    # nobody knows the ids from before the oldest chunk; what was heard is noted every five seconds
    first, since = oldest[0] if oldest else (old.get("end", 0), old.get("heard", 0.0) + 5.0)
    added = {"version": VERSION, "receipts": first, "received": first}
    if first:
        added["receipts_since"] = since
    for key, value in {**{key: NEW_NOTES[key] for key in ADDED_NOTES}, **notes, **added}.items():
        put_note(connection, key, value)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _migrate_1(database: Database) -> None:
    kept: dict[str, list[Row]] = {}
    for table in IN_VERSION_1:
        columns = COLUMNS[table].removesuffix(", checksum").replace(", sealed, seals, doubt", ", 0, 0, x''")
        rows = [(*row, None) for row in database.each(f"SELECT {columns} FROM {table}")]  # noqa: S608
        signed = [whole(table, row, unsigned=True) for row in rows]
        if None in signed:
            raise JournalDamaged(f"a row of its table {table} makes no sense")
        kept[table] = [row for row in signed if row is not None]
    seals = [row[:-1] for row in kept["seals"]]
    kept["cursors"] = [with_seals(row, [s for s in seals if s[0] == row[0]]) for row in kept["cursors"]]
    ids = [(row[0], row[0] + row[1]) for row in database.each("SELECT first, count FROM ids ORDER BY first")]
    chunks = [(f, f + n) for f, n in database.each("SELECT first, count FROM chunks ORDER BY first")]
    letters = [number for (number,) in database.each("SELECT number FROM strays ORDER BY number")]
    notes: dict[str, Any] = {key: value for key, value, _ in kept["meta"]}
    ends = [int(str(notes.get("trimmed", 0))), *(end for _, end in [*ids, *chunks])]
    ends += [int(str(row[6])) for row in kept["cursors"]]
    notes = {**NEW_NOTES, **notes, "end": max(ends)}
    notes["destinations"] = json.dumps(sorted(str(row[0]) for row in kept["cursors"]))
    notes["ids"] = ids[0][0] if ids else max(ends)
    notes["letters_end"] = letters[-1] if letters else 0
    notes["letters"] = letters[0] - 1 if letters else 0

    def write(connection: sqlite3.Connection) -> None:
        for statement in FROM_VERSION_1.split(";"):
            connection.execute(statement)
        for table in IN_VERSION_1:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
            insert(connection, table, kept[table])
        insert(connection, "ids", unknown_ids(subtract([(notes["ids"], notes["end"])], ids)))
        _migrate_2(connection, notes)

    database.write(write)


def with_seals(cursor: Row, seals: Sequence[Row]) -> Row:
    """A cursor's row, signed, that knows of these seals (rows without checksums)."""
    ends = [unpack(row[4])[-1][1] for row in seals]
    values = (*cursor[:6], max([int(str(cursor[2])), *ends]), seals_digest(seals), cursor[8])
    return (*values, sign("cursors", *values))


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Write rows, inside the caller's transaction; one with the same key gives way."""
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608


def _is_offset(*values: object) -> bool:
    return all(type(value) is int and 0 <= value < MOST for value in values)


def _note_makes_sense(row: Row) -> bool:
    key, value = row
    kind = type(NEW_NOTES.get(key, value)) if isinstance(key, str) else None
    return type(value) is kind and kind in (str, int, float)


def _cursor_makes_sense(row: Row) -> bool:
    name, born, position, *totals, doubt = row
    return (
        isinstance(name, str)
        and _is_offset(born, position, *totals[:4])
        and born <= position
        and isinstance(doubt, bytes)
        and isinstance(unpack(doubt), list)
    )


def _seal_makes_sense(row: Row) -> bool:
    destination, number, batch, partition, offsets, settled, memo, attempts = row
    assert isinstance(offsets, bytes)
    assert isinstance(settled, bytes)
    all_offsets, some = unpack(offsets), unpack(settled)
    edges = [edge for pair in all_offsets for edge in pair]
    return (
        all(isinstance(text, str) for text in (destination, batch, partition))
        and (memo is None or isinstance(memo, bytes))
        and _is_offset(number, attempts, *edges)
        and len(edges) > 0
        and all(low < high for low, high in pairwise(edges))
        and not subtract(some, all_offsets)
    )


def _gap_makes_sense(row: Row) -> bool:
    number, since, until, reason = row
    return (
        isinstance(number, int)
        and isinstance(since, float)
        and isinstance(until, float | None)
        and isinstance(reason, str)
    )


def _letter_makes_sense(row: Row) -> bool:
    number, body = row
    assert isinstance(number, int)
    assert isinstance(body, bytes)
    return bool(decode_letter(number, body).stage)


def _ids_make_sense(row: Row) -> bool:
    first, count, packed = row
    assert isinstance(first, int)
    assert isinstance(packed, bytes)
    return _is_offset(first, count) and len(stored_pairs(first, packed)) in (0, 16 * count)


def _received_makes_sense(row: Row) -> bool:
    first, count, since, until, low, high, lived, size, odd = row
    return (
        _is_offset(first, count, size)
        and count > 0
        and all(isinstance(value, float) for value in (since, until, lived))
        and all(isinstance(value, int) for value in (low, high))
        and isinstance(odd, bytes)
    )


def _received_ids_make_sense(row: Row) -> bool:
    first, body = row
    return _is_offset(first) and len(signed_body(body, first)) > 0


def _receipt_makes_sense(row: Row) -> bool:
    destination, level, first, ends, at, kind, attempts, said, offsets = row
    return (
        isinstance(destination, str)
        and isinstance(said, str)
        and isinstance(at, float)
        and _is_offset(level, first, ends, kind, attempts)
        and first < ends
        and isinstance(unpack(offsets), list)
    )


def _trouble_makes_sense(row: Row) -> bool:
    destination, at, cause = row
    return isinstance(destination, str) and isinstance(at, float) and isinstance(cause, str)


def _chunk_makes_sense(row: Row) -> bool:
    first, count, _, raw_size, *_ = row
    events = decode_row(row).events
    return _is_offset(first) and len(events) == count and sum(len(event.raw) for event in events) == raw_size


_MAKES_SENSE: dict[str, Callable[[Row], bool]] = {
    "meta": _note_makes_sense,
    "cursors": _cursor_makes_sense,
    "seals": _seal_makes_sense,
    "gaps": _gap_makes_sense,
    "strays": _letter_makes_sense,
    "ids": _ids_make_sense,
    "chunks": _chunk_makes_sense,
    "received": _received_makes_sense,
    "received_ids": _received_ids_make_sense,
    "receipts": _receipt_makes_sense,
    "troubles": _trouble_makes_sense,
}
