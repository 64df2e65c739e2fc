"""The journal's SQLite file: one connection, one lock, short transactions."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from transforms.durable import make_private
from transforms.feed.journal.schema import NEW_NOTES, RECEIPTS, SCHEMA, VERSION, sign

log = logging.getLogger("grantex.journal")
T = TypeVar("T")

# Another program's lock (a shell, a backup) is waited for: SQLite does so for this long each time,
BUSY_SECONDS = 0.25
BUSY_TRIES = 240  # and after so many times (a minute) whoever writes is told, and begins again by itself
NO_VERSION = 1000  # such a number, and bigger ones, are damage
OLD_VERSIONS = (1, 2)  # journals of these schemas are opened as they are, to be made present ones


class JournalError(Exception):
    """The journal cannot be used as asked (exit code 2); the message says why and what to do."""


class DirectoryInUse(JournalError):
    """Another process has the directory."""


class NewerSchema(JournalError):
    """A later version of this program wrote the journal."""


class JournalUnavailable(Exception):
    """The journal cannot be opened now (exit code 1): a full disk, no descriptors left, an I/O error, another
    program's lock. A later start can work without anybody's doing."""


class JournalDamaged(Exception):
    """The journal's file cannot be read any more, or not all of it.

    Whoever meets it while running ends the process (exit code 1): the next start repairs what it can.
    """


def file_uri(path: Path, mode: str) -> str:
    """`path` as SQLite reads it in a URI, whatever stands in its name; mode: "ro", "rw" or "rwc"."""
    return f"file://{quote(os.fsencode(path.absolute()))}?mode={mode}"


class Database:
    """A connection shared by all threads. Whatever reads or writes holds the lock for one short moment, so
    no read transaction ever spans a wait (an idle one keeps the write-ahead log growing)."""

    def __init__(self, path: Path, on_full: Callable[[], bool] = lambda: False) -> None:
        """Open or create the file at `path`. Raises JournalDamaged, JournalError (another version), OSError,
        sqlite3.OperationalError (what `is_passing` knows).

        on_full: called when the disk is full; True when it made room and the transaction is worth
        repeating.
        """
        self.path = path
        self.lock = threading.RLock()
        self.is_suspect = False  # this run found it damaged
        self._on_full = on_full
        make_private(path)  # SQLite gives its log the rights of the file
        self._connection = sqlite3.connect(
            file_uri(path, "rw"),
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self.version = self._patiently(self._prepare)
        except BaseException as error:
            # Closed later, by the garbage collector, it would delete the log of whatever is at `path` then.
            self._connection.close()
            if isinstance(error, sqlite3.DatabaseError) and not is_passing(error):
                raise JournalDamaged(str(error)) from error
            raise

    def _prepare(self) -> int:
        run = self._connection.execute
        run("PRAGMA auto_vacuum = INCREMENTAL")  # only a new file takes it: gives disk back after an outage
        run("PRAGMA journal_mode = WAL")
        # NORMAL: kill -9 loses nothing; a power cut may lose the transactions of the last seconds.
        run("PRAGMA synchronous = NORMAL")
        # On in some builds: deleting would write every freed page once more, on a full disk too.
        run("PRAGMA secure_delete = OFF")
        run("PRAGMA journal_size_limit = 16777216")
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version in (*OLD_VERSIONS, VERSION):
            return version
        if version == 0 and not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._create()
            return VERSION
        if VERSION < version < NO_VERSION:
            raise NewerSchema(
                f"{self.path} was written by another version of this program (schema {version}, this one "
                f"reads {VERSION}): start that version, or choose another --state_dir"
            )
        raise sqlite3.DatabaseError(f"its schema is no version of ours ({version})")

    def _create(self) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        for statement in (SCHEMA + RECEIPTS).split(";"):
            run(statement)
        for key, value in NEW_NOTES.items():
            put_note(self._connection, key, value)
        run(f"PRAGMA user_version = {VERSION}")
        run("COMMIT")

    def _patiently(self, what: Callable[[], T], tries: int | None = None) -> T:
        """Do it, again while another program holds SQLite's lock: nothing of it was done then."""
        for attempt in range(1, tries or BUSY_TRIES):
            try:
                return what()
            except sqlite3.OperationalError as error:  # noqa: PERF203 - a loop because of it
                if not is_busy(error):
                    raise
                if attempt == 2:
                    log.warning(
                        "%s is locked by another program (an SQLite shell, a backup): waiting for it, and "
                        "reading the feed waits too",
                        self.path,
                    )
        return what()

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

    def write(
        self,
        statements: Callable[[sqlite3.Connection], object],
        *,
        spend_reserve: bool = True,
        tries: int | None = None,
    ) -> None:
        """Run `statements` in one transaction, once another program's lock is gone.

        On a full disk once more if `on_full` made room; not without `spend_reserve`. `statements` may run
        again. Raises sqlite3.OperationalError; then nothing of it was kept.
        """

        def transact() -> None:
            with self.transaction() as connection:
                statements(connection)

        try:
            self._patiently(transact, tries)
        except sqlite3.OperationalError as error:
            if not spend_reserve or not is_full(error) or not self._on_full():
                raise
            self._patiently(transact, tries)

    def rows(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        """All rows of a query. Raises JournalDamaged when they cannot be read."""
        with self.lock:
            try:
                return self._patiently(lambda: self._connection.execute(query, parameters).fetchall())
            except sqlite3.DatabaseError as error:
                self._note_damage(error)
                raise

    def each(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one by one. Raises sqlite3.DatabaseError as SQLite does."""
        with self.lock:
            yield from self._connection.execute(query, parameters)

    def _note_damage(self, error: sqlite3.DatabaseError) -> None:
        damage = ("malformed", "not a database", "no such", "UTF-8")
        if isinstance(error, sqlite3.IntegrityError) or any(text in str(error) for text in damage):
            self.suspect()
            raise JournalDamaged(
                f"{self.path} is damaged ({error}): start again, and what can be read of it is kept"
            ) from error

    def suspect(self) -> None:
        """Have the next start repair the file whatever SQLite says of it."""
        self.is_suspect = True
        with contextlib.suppress(OSError):  # on a full disk: the next start finds it by itself
            make_private(suspect_mark(self.path))

    def sound(self) -> bool:
        """Whether SQLite's own quick check finds nothing wrong in the tables that delivery needs. To read the
        receipts, too, would be seconds in which the feed is not heard."""
        tables = [found.split()[0] for found in SCHEMA.split("CREATE TABLE ")[1:]]
        try:
            return all(self.rows(f"PRAGMA quick_check({table})") == [("ok",)] for table in tables)
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


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program holds SQLite's lock."""
    return "is locked" in str(error)


def is_passing(error: sqlite3.Error) -> bool:
    """Whether it says nothing of the file itself: a full disk, a lock, a file that cannot be opened."""
    return is_full(error) or is_busy(error) or any(t in str(error) for t in ("unable to open", "readonly"))


def note(database: Database, key: str) -> object:
    """The note under `key`, or None."""
    rows = database.rows("SELECT value FROM meta WHERE key = ?", key)
    return rows[0][0] if rows else None


def number_noted(database: Database, key: str) -> int:
    """The whole number noted under `key`; 0 when there is none."""
    value = note(database, key)
    return value if isinstance(value, int) else 0


# Rows in one statement: each statement lets go of Python's lock, and a busy process gives it back late.
AT_ONCE = (1, 2, 4, 8, 16, 32)


def put_rows(connection: sqlite3.Connection, table: str, rows: Sequence[Sequence[object]]) -> None:
    """Write rows inside the caller's transaction; one with the same key gives way."""
    for start in range(0, len(rows), AT_ONCE[-1]):
        some = [*rows[start : start + AT_ONCE[-1]]]
        count = next(each for each in AT_ONCE if each >= len(some))
        # The last one again, in place of itself, is less than a statement for each rest.
        some += [some[-1]] * (count - len(some))
        connection.execute(_insert(table, len(some[0]), count), tuple(chain.from_iterable(some)))


@lru_cache
def _insert(table: str, columns: int, rows: int) -> str:
    marks = f"({', '.join('?' * columns)})"
    return f"INSERT OR REPLACE INTO {table} VALUES {', '.join([marks] * rows)}"  # noqa: S608


def put_note(connection: sqlite3.Connection, key: str, value: object) -> None:
    """Write a note inside the caller's transaction; None removes it."""
    if value is None:
        connection.execute("DELETE FROM meta WHERE key = ?", (key,))
    else:
        row = (key, value, sign("meta", key, value))
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", row)


def set_note(database: Database, key: str, value: object) -> None:
    """Write a note in a transaction of its own; None removes it."""
    database.write(lambda connection: put_note(connection, key, value))


def look_beside(path: Path) -> dict[str, object]:
    """What can be told of the journal at `path` while another process has it open: "schema", "feed",
    "account"; nothing of it when it cannot be read now. Whoever writes it waits for nothing."""
    try:
        with contextlib.closing(sqlite3.connect(file_uri(path, "ro"), uri=True, timeout=0)) as connection:
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            notes = connection.execute("SELECT key, value FROM meta WHERE key IN ('feed', 'account')")
            return {**dict(notes), "schema": schema}
    except sqlite3.Error as error:
        log.debug("the journal at %s cannot be looked at now: %s", path, error)
        return {}


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
