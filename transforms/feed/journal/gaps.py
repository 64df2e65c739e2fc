"""Feed gaps: intervals in which events may have been published that nobody received."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.feed.intake import Gap, as_dead_letter, iso
from transforms.feed.journal.database import Database

AT_ONCE = 100
_encode = msgspec.msgpack.Encoder().encode
decode_stray = msgspec.msgpack.Decoder(DeadLetter).decode


class Strays:
    """Numbered dead letters without an event's offset. The journal's lock guards all calls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting = self._count()

    def added(self, number: int) -> None:
        """So many were committed with `insert_strays`."""
        self._waiting += number

    def oldest(self) -> list[tuple[int, DeadLetter]]:
        """The first hundred; asking costs nothing while there are none."""
        if not self._waiting:
            return []
        rows = self._database.rows("SELECT number, body FROM strays ORDER BY number LIMIT ?", AT_ONCE)
        return [(int(str(number)), decode_stray(body)) for number, body in rows if isinstance(body, bytes)]

    def drop(self, up_to: int) -> None:
        """Forget those up to a number: they are written."""
        self._database.write(lambda db: db.execute("DELETE FROM strays WHERE number <= ?", (up_to,)))
        self._waiting = self._count()

    def _count(self) -> int:
        return int(str(self._database.rows("SELECT count(*) FROM strays")[0][0]))


def insert_strays(connection: sqlite3.Connection, strays: Sequence[DeadLetter]) -> None:
    """Keep dead letters, inside the caller's transaction."""
    connection.executemany("INSERT INTO strays (body) VALUES (?)", [(_encode(stray),) for stray in strays])


log = logging.getLogger("grantex.feed")
KEEP_GAPS = 10_000  # rows; each is also in the dead letters, so the oldest may go
HEARD_EVERY = 5.0  # seconds between two notes on disk that the feed was alive


class GapLog:
    """Keeps the journal's gap records. The journal's lock guards all calls."""

    def __init__(self, database: Database, clock: Clock, strays: Strays) -> None:
        self._database = database
        self._clock = clock
        self._strays = strays
        row = database.rows("SELECT value FROM meta WHERE key = 'heard'")
        self._heard = float(str(row[0][0])) if row else 0.0  # 0: this journal never heard a feed
        self._noted = clock.monotonic() - HEARD_EVERY
        open_gaps = database.rows("SELECT since, reason FROM gaps WHERE until IS NULL ORDER BY number")
        self.open: Gap | None = None
        if open_gaps:
            self.open = Gap(float(str(open_gaps[0][0])), None, str(open_gaps[0][1]))
        self._saved = True  # the open gap has a row
        self._until: float | None = None  # when the open gap ended, while that cannot be written
        self.total = int(str(database.rows("SELECT coalesce(max(number), 0) FROM gaps")[0][0]))

    def heard(self, until: float | None = None) -> None:
        """All that was published until then (epoch seconds; None: now) was taken; on disk every few seconds,
        so a gap after a kill begins a little early."""
        self._heard = self._clock.now() if until is None else until
        if self._clock.monotonic() - self._noted >= HEARD_EVERY:
            self.note_heard()

    def note_heard(self) -> None:
        """Put the last moment the feed was heard on disk. A full disk is not worth failing for, nor the
        reserve: the next gap then begins earlier than it had to."""
        self._noted = self._clock.monotonic()
        if self._until is not None:
            self._save_end()
        if self._heard:
            try:
                with self._database.transaction() as connection:
                    connection.execute("INSERT OR REPLACE INTO meta VALUES ('heard', ?)", (self._heard,))
            except sqlite3.OperationalError as error:
                log.debug("the time of the last sign of life was not noted: %s", error)

    def heard_by(self, at: float) -> None:
        """A feed was heard at `at` at the latest, when nothing else is known (a damaged journal)."""
        self._heard = self._heard or at

    def begin(self, reason: str, since: float | None) -> None:
        """Open a gap unless one is open, or no feed was ever heard (nothing is missing then)."""
        self._until = None  # if its end could not be written yet, the gap goes on
        if self.open is not None or not self._heard:
            return
        gap = self.open = Gap(self._heard if since is None else since, None, reason)
        self.total += 1
        try:
            self._database.write(lambda connection: _insert(connection, gap))
            self._saved = True
        except sqlite3.OperationalError as error:
            self._saved = False
            log.error("a feed gap is kept in memory only, until the journal can be written: %s", error)
        log.warning(
            "feed gap since %s: %s; events published until it closes are not received",
            iso(gap.since),
            reason,
        )

    def end(self, until: float | None = None) -> None:
        """Close the open gap, now or at `until`; it goes among the dead letters, for whoever audits them."""
        if self.open is not None:
            until = self._clock.now() if until is None else until
            self._until = max(self.open.since, until)  # the wall clock may have been set back
            self._save_end()

    def _save_end(self) -> None:
        if self.open is None or self._until is None:
            return
        gap = Gap(self.open.since, self._until, self.open.reason)

        def write(connection: sqlite3.Connection) -> None:
            if self._saved:
                connection.execute("UPDATE gaps SET until = ? WHERE until IS NULL", (gap.until,))
            else:
                _insert(connection, gap)
            insert_strays(connection, [as_dead_letter(gap)])

        try:
            self._database.write(write)
        except sqlite3.OperationalError as error:
            log.error("the end of a feed gap will be written when the journal can be: %s", error)
            return
        self._strays.added(1)
        self._heard = max(self._heard, self._until)
        self.open = self._until = None
        log.warning(
            "feed gap closed: %s to %s (%.1f s), %s; there is no replay: compare with the delivery ledger",
            iso(gap.since),
            iso(gap.until or 0.0),
            (gap.until or 0.0) - gap.since,
            gap.reason,
        )

    def all(self) -> list[Gap]:
        """Every gap on record, oldest first."""
        return _read(self._database.rows("SELECT since, until, reason FROM gaps ORDER BY number"))

    def latest(self, most: int) -> list[Gap]:
        """The last gaps on record, newest first."""
        return _read(
            self._database.rows("SELECT since, until, reason FROM gaps ORDER BY number DESC LIMIT ?", most)
        )


def _read(rows: Iterable[Sequence[object]]) -> list[Gap]:
    return [Gap(float(str(s)), None if u is None else float(str(u)), str(r)) for s, u, r in rows]


def _insert(connection: sqlite3.Connection, gap: Gap) -> None:
    connection.execute(
        "INSERT INTO gaps (since, until, reason) VALUES (?, ?, ?)", (gap.since, gap.until, gap.reason)
    )
    connection.execute("DELETE FROM gaps WHERE number <= (SELECT max(number) FROM gaps) - ?", (KEEP_GAPS,))
