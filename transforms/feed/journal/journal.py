"""The durable journal of one machine: takes events, gives them offsets, keeps them until all have them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event
from transforms.feed.intake import JournalFull
from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.cursor import Cursor
from transforms.feed.journal.database import Database, JournalError, is_full
from transforms.feed.journal.disk import DirectoryLock, Reserve, too_little_free
from transforms.feed.journal.gaps import Gap, GapLog, insert_strays
from transforms.feed.journal.salvage import open_or_salvage
from transforms.feed.journal.seen_ids import SeenIds, Sorted

log = logging.getLogger("grantex.journal")

CHECK_DISK_EVERY = 1.0  # seconds
EXPIRE_EVERY = 30.0  # seconds
GIVE_BACK_BYTES = 8 * 1024 * 1024  # trimmed since the last time disk was given back

_decode_stray = msgspec.msgpack.Decoder(DeadLetter).decode


@dataclass(frozen=True)
class Books:
    """One destination's account since its cursor was born, in events."""

    received: int
    delivered: int
    dead_lettered: int
    pending: int
    lost: int = 0  # with a damaged journal

    @property
    def balanced(self) -> bool:
        """received = delivered + dead-lettered + pending + lost; `pending` is counted by itself."""
        return self.received == self.delivered + self.dead_lettered + self.pending + self.lost


