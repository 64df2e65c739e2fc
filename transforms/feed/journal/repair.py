"""The repair of a damaged journal: every readable row goes on, what is lost is counted, a gap is recorded."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from transforms.durable import make_private, replace_file, sync
from transforms.feed.journal.check import IN_VERSION_1, Row, check, insert, whole, with_seals
from transforms.feed.journal.chunks import ChunkStore, decode_row
from transforms.feed.journal.cursor import UNKNOWN, Cursor
from transforms.feed.journal.database import (
    Database,
    JournalDamaged,
    file_uri,
    note,
    put_note,
    set_note,
    suspect_mark,
)
from transforms.feed.journal.gaps import GapLog
from transforms.feed.journal.kept_ids import is_unknown, unknown_row
from transforms.feed.journal.letters import LOST_LETTER, encode_letter
from transforms.feed.journal.ranges import Range, subtract, unpack
from transforms.feed.journal.schema import COLUMNS, MOST, NEW_NOTES, VERSION, sign_body
from transforms.feed.journal.seals import CursorRow
from transforms.feed.journal.seen_ids import pack_ids, unknown_ids
from transforms.feed.journal.wal import PAGE, apply_wal, page_one_for_rescue, read_wal
from transforms.structs import ready

log = logging.getLogger("grantex.journal")
BLOCK = 100  # rows copied in one transaction
CHECK_BYTES = 1024**3  # SQLite's own check reads the whole file: a bigger one only when something went wrong
FILE_MAGIC = b"SQLite format 3\0"
BY_NUMBER = ("ids", "chunks", "strays", "received", "received_ids")  # tables with a number as their key
KEY_COLUMNS = {"seals": 2, "receipts": 3}  # of the others one
ASIDE = re.compile(r"journal\.damaged-\d{8}T\d{6}Z(-\d+)?")


@ready
class Marker(msgspec.Struct):
    """Content of `journal.salvaging`, which is there while a repair is under way."""

    aside: str  # what the damaged file is called from now on
    written: float  # when it was last written (epoch), before the repair did


def open_or_repair(path: Path, database: type[Database], on_full: Callable[[], bool], now: float) -> Database:
    """The database at `path`, checked; a damaged one is kept beside it (`journal.damaged-<time>`) and
    replaced by what could be read of it.

    The replacement has a note `salvaged` until `settle_damage` has drawn the consequences.
    """
    mark = path.with_name("journal.salvaging")
    if mark.exists():  # the process died while it repaired the journal
        _repair(path, database, on_full, mark, _read_marker(mark, now))
    reason = _visible_damage(path)
    if reason is None:
        try:
            return _checked(database(path, on_full))
        except JournalDamaged as error:
            reason = str(error)
    log.error("the journal %s is damaged: %s", path, reason)
    marker = Marker(_new_name(path, now), _last_written(path, now))
    replace_file(mark, msgspec.json.encode(marker))
    _repair(path, database, on_full, mark, marker)
    return _checked(database(path, on_full))


def _checked(opened: Database) -> Database:
    """Raises JournalDamaged, and closes it, unless it is whole."""
    try:
        if opened.path.stat().st_size <= CHECK_BYTES and not opened.sound():
            raise JournalDamaged("its content fails SQLite's check")
        check(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def _new_name(path: Path, now: float) -> str:
    stamp = f"{datetime.fromtimestamp(now, timezone.utc):%Y%m%dT%H%M%SZ}"
    name, number = f"journal.damaged-{stamp}", 1
    while path.with_name(name).exists():
        number += 1
        name = f"journal.damaged-{stamp}-{number}"
    return name


def _read_marker(mark: Path, now: float) -> Marker:
    """What an earlier repair was at. One that cannot be read means: repair anew what lies there."""
    try:
        marker = msgspec.json.decode(mark.read_bytes(), type=Marker)
        if ASIDE.fullmatch(marker.aside):
            return marker
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        pass
    path = mark.with_name("journal.sqlite3")
    aside = [found for found in mark.parent.glob("journal.damaged-*") if ASIDE.fullmatch(found.name)]
    if path.exists() or not aside:  # not begun, or done: the checks that follow will see
        return Marker(_new_name(path, now) if not aside else max(aside, key=_changed).name, now)
    newest = max(aside, key=_changed)
    return Marker(newest.name, newest.stat().st_mtime)


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _last_written(path: Path, now: float) -> float:
    """When the journal was last written, as its files say: for a gap when nothing in it can be read."""
    files = [file for file in (path, _beside(path, "-wal")) if file.exists()]
    return min(now, max((file.stat().st_mtime for file in files), default=now))


def _visible_damage(path: Path) -> str | None:
    """What is wrong that can be seen without SQLite, which would take it for a new or an older journal."""
    log_path = _beside(path, "-wal")
    has_log = log_path.exists() and log_path.stat().st_size > 0
    if not path.exists() or not path.stat().st_size:
        if has_log or path.with_name("reserve").exists():
            return "the file is empty or gone"
        return None
    if suspect_mark(path).exists():
        return "an earlier run could not read all of it"
    with open(path, "rb") as file:
        if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
            return "it does not begin as an SQLite file"
    return "its write-ahead log is damaged" if read_wal(log_path).damaged else None


def _repair(
    path: Path, database: type[Database], on_full: Callable[[], bool], mark: Path, marker: Marker
) -> None:
    """Build the replacement beside the damaged file; every step can be repeated after a crash.

    The damaged database moves last and the new one comes last, so that both there means done.
    """
    aside = path.with_name(marker.aside)
    if not (aside.exists() and path.exists()):
        _move(path, aside)
        fresh = path.with_name("journal.salvaged")
        try:
            kept = _build(aside, fresh, database, on_full, marker.written)
            sync(fresh)
            os.replace(fresh, path)
            sync(path.parent)
        finally:  # room for others on a full disk
            for suffix in ("", "-wal", "-shm"):
                _beside(fresh, suffix).unlink(missing_ok=True)
        log.error(
            "the damaged journal is kept as %s; %d chunks of it could be read and go on from here; what it "
            "held besides is counted as lost, and a feed gap is recorded",
            aside.name,
            kept,
        )
    suspect_mark(path).unlink(missing_ok=True)
    mark.unlink()


def _move(path: Path, aside: Path) -> None:
    _beside(path, "-shm").unlink(missing_ok=True)  # only an index of the log
    for suffix in ("-wal", ""):
        if _beside(path, suffix).exists():
            os.replace(_beside(path, suffix), _beside(aside, suffix))
    make_private(aside)
    sync(path.parent)


def _build(
    aside: Path, fresh: Path, database: type[Database], on_full: Callable[[], bool], written: float
) -> int:
    """A new journal in `fresh` with every whole row of `aside`; how many chunks that were."""
    for suffix in ("", "-wal", "-shm"):
        _beside(fresh, suffix).unlink(missing_ok=True)
    apply_wal(_beside(aside, "-wal"), aside)
    database(fresh, on_full).close()
    put_first_page(aside, fresh.read_bytes())
    target = database(fresh, on_full)
    try:
        kept = copy_readable(aside, target)
        _complete(target, written)
    finally:
        target.close()
    return kept


def put_first_page(damaged: Path, fresh: bytes) -> None:
    """Replace the first page of `damaged`, which tells SQLite of the tables, whatever stands on it.

    Every journal is created by the same statements, so its tables begin at the same pages.
    """
    with open(damaged, "r+b") as file:
        file.write(page_one_for_rescue(fresh[:PAGE]))


def copy_readable(damaged: Path, target: Database) -> int:
    """Copy every whole row into `target`; how many chunks that were."""
    kept = 0
    with _open(damaged) as source:
        # a journal of schema 1 has no row with a checksum: its rows are let pass where they make sense
        unsigned = all(row[-1] is None for table in IN_VERSION_1 for row in _rows(source, table))
        target.write(lambda connection: connection.execute("DELETE FROM meta"))
        for table in COLUMNS:
            found = (whole(table, row, unsigned=unsigned) for row in _rows(source, table))
            rows = (row for row in found if row is not None)
            while block := list(islice(rows, BLOCK)):
                target.write(lambda connection, table=table, block=block: insert(connection, table, block))  # type: ignore[misc]
                kept += len(block) * (table == "chunks")
    if unsigned:
        _know_seals(target)
    return kept


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file_uri(path, "rw"), uri=True, isolation_level=None)
    connection.text_factory = lambda text: text.decode(errors="replace")
    try:
        yield connection
    finally:
        connection.close()


def _rows(source: sqlite3.Connection, table: str) -> Iterator[Row]:
    return _by_key(source, table) if table in BY_NUMBER else _from_both_ends(source, table)


def _from_both_ends(source: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Rows of a table from the front up to the first damage, then from the back up to the last."""
    width = KEY_COLUMNS.get(table, 1)
    for direction, sense in (("", 1), (" DESC", -1)):
        order = ", ".join(f"{column}{direction}" for column in range(1, width + 1))
        before: Row | None = None
        with contextlib.suppress(sqlite3.DatabaseError, TypeError):  # keys that cannot be compared
            for row in source.execute(f"SELECT {COLUMNS[table]} FROM {table} ORDER BY {order}"):  # noqa: S608
                key = row[:width]
                if before is not None and (key <= before if sense > 0 else key >= before):
                    break  # keys out of order are damage: SQLite may go round in circles there
                before = key
                yield row
            else:
                return


