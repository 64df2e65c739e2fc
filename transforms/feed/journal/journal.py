"""The durable journal of one machine: takes events, gives them offsets, keeps them until all have them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter, id_conflict
from transforms.event import Chunk, Event
from transforms.feed.intake import Gap
from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.cursor import Books, Cursor
from transforms.feed.journal.database import Database, JournalError, check_identity, is_full, suspect_mark
from transforms.feed.journal.gaps import GapLog, Strays, insert_strays
from transforms.feed.journal.repair import open_or_salvage, settle_damage
from transforms.feed.journal.seen_ids import SeenIds, Sorted
from transforms.feed.journal.space import DirectoryLock, Reserve, Room, Trimmer


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
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(
                f"cannot create {directory}: {error.strerror}; choose another --state_dir"
            ) from error
        self._lock = DirectoryLock(directory)
        self._reserve = Reserve(directory / "reserve")
        try:
            self._database = self._open(database)
        except BaseException:
            self._lock.release()
            raise
        try:
            check_identity(self._database, "feed", feed_url, "reads the feed")
            self._load(dedupe_horizon)
            self._orphans = settle_damage(self._database, self._gaps, self._chunks, self.cursors)
        except BaseException:
            self._database.close()
            self._lock.release()
            raise
        self._reserve.restore()

    def _open(self, database: type[Database]) -> Database:
        path = self.directory / "journal.sqlite3"
        try:
            return open_or_salvage(path, database, self._reserve.release, self.clock.now())
        except (sqlite3.OperationalError, OSError) as error:
            # a full disk: the reserve is what lets the journal start on it
            if self._reserve.release():
                return self._open(database)
            raise JournalError(f"cannot open {path}: {error}; make room on its disk") from error

    def _load(self, horizon: float) -> None:
        now = self.clock.monotonic()
        self._chunks = ChunkStore(self._database, self.clock.now())
        self._strays = Strays(self._database)
        self._gaps = GapLog(self._database, self.clock, self._strays)
        self._seen = SeenIds(horizon)
        self._seen.load(_stored_ids(self._database), now)
        names = self._database.rows("SELECT name FROM cursors")
        self.cursors = {str(name): self._open_cursor(str(name)) for (name,) in names}
        self._chunks.begin_at(max([self._chunks.end, *(cursor.high for cursor in self.cursors.values())]))
        self.listeners: list[Callable[[], None]] = []
        self.duplicates = 0
        self.feed_dead_letters = 0
        self._taken_at = 0.0
        self._room = Room(self.directory, self._reserve, self.max_bytes, self.clock)
        self._trimmer = Trimmer(self._database, self._chunks, self._seen, self.clock)

    @property
    def end(self) -> int:
        """The offset that the next event will get."""
        return self._chunks.end

    @property
    def bytes(self) -> int:
        """Raw event bytes kept."""
        return self._chunks.bytes

    @property
    def is_suspect(self) -> bool:
        """Whether this run found it damaged: only the next start repairs it."""
        return suspect_mark(self._database.path).exists()

    def check_account(self, developer_id: str) -> None:
        """Record whose feed this is at the first call. Raises JournalError when it was another account's."""
        with self._database.lock:
            check_identity(self._database, "account", developer_id, "has the API key of")

    def _open_cursor(self, name: str) -> Cursor:
        return Cursor(name, self._database, self._chunks.events, lambda: self._chunks.end)

    def cursor(self, name: str) -> Cursor:
        """The cursor of a destination; a new one is born at the end of the journal.

        When a damaged journal lost its cursors, new ones are born before the events that could be read:
        some of them may be delivered twice, none is left out.
        """
        with self._database.lock:
            if name not in self.cursors:
                end = self._chunks.end
                born = end if self._orphans is None else min(end, max(self._orphans, self._chunks.trimmed))
                self._database.write(
                    lambda db: db.execute(
                        "INSERT INTO cursors (name, born, position) VALUES (?, ?, ?)", (name, born, born)
                    )
                )
                self.cursors[name] = self._open_cursor(name)
                if born < end:
                    self.cursors[name].lose(self._chunks.missing(born))
            return self.cursors[name]

    def forget(self, name: str) -> bool:
        """Drop a destination's cursor, so that it holds no events any more; False when there is none."""
        with self._database.lock:
            if name not in self.cursors:
                return False

            def write(connection: sqlite3.Connection) -> None:
                connection.execute("DELETE FROM seals WHERE destination = ?", (name,))
                connection.execute("DELETE FROM cursors WHERE name = ?", (name,))

            self._database.write(write)
            del self.cursors[name]
            return True

    def append(
        self, events: Sequence[Event], strays: Sequence[DeadLetter], heard_until: float | None = None
    ) -> int:
        """Take events and frames that are none; see `Intake.append`. Raises JournalFull."""
        with self._database.lock:
            self._room.check(self._chunks.bytes)
            taken = self._seen.sort_out(events)
            letters = [*strays, *(id_conflict(event, self.clock.now()) for event in taken.conflicts)]
            if taken.fresh or letters:
                self._store(taken, letters)
            self.duplicates += taken.duplicates
            self.feed_dead_letters += len(letters)
            self._gaps.heard(heard_until)
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
                sizes = self._chunks.insert(connection, chunks)
                if chunks:
                    ids = (chunks[0].first, len(taken.fresh), taken.packed)
                    connection.execute("INSERT INTO ids VALUES (?, ?, ?)", ids)
                insert_strays(connection, letters)
        except sqlite3.OperationalError as error:
            if is_full(error):
                raise self._room.full() from error
            raise
        self._chunks.committed(chunks, sizes)
        self._strays.added(len(letters))
        self._seen.add(taken, self._chunks.end - 1, self.clock.monotonic())

    def read(self, position: int, most_events: int) -> list[Chunk]:
        """Chunks from `position` on: about `most_events` events, at least one chunk when there is any."""
        with self._database.lock:
            return self._chunks.read(position, most_events)

    def strays(self) -> list[tuple[int, DeadLetter]]:
        """Numbered dead letters of the feed not yet written, oldest first, a hundred at most."""
        return self._strays.oldest()

    def drop_strays(self, up_to: int) -> None:
        """Forget the feed's dead letters up to a number: they are written."""
        with self._database.lock:
            self._strays.drop(up_to)

    def trim(self) -> None:
        """Delete what every cursor has passed, forget ids that are old enough, give disk back.

        Does nothing on a disk too full even for that; the events stay until the next call.
        """
        self._trimmer.trim(self._lowest)

    def _lowest(self) -> int:
        nobodys = self._chunks.end if self._orphans is None else self._orphans
        return min([cursor.position for cursor in self.cursors.values()], default=nobodys)

    def taken_at(self, position: int) -> float | None:
        """When the event at `position` (or the next one kept) was received, in epoch seconds."""
        with self._database.lock:
            return self._chunks.taken_at(position)

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

    def heard(self, until: float | None = None) -> None:
        """See `Intake.heard`."""
        with self._database.lock:
            self._gaps.heard(until)

    def open_gap(self, reason: str, since: float | None = None) -> None:
        """See `Intake.open_gap`."""
        with self._database.lock:
            self._gaps.begin(reason, since)

    def close_gap(self, until: float | None = None) -> None:
        """See `Intake.close_gap`."""
        with self._database.lock:
            had_gap = self._gaps.open is not None
            self._gaps.end(until)
        if had_gap:
            for listener in self.listeners:
                listener()

    def gaps(self) -> list[Gap]:
        """Every gap on record, oldest first."""
        return self._gaps.all()

    def latest_gaps(self, most: int) -> list[Gap]:
        """The last `most` gaps on record, newest first."""
        return self._gaps.latest(most)

    @property
    def gap_open(self) -> bool:
        """Whether events may be missed just now."""
        return self._gaps.open is not None

    @property
    def gap_total(self) -> int:
        """How many gaps this journal has seen."""
        return self._gaps.total

    def close(self) -> None:
        """Note when the feed was last heard, trim, close the file, release the directory."""
        with self._database.lock:
            try:
                self._gaps.note_heard()
                self.trim()
            finally:
                self._database.close()
                self._lock.release()


def _stored_ids(database: Database) -> Iterator[tuple[int, bytes]]:
    """(last offset, packed ids), oldest first, a few megabytes at a time."""
    first = -1
    while rows := database.rows(
        "SELECT first, first + count - 1, packed FROM ids WHERE first > ? ORDER BY first LIMIT 500", first
    ):
        for row in rows:
            first = int(str(row[0]))
            assert isinstance(row[2], bytes)
            yield int(str(row[1])), row[2]