class Journal:
    """Events as received, a cursor for each destination, and the feed's gaps, ids and dead letters.

    Safe to use from every thread. An event is received once `append` has returned.
    """

    def __init__(
        self,
        directory: Path,
        *,
        feed_url: str,
        max_bytes: int = 10 * 1024**3,
        dedupe_horizon: float = 3600.0,
        clock: Clock | None = None,
        database: type[Database] = Database,
    ) -> None:
        """Open or create the journal in `directory`.

        max_bytes: raw event bytes kept at most; past it `append` raises JournalFull.
        dedupe_horizon: seconds for which an id is remembered.

        Raises JournalError: the directory is in use, belongs to another feed, or to another version.
        """
        self.clock = clock or SystemClock()
        self.directory = directory
        self.max_bytes = max_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = DirectoryLock(directory)
        self._reserve = Reserve(directory / "reserve")
        try:
            self._database, salvaged = open_or_salvage(
                directory / "journal.sqlite3", database, self._reserve.release, self.clock.now()
            )
            self._check_identity("feed", feed_url, "reads the feed")
            self._load(dedupe_horizon)
        except BaseException:
            self._lock.release()
            raise
        if salvaged:
            self._gaps.begin("the journal was damaged", None)
            for cursor in self.cursors.values():
                cursor.lose(self._chunks.missing(cursor.position))
        self._reserve.restore()

    def _load(self, horizon: float) -> None:
        self._chunks = ChunkStore(self._database)
        self._gaps = GapLog(self._database, self.clock)
        self._seen = SeenIds(horizon)
        now = self.clock.monotonic()
        rows = self._database.rows("SELECT first + count - 1, packed FROM ids ORDER BY first")
        if rows:
            self._seen.load([row[1] for row in rows if isinstance(row[1], bytes)], int(str(rows[-1][0])), now)
        names = self._database.rows("SELECT name FROM cursors")
        self.cursors = {str(name): self._open_cursor(str(name)) for (name,) in names}
        self._chunks.begin_at(max([self._chunks.end, *(cursor.high for cursor in self.cursors.values())]))
        self.listeners: list[Callable[[], None]] = []
        self.duplicates = 0
        self.feed_dead_letters = 0
        self._strays = int(str(self._database.rows("SELECT count(*) FROM strays")[0][0]))
        self._disk_checked = self._expired = now
        self._disk_short = False
        self._taken_at = 0.0
        self._freed = 0

    @property
    def end(self) -> int:
        """The offset that the next event will get."""
        return self._chunks.end

    @property
    def bytes(self) -> int:
        """Raw event bytes kept."""
        return self._chunks.bytes

    def _check_identity(self, key: str, value: str, what: str) -> None:
        row = self._database.rows("SELECT value FROM meta WHERE key = ?", key)
        if not row:
            self._database.write(lambda db: _set_meta(db, key, value))
        elif row[0][0] != value:
            raise JournalError(
                f"{self.directory} holds the journal of another {key} ({row[0][0]}), this run {what} "
                f"{value}: choose another --state_dir, so that two feeds are never mixed"
            )

    def check_account(self, developer_id: str) -> None:
        """Record whose feed this is at the first call. Raises JournalError when it was another account's."""
        with self._database.lock:
            self._check_identity("account", developer_id, "has the API key of")

    def _open_cursor(self, name: str) -> Cursor:
        return Cursor(name, self._database, self._chunks.events, lambda: self._chunks.end)

    def cursor(self, name: str) -> Cursor:
        """The cursor of a destination; a new one is born at the end of the journal."""
        with self._database.lock:
            if name not in self.cursors:
                born = self._chunks.end
                self._database.write(
                    lambda db: _run(
                        db, "INSERT INTO cursors (name, born, position) VALUES (?, ?, ?)", name, born, born
                    )
                )
                self.cursors[name] = self._open_cursor(name)
            return self.cursors[name]

    def forget(self, name: str) -> bool:
        """Drop a destination's cursor, so that it holds no events any more; False when there is none."""
        with self._database.lock:
            if self.cursors.pop(name, None) is None:
                return False

            def write(connection: sqlite3.Connection) -> None:
                _run(connection, "DELETE FROM seals WHERE destination = ?", name)
                _run(connection, "DELETE FROM cursors WHERE name = ?", name)

            self._database.write(write)
            return True

    def append(self, events: Sequence[Event], strays: Sequence[DeadLetter]) -> int:
        """Take events and frames that are none; see `Intake.append`. Raises JournalFull."""
        with self._database.lock:
            self._check_room()
            taken = self._seen.sort_out(events)
            letters = [*strays, *(_conflict(event, self.clock.now()) for event in taken.conflicts)]
            if taken.fresh or letters:
                self._store(taken, letters)
            self.duplicates += taken.duplicates
            self.feed_dead_letters += len(letters)
            self._gaps.heard()
        if taken.fresh or letters:
            for listener in self.listeners:
                listener()
        return len(taken.fresh)

    def _store(self, taken: Sorted, letters: list[DeadLetter]) -> None:
        self._taken_at = max(self._taken_at, self.clock.now())  # arrival times never step back
        chunks = self._chunks.split(taken.fresh, self._taken_at)
        try:
            # not through `write`: the reserve is kept for receipts, not for more events
            with self._database.transaction() as connection:
                self._chunks.insert(connection, chunks)
                if chunks:
                    _run(
                        connection,
                        "INSERT INTO ids VALUES (?, ?, ?)",
                        chunks[0].first,
                        len(taken.fresh),
                        taken.packed,
                    )
                insert_strays(connection, letters)
        except sqlite3.OperationalError as error:
            if is_full(error):
                self._disk_short, self._disk_checked = True, self.clock.monotonic()
                raise JournalFull(f"the disk of {self.directory} is full") from error
            raise
        self._chunks.committed(chunks)
        self._strays += len(letters)
        self._seen.add(taken, self._chunks.end - 1, self.clock.monotonic())

    def _check_room(self) -> None:
        now = self.clock.monotonic()
        if now - self._disk_checked >= CHECK_DISK_EVERY:
            self._disk_checked = now
            self._disk_short = too_little_free(self.directory) or not self._reserve.restore()
        if self._disk_short:
            raise JournalFull(f"the disk of {self.directory} has too little room left")
        if self._chunks.bytes >= self.max_bytes:
            raise JournalFull(f"the journal holds --journal_max_bytes={self.max_bytes} bytes")

    def read(self, position: int, most_events: int) -> list[Chunk]:
        """Chunks from `position` on: about `most_events` events, at least one chunk when there is any."""
        with self._database.lock:
            return self._chunks.read(position, most_events)

    def strays(self) -> list[tuple[int, DeadLetter]]:
        """Numbered dead letters of the feed not yet written, oldest first, a hundred at most."""
        if not self._strays:
            return []
        rows = self._database.rows("SELECT number, body FROM strays ORDER BY number LIMIT 100")
        return [(int(str(number)), _decode_stray(body)) for number, body in rows if isinstance(body, bytes)]

    def drop_strays(self, up_to: int) -> None:
        """Forget the feed's dead letters up to a number: they are written."""
        with self._database.lock:
            self._database.write(lambda db: _run(db, "DELETE FROM strays WHERE number <= ?", up_to))
            self._strays = int(str(self._database.rows("SELECT count(*) FROM strays")[0][0]))

    def trim(self) -> None:
        """Delete what every cursor has passed, forget ids that are old enough, give disk back."""
        with self._database.lock:
            positions = [cursor.position for cursor in self.cursors.values()]
            self._freed += self._chunks.trim(min(positions, default=self._chunks.end))
            now = self.clock.monotonic()
            if now - self._expired >= EXPIRE_EVERY:
                self._expired = now
                forgotten = self._seen.expire(now, self._chunks.trimmed)
                if forgotten:
                    self._database.write(lambda db: _run(db, "DELETE FROM ids WHERE first < ?", forgotten))
            if self._freed >= GIVE_BACK_BYTES:
                self._freed = 0
                self._database.give_back()

    def pending_bytes(self, position: int) -> int:
        """About how many raw bytes wait from `position` on."""
        return self._chunks.bytes_from(position)

    def books(self) -> dict[str, Books]:
        """Every destination's account, removed ones that still hold events included."""
        with self._database.lock:
            return {
                name: Books(self._chunks.end - c.born, c.delivered, c.dead_lettered, c.pending, c.lost)
                for name, c in self.cursors.items()
            }

    def heard(self) -> None:
        """See `Intake.heard`."""
        with self._database.lock:
            self._gaps.heard()

    def open_gap(self, reason: str, since: float | None = None) -> None:
        """See `Intake.open_gap`."""
        with self._database.lock:
            self._gaps.begin(reason, since)

    def close_gap(self) -> None:
        """See `Intake.close_gap`."""
        with self._database.lock:
            had_gap = self._gaps.open is not None
            self._gaps.end()
            self._strays += had_gap
        if had_gap:
            for listener in self.listeners:
                listener()

    def gaps(self) -> list[Gap]:
        """Every gap on record, oldest first."""
        return self._gaps.all()

    @property
    def gap_total(self) -> int:
        """How many gaps this journal has seen."""
        return self._gaps.total

    def close(self) -> None:
        """Note when the feed was last heard, trim, close the file, release the directory."""
        with self._database.lock:
            self._gaps.note_heard()
            self.trim()
            self._database.close()
            self._lock.release()


def _conflict(event: Event, now: float) -> DeadLetter:
    return DeadLetter(
        stage="feed",
        destination="",
        cause="id_conflict: this id came before with other bytes; the first ones were delivered",
        raw=event.raw,
        event_id=event.id,
        at=now,
    )


def _run(connection: sqlite3.Connection, statement: str, *parameters: object) -> None:
    connection.execute(statement, parameters)


def _set_meta(connection: sqlite3.Connection, key: str, value: object) -> None:
    _run(connection, "INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)
