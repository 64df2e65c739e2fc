"""A damaged journal: moved aside, with every readable chunk, cursor and seal kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from transforms.durable import sync
from transforms.feed.journal.database import Database, JournalDamaged, suspect_mark
from transforms.feed.journal.rescue import copy_readable, make_openable
from transforms.feed.journal.wal import apply_wal, read_wal

log = logging.getLogger("grantex.journal")

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
