"""What a repaired journal still has to do: a gap on record, every cursor past what is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice, pairwise
from pathlib import Path

from transforms.durable import sync
from transforms.feed.journal.chunks import ChunkStore, decode_row
from transforms.feed.journal.cursor import Cursor
from transforms.feed.journal.database import Database, JournalDamaged, note, set_note, suspect_mark
from transforms.feed.journal.gaps import GapLog, decode_stray
from transforms.feed.journal.ranges import subtract, unpack
from transforms.feed.journal.wal import PAGE, apply_wal, page_one_for_rescue, read_wal


def settle_damage(
    database: Database, gaps: GapLog, chunks: ChunkStore, cursors: Mapping[str, Cursor]
) -> int | None:
    """Draw the consequences of a repair, if there was one; done again when the process dies in it.

    Returns the offset from which events belong to nobody, because the cursors were lost: those that are
    born now begin there. None as a rule.
    """
    written = note(database, "salvaged")
    if written is not None:
        gaps.heard_by(float(str(written)))
        gaps.begin("the journal was damaged", None)
        for cursor in cursors.values():
            cursor.lose(chunks.missing(cursor.position))
        if not cursors:  # or what was read would belong to nobody and be trimmed
            set_note(database, "orphans", chunks.trimmed)
        set_note(database, "salvaged", None)
    elif cursors:
        set_note(database, "orphans", None)
    orphans = note(database, "orphans")
    return None if orphans is None else int(str(orphans))


log = logging.getLogger("grantex.journal")
Row = tuple[object, ...]
BLOCK = 100  # rows copied in one transaction
MOST = 2**56  # no offset is beyond this; bigger numbers are damage


def make_openable(damaged: Path, fresh: bytes) -> None:
    """See that SQLite finds the tables in `damaged`: if not, its first page is replaced by a fresh one.

    Every journal is created by the same statements, so its tables begin at the same pages.
    """
    with contextlib.suppress(sqlite3.DatabaseError), _open(damaged) as source:
        found = {name for (name,) in source.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if found >= TABLES.keys():
            return
    with open(damaged, "r+b") as file:
        file.write(page_one_for_rescue(fresh[:PAGE]))


def copy_readable(damaged: Path, target: Database) -> int:
    """Copy every readable and sensible row into `target`; how many chunks that were."""
    kept = 0
    with _open(damaged) as source:
        for table, (read, sensible) in TABLES.items():
            rows = (row for row in read(source, table) if _is_sensible(sensible, row))
            while block := list(islice(rows, BLOCK)):
                _insert(target, table, block)
                kept += len(block) * (table == "chunks")
    return kept


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _insert(target: Database, table: str, rows: list[Row]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    target.write(
        lambda db: db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608
    )


def _is_sensible(sensible: Callable[[Row], bool], row: Row) -> bool:
    try:
        return sensible(row)
    except Exception:  # noqa: BLE001 - damaged bytes may fail in any way; each means the same
        return False


def _from_both_ends(source: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Rows of a small table from the front up to the first damage, then from the back up to the last."""
    keys = "destination{0}, number{0}" if table == "seals" else "1{0}"
    for direction in ("", " DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from source.execute(f"SELECT * FROM {table} ORDER BY {keys.format(direction)}")  # noqa: S608
            return


def _one_by_one(source: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Rows by their first offset: damage in a row's body costs that row alone."""
    for first in sorted({*_firsts(source, table), *_firsts(source, table, backwards=True)}):
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from source.execute(f"SELECT * FROM {table} WHERE first = ?", (first,))  # noqa: S608


def _firsts(source: sqlite3.Connection, table: str, *, backwards: bool = False) -> Iterator[int]:
    """The readable keys of a table; past a damaged page it leaps ever further until it finds one."""
    comparison, order, step = ("<", "DESC", -1) if backwards else (">", "ASC", 1)
    query = f"SELECT first FROM {table} WHERE first {comparison} ? ORDER BY first {order}"  # noqa: S608
    at, leap = (MOST, step) if backwards else (-1, step)
    if backwards:  # from the last readable key, or leaps of 1 from 2^56 would never come near one
        at = max(_firsts(source, table), default=-1) + 2 * BLOCK * 500
    while -1 <= at <= MOST:
        try:
            for (first,) in source.execute(query, (at,)):
                if not 0 <= int(first) < MOST:
                    break
                yield int(first)
                at, leap = int(first), step
            return
        except sqlite3.DatabaseError:
            at, leap = at + leap, leap * 2


def _is_offset(*values: object) -> bool:
    return all(isinstance(value, int) and 0 <= value < MOST for value in values)


def _chunk_is_whole(row: Row) -> bool:
    first, count, taken_at, size, checksum, body = row
    events = decode_row((first, taken_at, checksum, body)).events
    return _is_offset(first) and len(events) == count and sum(len(event.raw) for event in events) == size


def _cursor_is_sensible(row: Row) -> bool:
    name, born, position, *totals = row
    return isinstance(name, str) and _is_offset(born, position, *totals) and born <= position  # type: ignore[operator]


def _seal_is_sensible(row: Row) -> bool:
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


def _ids_are_whole(row: Row) -> bool:
    first, count, packed = row
    return _is_offset(first, count) and isinstance(packed, bytes) and len(packed) == 16 * count  # type: ignore[operator]


def _gap_is_sensible(row: Row) -> bool:
    number, since, until, reason = row
    return (
        isinstance(number, int)
        and isinstance(since, float)
        and isinstance(until, float | None)
        and isinstance(reason, str)
    )


def _stray_is_whole(row: Row) -> bool:
    number, body = row
    return isinstance(number, int) and isinstance(body, bytes) and bool(decode_stray(body).stage)


def _meta_is_sensible(row: Row) -> bool:
    key, value = row
    return isinstance(key, str) and isinstance(value, str | int | float)


Reader = Callable[[sqlite3.Connection, str], Iterator[Row]]
TABLES: dict[str, tuple[Reader, Callable[[Row], bool]]] = {
    "meta": (_from_both_ends, _meta_is_sensible),
    "cursors": (_from_both_ends, _cursor_is_sensible),
    "seals": (_from_both_ends, _seal_is_sensible),
    "gaps": (_from_both_ends, _gap_is_sensible),
    "strays": (_from_both_ends, _stray_is_whole),
    "ids": (_one_by_one, _ids_are_whole),
    "chunks": (_one_by_one, _chunk_is_whole),
}
CHECK_BYTES = 1024**3  # a bigger file is checked only when something went wrong: the check reads it all
FILE_MAGIC = b"SQLite format 3\0"


def open_or_salvage(
    path: Path, database: type[Database], on_full: Callable[[], bool], now: float
) -> Database:
    """The database at `path`; a damaged one is kept beside it (`journal.damaged-<time>`) and replaced.

    The replacement has a row `salvaged` in `meta`, the epoch seconds at which the damaged file was last
    written, until the journal has drawn the consequences.
    """
    marker = path.with_name("journal.salvaging")
    if marker.exists():  # the process died while it repaired the journal
        _salvage(path, database, on_full, marker)
    reason = _visible_damage(path)
    if reason is None:
        try:
            opened = database(path, on_full)
            if path.stat().st_size > CHECK_BYTES or opened.sound():
                return opened
            opened.close()
            reason = "its content fails SQLite's check"
        except JournalDamaged as error:
            reason = str(error)
    log.error("the journal %s is damaged: %s", path, reason)
    stamp = f"{datetime.fromtimestamp(now, timezone.utc):%Y%m%dT%H%M%SZ}"
    aside = path.with_name(f"journal.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"journal.damaged-{stamp}-{number}")
    marker.write_text(aside.name)
    _salvage(path, database, on_full, marker)
    return database(path, on_full)


def _visible_damage(path: Path) -> str | None:
    """What is wrong that can be seen without SQLite, which would take it for a new or an older journal."""
    log_path = _beside(path, "-wal")
    has_log = log_path.exists() and log_path.stat().st_size > 0
    if not path.exists() or not path.stat().st_size:
        if has_log or (path.exists() and path.with_name("reserve").exists()):
            return "the file is empty or gone"
        return None
    if suspect_mark(path).exists():
        return "an earlier run could not read all of it"
    with open(path, "rb") as file:
        if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
            return "it does not begin as an SQLite file"
    return "its write-ahead log is damaged" if read_wal(log_path).damaged else None


def _salvage(path: Path, database: type[Database], on_full: Callable[[], bool], marker: Path) -> None:
    """Build the replacement beside the damaged file; every step can be repeated after a crash.

    The damaged database moves last and the new one comes last, so that both there means done.
    """
    aside = path.with_name(marker.read_text())
    if not (aside.exists() and path.exists()):
        _move(path, aside)
        fresh = path.with_name("journal.salvaged")
        for suffix in ("", "-wal", "-shm"):
            _beside(fresh, suffix).unlink(missing_ok=True)
        apply_wal(_beside(aside, "-wal"), aside)
        database(fresh, on_full).close()
        make_openable(aside, fresh.read_bytes())
        written = aside.stat().st_mtime
        target = database(fresh, on_full)
        kept = copy_readable(aside, target)
        target.write(lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES ('salvaged', ?)", (written,)))
        target.close()
        sync(fresh)
        os.replace(fresh, path)
        log.error(
            "the damaged journal is kept as %s; %d chunks of it could be read and go on from here; what it "
            "held besides is counted as lost, and a feed gap is recorded",
            aside.name,
            kept,
        )
    suspect_mark(path).unlink(missing_ok=True)
    marker.unlink()


def _move(path: Path, aside: Path) -> None:
    _beside(path, "-shm").unlink(missing_ok=True)  # only an index of the log
    for suffix in ("-wal", ""):
        if _beside(path, suffix).exists():
            os.replace(_beside(path, suffix), _beside(aside, suffix))
    aside.touch(mode=0o600)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
