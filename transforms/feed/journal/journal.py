"""The durable journal of one machine: takes events, gives them offsets, keeps them until all have them."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from transforms import event_types
from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter, id_conflict
from transforms.event import Chunk, Event
from transforms.feed.intake import NOT_HEARD, Gap
from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.cursor import UNKNOWN, Books, Cursor
from transforms.feed.journal.database import (
    Database,
    JournalDamaged,
    JournalUnavailable,
    check_identity,
    note,
    put_note,
    suspect_mark,
)
from transforms.feed.journal.gaps import GapLog
from transforms.feed.journal.kept_ids import KeptIds
from transforms.feed.journal.letters import FeedLetters
from transforms.feed.journal.proven import Proof, ProofLog
from transforms.feed.journal.receipt_log import ReceiptLog
from transforms.feed.journal.repair import open_or_repair, settle_damage
from transforms.feed.journal.seals import CursorRow, filtered_note
from transforms.feed.journal.seen_ids import SeenIds, Sifted, insert_ids, stored_ids
from transforms.feed.journal.space import (
    MOUNTS,
    DirectoryLock,
    Reserve,
    Room,
    Trimmer,
    refuse_network,
    refused,
)

log = logging.getLogger("grantex.journal")
APPEND_TRIES = 20  # of a quarter of a second: then `append` says that there is no room


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
        receipt_retention: float = 0.0,
        receipt_max_bytes: int = 1024**3,
        clock: Clock | None = None,
        database: type[Database] = Database,
        mounts: Path = MOUNTS,
    ) -> None:
        """Open or create the journal in `directory`.

        max_bytes: raw bytes kept at most; past it `append` raises JournalFull.
        dedupe_horizon: seconds for which an id is remembered.
        receipt_retention, receipt_max_bytes: how long (seconds, while it is open) and how many bytes of
            receipts and ids are kept, the oldest go first; 0: none.
        mounts: the system's list of mounted file systems.

        Raises JournalError: the directory is in use (DirectoryInUse), belongs to another feed or another
        version (NewerSchema), is on another machine or may not be written. Raises JournalUnavailable: a full
        disk and what else passes.
        """
        self.clock = clock or SystemClock()
        self.directory = directory
        self.max_bytes = max_bytes
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error, f"cannot create {directory}") from error
        refuse_network(directory, mounts)
        self._lock = DirectoryLock(directory)
        self._reserve = Reserve(directory / "reserve")
        try:
            self._database = self._open(database)
        except BaseException:
            self._lock.release()
            raise
        settings = (feed_url, dedupe_horizon, receipt_retention, receipt_max_bytes)
        try:
            try:
                self._prepare(*settings)
            except JournalDamaged:  # a chunk whose ids were to be read: repaired now
                self._database.close()
                self._database = self._open(database)
                self._prepare(*settings)
        except BaseException:
            self._database.close()
            self._lock.release()
            raise
        self._reserve.restore()

    def _open(self, database: type[Database]) -> Database:
        path = self.directory / "journal.sqlite3"
        try:
            return open_or_repair(path, database, self._reserve.release, self.clock.now())
        except (sqlite3.OperationalError, OSError) as error:
            # a full disk: the reserve is what lets the journal start on it
            if self._reserve.release():
                return self._open(database)
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error | OSError) -> Exception:
        what = f"cannot open {self.directory / 'journal.sqlite3'}"
        if isinstance(error, OSError):
            return refused(error, what)
        return JournalUnavailable(f"{what}: {error}; nothing is lost, and a later start can work")

    def _prepare(self, feed_url: str, horizon: float, retention: float, receipt_bytes: int) -> None:
        try:
            check_identity(self._database, "feed", feed_url, "reads the feed")
            self._load(horizon, retention, receipt_bytes)
            settle_damage(self._database, self._chunks, self._gaps, self.cursors)
            orphans = note(self._database, "orphans")
            self._orphans = orphans if isinstance(orphans, int) else None
        except sqlite3.OperationalError as error:
            raise self._unavailable(error) from error

    def _load(self, horizon: float, retention: float, receipt_bytes: int) -> None:
        now = self.clock.monotonic()
        self.cursors: dict[str, Cursor] = {}
        self._chunks = ChunkStore(self._database, self.clock.now(), lambda: len(self.cursors))
        self._letters = FeedLetters(self._database)
        self._gaps = GapLog(self._database, self.clock, self._letters)
        self._proofs = ProofLog(self._database, self._letters)
        self._seen = SeenIds(horizon)
        self._seen.load(stored_ids(self._database), now)
        self._receipts = ReceiptLog(self._database, on=retention > 0 and receipt_bytes > 0)
        self._kept = KeptIds(
            self._database, self._chunks, self._receipts, self.clock, retention, receipt_bytes
        )
        names = self._database.rows("SELECT name FROM cursors")
        self.cursors = {str(name): self._open_cursor(str(name)) for (name,) in names}
        self.listeners: list[Callable[[], None]] = []
        self.duplicates = 0
        self.by_type: Counter[str] = Counter()  # events taken since it was opened
        self.feed_dead_letters = 0
        self._taken_at = 0.0
        self._room = Room(self.directory, self._reserve, self.max_bytes, self.clock)
        self._trimmer = Trimmer(self._database, self._chunks, self._seen, self._kept, self._room, self.clock)

    @property
    def end(self) -> int:
        """The offset that the next event will get."""
        return self._chunks.end

    @property
    def bytes(self) -> int:
        """Raw event bytes kept, and the feed's dead letters that wait to be written."""
        return self._chunks.bytes + self._letters.bytes

    @property
    def is_suspect(self) -> bool:
        """Whether this run found it damaged: only the next start repairs it."""
        return self._database.is_suspect or suspect_mark(self._database.path).exists()

    def check_account(self, developer_id: str) -> None:
        """Record whose feed this is at the first call. Raises JournalError when it was another account's."""
        with self._database.lock:
            check_identity(self._database, "account", developer_id, "has the API key of")

    def _open_cursor(self, name: str) -> Cursor:
        end = lambda: self._chunks.end  # noqa: E731
        return Cursor(name, self._database, self._chunks.events, end, self._receipts)

    def cursor(self, name: str, exactly_once: bool = False) -> Cursor:
        """The cursor of a destination; a new one is born at the end of the journal.

        When a damaged journal lost its cursors, new ones are born before the events that could be read.
        exactly_once: events that may have been delivered, for all that a repaired journal knows, are not
        delivered (again) and become dead letters; else they may come twice, and none is left out.
        """
        with self._database.lock:
            if name not in self.cursors:
                self._add_cursor(name)
            cursor = self.cursors[name]
            doubtful = cursor.settle_doubt(exactly_once, self._letters, self.clock.now())
            if doubtful:
                log.error(
                    "%s: %d events may have been delivered before the journal was damaged; they are not sent "
                    "again and are among the dead letters (in_doubt)",
                    name,
                    doubtful,
                )
            return cursor

    def _add_cursor(self, name: str) -> None:
        born = self._chunks.end if self._orphans is None else self._orphans
        row = CursorRow(name, born, born, sealed=born)
        if born < self._chunks.end:
            row = row._replace(sealed=self._chunks.end, seals=UNKNOWN)
        names = sorted([*self.cursors, name])

        def write(connection: sqlite3.Connection) -> None:
            row.write(connection)
            put_note(connection, "destinations", json.dumps(names))

        self._database.write(write)
        cursor = self._open_cursor(name)
        if born < self._chunks.end:
            cursor.repair(self._chunks.missing(born))
        self.cursors[name] = cursor

    def forget(self, name: str) -> bool:
        """Drop a destination's cursor, so that it holds no events any more; False when there is none."""
        with self._database.lock:
            if name not in self.cursors:
                return False
            names = sorted(self.cursors.keys() - {name})

            def write(connection: sqlite3.Connection) -> None:
                connection.execute("DELETE FROM seals WHERE destination = ?", (name,))
                connection.execute("DELETE FROM cursors WHERE name = ?", (name,))
                put_note(connection, filtered_note(name), None)
                put_note(connection, "destinations", json.dumps(names))

            self._database.write(write)
            del self.cursors[name]
            return True

    def append(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None = None,
        connection: str = "",
    ) -> Sequence[Event]:
        """Take events and frames that are none; see `Intake.append`. Raises JournalFull."""
        with self._database.lock:
            self._room.check(self.bytes)
            taken = self._seen.sort_out(events)
            kept = [*letters, *(id_conflict(event, self.clock.now()) for event in taken.conflicts)]
            if taken.fresh or kept:
                self._store(taken, kept, connection)
            self.duplicates += taken.duplicates
            self.feed_dead_letters += len(kept)
            if heard_until != NOT_HEARD:
                self._gaps.heard(heard_until)
        if taken.fresh or kept:
            for listener in self.listeners:
                listener()
        return taken.fresh

    def _store(self, taken: Sifted, letters: list[DeadLetter], source: str) -> None:
        self._taken_at = max(self._taken_at, self.clock.now())  # arrival times never step back
        chunks = self._chunks.split(taken.fresh, self._taken_at)
        kept = self._kept.add(taken.fresh, self._taken_at, source)
        sizes: list[int] = []
        letter_bytes = 0

        def write(connection: sqlite3.Connection) -> None:
            nonlocal sizes, letter_bytes
            sizes = self._chunks.insert(connection, chunks)
            if chunks:
                insert_ids(connection, chunks[0].first, len(taken.fresh), taken.packed)
                self._kept.write(connection, kept)
                if self._orphans is not None:  # every destination there is has its cursor by now
                    put_note(connection, "orphans", None)
            letter_bytes = self._letters.insert(connection, letters)

        try:
            # the reserve is kept for receipts, not for more events
            self._database.write(write, spend_reserve=False, tries=APPEND_TRIES)
        except sqlite3.OperationalError as error:
            refusal = self._room.refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        if chunks:
            self._orphans = None
        self._chunks.committed(chunks, sizes)
        self._kept.added(kept)
        self._letters.inserted(len(letters), letter_bytes)
        self._seen.add(taken, self._chunks.end - 1, self.clock.monotonic())
        self.by_type.update(event_types.counted(taken.fresh))

    def read(self, position: int, most_events: int) -> list[Chunk]:
        """Chunks from `position` on: about `most_events` events, at least one chunk when there is any."""
        with self._database.lock:
            return self._chunks.read(position, most_events)

    def dead_letters(self) -> list[tuple[int, DeadLetter]]:
        """Numbered dead letters of the feed not yet written, oldest first, some when they are many."""
        with self._database.lock:
            return self._letters.oldest()

    def drop_dead_letters(self, up_to: int) -> None:
        """Forget the feed's dead letters up to a number: they are written."""
        with self._database.lock:
            self._letters.drop(up_to)

    def trim(self) -> None:
        """Delete what every cursor has passed, forget ids that are old enough, give disk back.

        Does nothing on a disk too full even for that; the events stay until the next call.
        """
        self._trimmer.trim(self._lowest)

    def _lowest(self) -> int:
        positions = [cursor.position for cursor in self.cursors.values()]
        if self._orphans is not None:
            positions.append(self._orphans)
        return min(positions, default=self._chunks.end)

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
            return {name: cursor.books() for name, cursor in self.cursors.items()}

    def unbalanced(self, patience: float) -> list[str]:
        """Destinations whose books do not balance; none are known when the journal is busy for longer than
        `patience` seconds."""
        if not self._database.lock.acquire(timeout=patience):
            return []
        try:
            return [name for name, books in self.books().items() if not books.balanced]
        finally:
            self._database.lock.release()

    @property
    def heard_until(self) -> float:
        """Everything that was published before is here or in a recorded gap: epoch seconds, 0 when this
        journal never heard a feed. While a gap is open, its beginning."""
        with self._database.lock:
            return self._gaps.heard_until

    def gap_was_heard(self) -> None:
        """What was published since the open gap began was heard by another process, so it is none."""
        with self._database.lock:
            self._gaps.withdraw()

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

    def received(self, ids: Sequence[str]) -> list[bool]:
        """Whether each of these events was received, as far as ids are known (`ids_known_since`)."""
        with self._database.lock:
            return self._seen.known(ids)

    @property
    def keeps_receipts(self) -> bool:
        """Whether ids are kept beyond those of `received`, for `Receipts` to look for."""
        return self._receipts.on

    @property
    def ids_known_since(self) -> float:
        """Ids of all events received since then (epoch seconds) are known."""
        return self.clock.now() - self._seen.reach(self.clock.monotonic())

    @property
    def proof(self) -> Proof:
        """Until when the feed is known to be complete, and how many are missing."""
        return self._proofs.proof

    @property
    def missing(self) -> Sequence[str]:
        """Ids of the events that are missing, oldest first; the last ten thousand of them."""
        return self._proofs.missing

    def keep_proof(self, proof: Proof, letters: Sequence[DeadLetter], found: Collection[str]) -> None:
        """Record a proof with what is new in it, all or nothing; see `ProofLog.keep`."""
        with self._database.lock:
            self._proofs.keep(proof, letters, found)
            self.feed_dead_letters += len(letters)

    @property
    def gap_seconds(self) -> float:
        """How long the gaps on record were together; 10,000 are kept."""
        return self._gaps.seconds

    def close(self) -> None:
        """Note when the feed was last heard, trim, close the file, release the directory."""
        with self._database.lock:
            try:
                self._gaps.note_heard()
                self._trimmer.close()
                self.trim()
            finally:
                self._database.close()
                self._lock.release()
