"""The journal's SQLite file: one connection, one lock, short transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, taken_at REAL NOT NULL, size INTEGER NOT NULL,
    checksum INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ids (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, packed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT PRIMARY KEY, born INTEGER NOT NULL, position INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0, dead_lettered INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seals (
    destination TEXT NOT NULL, number INTEGER NOT NULL, batch TEXT NOT NULL, partition TEXT NOT NULL,
    offsets BLOB NOT NULL, settled BLOB NOT NULL DEFAULT x'', memo BLOB, attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (destination, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gaps (
    number INTEGER PRIMARY KEY, since REAL NOT NULL, until REAL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS strays (number INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
"""


class JournalError(Exception):
    """The journal cannot be used as asked (exit code 2); the message says why and what to do."""


class JournalDamaged(Exception):
    """The journal's file cannot be read any more, or not all of it; the next start repairs what it can."""


class Database:
    """A connection shared by all threads. Whatever reads or writes holds the lock for one short moment, so
    no read transaction ever spans a wait (an idle one keeps the write-ahead log growing)."""

    def __init__(self, path: Path, on_full: Callable[[], bool] = lambda: False) -> None:
        """Open or create the file at `path`. Raises JournalDamaged, JournalError (another version).

        on_full: called when the disk is full; True when it made room and the transaction is worth
        repeating.
        """
        self.path = path
        self.lock = threading.RLock()
        self._on_full = on_full
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException as error:
            # Closed later, by the garbage collector, it would delete the log of whatever is at `path` then.
            self._connection.close()
            if isinstance(error, sqlite3.DatabaseError) and not is_full(error):
                raise JournalDamaged(str(error)) from error
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA auto_vacuum = INCREMENTAL")  # only a new file takes it: gives disk back after an outage
        run("PRAGMA journal_mode = WAL")
        # NORMAL: kill -9 loses nothing; a power cut may lose the transactions of the last seconds.
        run("PRAGMA synchronous = NORMAL")
        # On in some builds: deleting would write every freed page once more, on a full disk too.
        run("PRAGMA secure_delete = OFF")
        run("PRAGMA journal_size_limit = 16777216")
        version = run("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise JournalError(
                f"{self.path} was written by another version of this program (schema {version}, this one "
                f"reads {VERSION}): start that version, or choose another --state_dir"
            )
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction under the lock: committed at the end, rolled back by an exception."""
        with self.lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    self._note_damage(error)
                raise

    def write(self, statements: Callable[[sqlite3.Connection], object]) -> None:
        """Run `statements` in one transaction; on a full disk once more if `on_full` made room.

        Raises sqlite3.OperationalError; then nothing of it was kept.
        """
        try:
            with self.transaction() as connection:
                statements(connection)
        except sqlite3.OperationalError as error:
            if not is_full(error) or not self._on_full():
                raise
            with self.transaction() as connection:
                statements(connection)

    def rows(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        """All rows of a query. Raises JournalDamaged when they cannot be read."""
        with self.lock:
            try:
                return self._connection.execute(query, parameters).fetchall()
            except sqlite3.DatabaseError as error:
                self._note_damage(error)
                raise

    def _note_damage(self, error: sqlite3.DatabaseError) -> None:
        if "malformed" in str(error) or "not a database" in str(error):
            self.suspect()
            raise JournalDamaged(
                f"{self.path} is damaged ({error}): start again, and what can be read of it is kept"
            ) from error

    def suspect(self) -> None:
        """Have the next start repair the file whatever SQLite says of it."""
        suspect_mark(self.path).touch()

    def sound(self) -> bool:
        """Whether SQLite's own quick check finds nothing wrong."""
        try:
            return self.rows("PRAGMA quick_check(1)") == [("ok",)]
        except (sqlite3.DatabaseError, JournalDamaged):
            return False

    def free_pages(self) -> int:
        """Pages of the file that hold nothing."""
        return int(str(self.rows("PRAGMA freelist_count")[0][0]))

    def give_back(self, pages: int) -> None:
        """Give free pages back to the disk (the file shrinks at the next checkpoint)."""
        self.rows(f"PRAGMA incremental_vacuum({pages:d})")

    def close(self) -> None:
        """Close; SQLite folds the write-ahead log into the file."""
        with self.lock:
            self._connection.close()


def suspect_mark(path: Path) -> Path:
    """The empty file that says that a run found the journal at `path` damaged."""
    return path.with_name("journal.suspect")


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite failed for want of disk space (an I/O error on a full disk counts too)."""
    text = str(error)
    return "disk is full" in text or "disk I/O error" in text


def note(database: Database, key: str) -> object:
    """The note under `key`, or None."""
    rows = database.rows("SELECT value FROM meta WHERE key = ?", key)
    return rows[0][0] if rows else None


def set_note(database: Database, key: str, value: object) -> None:
    """Write a note; None removes it."""
    if value is None:
        database.write(lambda db: db.execute("DELETE FROM meta WHERE key = ?", (key,)))
    else:
        database.write(lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)))


def check_identity(database: Database, key: str, value: str, what: str) -> None:
    """Note whose journal this is at the first call. Raises JournalError when it was another's."""
    known = note(database, key)
    if known is None:
        set_note(database, key, value)
    elif known != value:
        raise JournalError(
            f"{database.path.parent} holds the journal of another {key} ({known}), this run {what} {value}: "
            "choose another --state_dir, so that two feeds are never mixed"
        )
