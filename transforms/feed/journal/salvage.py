"""A damaged journal: moved aside, with every readable chunk, cursor and seal kept."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from transforms.feed.journal.chunks import decode_row
from transforms.feed.journal.database import Database, JournalDamaged

log = logging.getLogger("grantex.journal")

CHECK_BYTES = 1024**3  # a bigger file is checked only when something went wrong: the check reads it all
TABLES = {
    "meta": ("key",),
    "cursors": ("name",),
    "seals": ("destination", "number"),
    "gaps": ("number",),
    "strays": ("number",),
    "ids": ("first",),
    "chunks": ("first",),
}


def open_or_salvage(
    path: Path, database: type[Database], on_full: object, now: float
) -> tuple[Database, bool]:
    """The database at `path`, and whether a damaged one had to be replaced.

    The damaged file is kept beside it (`journal.damaged-<time>`).
    """
    try:
        opened = database(path, on_full)  # type: ignore[arg-type]
        if path.stat().st_size > CHECK_BYTES or opened.sound():
            return opened, False
        opened.close()
        reason = "its content fails SQLite's check"
    except JournalDamaged as error:
        reason = str(error)
    aside = path.with_name(f"journal.damaged-{datetime.fromtimestamp(now, timezone.utc):%Y%m%dT%H%M%SZ}")
    _move(path, aside)
    fresh = database(path, on_full)  # type: ignore[arg-type]
    kept = salvage(aside, fresh)
    log.error(
        "the journal %s is damaged (%s): it is kept as %s, and %d chunks that could be read go on from here; "
        "what it held besides is recorded as a feed gap",
        path.name,
        reason,
        aside.name,
        kept,
    )
    return fresh, True


def _move(path: Path, aside: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))


def salvage(damaged: Path, fresh: Database) -> int:
    """Copy every readable row into `fresh`; how many chunks that were."""
    try:
        source = sqlite3.connect(f"file:{damaged}?mode=rw", uri=True, isolation_level=None)
    except sqlite3.DatabaseError:
        return 0
    kept = 0
    with contextlib.closing(source):
        for table, key in TABLES.items():
            for row in _readable_rows(source, table, key):
                if table != "chunks" or _whole(row):
                    kept += _keep(fresh, table, row)
    return kept


def _keep(fresh: Database, table: str, row: tuple[object, ...]) -> int:
    marks = ", ".join("?" * len(row))
    try:
        fresh.write(lambda db: _insert(db, f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row))  # noqa: S608
    except sqlite3.DatabaseError as error:  # a row whose columns are damaged
        log.warning("a row of %s in the damaged journal was not kept: %s", table, error)
        return 0
    return int(table == "chunks")


def _insert(connection: sqlite3.Connection, statement: str, row: tuple[object, ...]) -> None:
    connection.execute(statement, row)


def _whole(row: tuple[object, ...]) -> bool:
    first, count, taken_at, _, body = row
    try:
        return len(decode_row((first, taken_at, body)).events) == count
    except Exception:  # noqa: BLE001 - damaged bytes may fail in any way; each means the same
        return False


def _readable_rows(
    source: sqlite3.Connection, table: str, key: tuple[str, ...]
) -> Iterator[tuple[object, ...]]:
    """Rows from the front up to the first damage, then from the back up to the last one."""
    for direction in ("", " DESC"):
        order = ", ".join(column + direction for column in key)
        try:
            yield from source.execute(f"SELECT * FROM {table} ORDER BY {order}")  # noqa: S608
        except sqlite3.DatabaseError:
            continue
        return