def _by_key(source: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Rows by their number: damage in a row's body costs that row alone."""
    key = COLUMNS[table].partition(",")[0]
    query = f"SELECT {COLUMNS[table]} FROM {table} WHERE {key} = ?"  # noqa: S608
    upward = set(_keys(source, table, key, -1, 1))
    downward = _keys(source, table, key, max(upward, default=0) + 2 * BLOCK * 500, -1)
    for number in sorted({*upward, *downward}):
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from source.execute(query, (number,))


def _keys(source: sqlite3.Connection, table: str, key: str, at: int, step: int) -> Iterator[int]:
    """The readable keys of a table beyond `at`. At damage it leaps ever further until it finds one.

    `at` moves on at every step, whatever SQLite answers, so that this ends.
    """
    comparison, order = (">", "ASC") if step > 0 else ("<", "DESC")
    query = f"SELECT {key} FROM {table} WHERE {key} {comparison} ? ORDER BY {key} {order}"  # noqa: S608
    leap = step
    while -1 <= at <= MOST:
        try:
            for (found,) in source.execute(query, (at,)):
                if not isinstance(found, int) or (found - at) * step <= 0 or not 0 <= found < MOST:
                    break  # out of order: damage, too
                yield found
                at, leap = found, step
            else:
                return
        except sqlite3.DatabaseError:
            pass
        at, leap = at + leap, leap * 2


def _know_seals(target: Database) -> None:
    """Cursors of schema 1 do not know their seals: those that are left are all."""
    rows = list(target.each(f"SELECT {COLUMNS['seals']} FROM seals"))  # noqa: S608
    cursors = list(target.each(f"SELECT {COLUMNS['cursors']} FROM cursors"))  # noqa: S608
    known = [with_seals(row, [seal[:-1] for seal in rows if seal[0] == row[0]]) for row in cursors]
    target.write(lambda connection: insert(connection, "cursors", known))


def _complete(target: Database, written: float) -> None:
    """Make notes, ids, letters and cursors whole again, and note that the consequences are to be drawn."""
    chunks = [(f, f + n) for f, n in target.each("SELECT first, count FROM chunks ORDER BY first")]
    ids = [(f, f + n) for f, n in target.each("SELECT first, count FROM ids ORDER BY first")]
    cursors = [CursorRow(*row[:-1]) for row in target.each(f"SELECT {COLUMNS['cursors']} FROM cursors")]  # noqa: S608
    sealed = [
        (name, unpack(offsets)[-1][1])
        for name, offsets in target.each("SELECT destination, offsets FROM seals")
    ]
    found: dict[str, Any] = dict(target.each("SELECT key, value FROM meta"))
    notes = {**NEW_NOTES, **found, "version": VERSION, "salvaged": 1}
    ends = [notes["end"], notes["trimmed"], notes["ids"], _fill_received(target, notes, found, written)]
    ends += [*(end for _, end in [*ids, *chunks, *sealed])]
    end = notes["end"] = max([*ends, *(max(row.position, row.sealed) for row in cursors)])
    floor = found.get("trimmed", chunks[0][0] if chunks else end)
    names = {row.name for row in cursors}
    missing = {*json.loads(notes["destinations"]), *(name for name, _ in sealed)} - names
    notes["destinations"] = json.dumps(sorted(names | missing))
    if "destinations" not in found:  # whoever is configured and has no row begins there
        notes["orphans"] = floor
    newest = target.rows("SELECT max(taken_at) FROM chunks")[0][0] or 0.0
    notes["heard"] = max(notes["heard"], newest) if found.get("heard") or newest else written
    if found.get("heard") == 0.0:  # no feed was ever heard: there is no gap
        notes["heard"] = newest
    letters = _missing_letters(target, found)
    notes["letters"], notes["letters_end"] = letters.start - 1, letters.stop - 1

    def write(connection: sqlite3.Connection) -> None:
        for name in missing:
            CursorRow(name, floor, floor, sealed=end, seals=UNKNOWN).write(connection)
        for key, value in notes.items():
            put_note(connection, key, value)

    target.write(write)
    _fill_ids(target, subtract([(notes["ids"], end)], ids), chunks)


def _fill_received(target: Database, notes: dict[str, Any], found: Mapping[str, Any], written: float) -> int:
    """Put a block that knows nothing in the place of each that is lost; where they end."""
    bodies = {first for (first,) in target.each("SELECT first FROM received_ids")}
    query = "SELECT first, first + count, low, odd, lived FROM received ORDER BY first"
    blocks: list[Range] = []
    lived = 0.0
    for first, end, low, odd, age in target.each(query):
        if (first in bodies or is_unknown(low, odd)) and (not blocks or blocks[-1][1] <= first):
            blocks.append((first, end))
            lived = max(lived, age)
    until = max([found.get("received", 0), *(end for _, end in blocks)])
    first = min(found.get("receipts", blocks[0][0] if blocks else until), until)
    blocks = [block for block in blocks if block[0] >= first]
    holes = subtract([(first, until)], blocks)
    kept = {start for start, _ in blocks}
    gone = [(start,) for (start,) in target.each("SELECT first FROM received") if start not in kept]
    lost = [(start,) for start in bodies if start not in kept]
    notes.update(receipts=first, received=until, lived=max(notes["lived"], lived))
    if "receipts_since" not in found and until:
        notes["receipts_since"] = written

    def write(connection: sqlite3.Connection) -> None:
        connection.executemany("DELETE FROM received WHERE first = ?", gone)
        connection.executemany("DELETE FROM received_ids WHERE first = ?", lost)
        insert(connection, "received", [unknown_row(*hole, written, lived) for hole in holes])

    target.write(write)
    return int(until)


def _missing_letters(target: Database, notes: Mapping[str, Any]) -> range:
    """Put a dead letter in the place of each of the feed's that is lost; the numbers there are then."""
    numbers = [number for (number,) in target.each("SELECT number FROM strays ORDER BY number")]
    kept = set(numbers)
    first = notes.get("letters", min(kept, default=1) - 1) + 1
    end = max([notes.get("letters_end", 0), first - 1, *kept]) + 1
    for number in range(first, end):
        if number not in kept:
            row = (number, sign_body(encode_letter(LOST_LETTER), number))
            target.write(lambda connection, row=row: insert(connection, "strays", [row]))  # type: ignore[misc]
    target.write(lambda connection: connection.execute("DELETE FROM strays WHERE number < ?", (first,)))
    return range(first, end)


def _fill_ids(target: Database, holes: Sequence[Range], chunks: Sequence[Range]) -> None:
    """Ids of events that are kept are read from these; of others nobody knows them any more."""
    unknown = subtract(holes, chunks)
    rows: list[Row] = unknown_ids(unknown)
    query = f"SELECT {COLUMNS['chunks']} FROM chunks WHERE first = ?"  # noqa: S608
    for first, end in chunks:
        for start, stop in subtract([(first, end)], subtract([(first, end)], holes)):
            events = decode_row(target.rows(query, first)[0]).events[start - first : stop - first]
            rows.append((start, stop - start, sign_body(pack_ids(events), start)))
    target.write(lambda connection: insert(connection, "ids", rows))


def settle_damage(
    database: Database, chunks: ChunkStore, gaps: GapLog, cursors: Mapping[str, Cursor]
) -> None:
    """Draw the consequences of a repair, if there was one: a gap on record, every cursor past what is lost.

    Done again when the process dies in it.
    """
    if note(database, "salvaged") is not None:
        gaps.begin("the journal was damaged", None)
        for cursor in cursors.values():
            cursor.repair(chunks.missing(cursor.position))
        set_note(database, "salvaged", None)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
