"""Feed gaps: intervals in which events may have been published that nobody received."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone

import msgspec

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.feed.journal.database import Database

log = logging.getLogger("grantex.feed")

KEEP_GAPS = 10_000  # rows; each is also in the dead letters, so the oldest may go
HEARD_EVERY = 5.0  # seconds between two notes on disk that the feed was alive


@dataclass(frozen=True)
class Gap:
    """Epoch seconds; `until` is None while the gap is open."""

    since: float
    until: float | None
    reason: str


class GapLog:
    """Keeps the journal's gap records. The journal's lock guards all calls."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        row = database.rows("SELECT value FROM meta WHERE key = 'heard'")
        self._heard = float(str(row[0][0])) if row else 0.0  # 0: this journal never heard a feed
        self._noted = clock.monotonic() - HEARD_EVERY
        open_gaps = database.rows("SELECT number, since, reason FROM gaps WHERE until IS NULL")
        self.open: Gap | None = None
        if open_gaps:
            self.open = Gap(float(str(open_gaps[0][1])), None, str(open_gaps[0][2]))
        self.total = int(str(database.rows("SELECT coalesce(max(number), 0) FROM gaps")[0][0]))

    def heard(self) -> None:
        """The feed is alive; on disk every few seconds, so a gap after a kill begins a little early."""
        self._heard = self._clock.now()
        if self._clock.monotonic() - self._noted >= HEARD_EVERY:
            self.note_heard()

    def note_heard(self) -> None:
        """Put the last moment the feed was heard on disk. A full disk is not worth failing for: the gap
        then begins earlier than it had to."""
        self._noted = self._clock.monotonic()
        if self._heard:
            try:
                self._database.write(self._save_heard)
            except sqlite3.OperationalError as error:
                log.debug("the time of the last sign of life was not noted: %s", error)

    def _save_heard(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('heard', ?)", (self._heard,))

    def begin(self, reason: str, since: float | None) -> None:
        """Open a gap unless one is open, or no feed was ever heard (nothing is missing then)."""
        if self.open is not None or not self._heard:
            return
        gap = Gap(self._heard if since is None else since, None, reason)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO gaps (since, reason) VALUES (?, ?)", (gap.since, gap.reason))
            connection.execute(
                "DELETE FROM gaps WHERE number <= (SELECT max(number) FROM gaps) - ?", (KEEP_GAPS,)
            )

        self._database.write(write)
        self.open = gap
        self.total += 1
        log.warning(
            "feed gap since %s: %s; events published until it closes are not received",
            _iso(gap.since),
            reason,
        )

    def end(self) -> None:
        """Close the open gap and put it among the dead letters, for whoever audits them."""
        if self.open is None:
            return
        gap = Gap(self.open.since, self._clock.now(), self.open.reason)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE gaps SET until = ? WHERE until IS NULL", (gap.until,))
            insert_strays(connection, [_as_dead_letter(gap)])

        self._database.write(write)
        self.open = None
        self._heard = max(self._heard, gap.until or 0.0)
        log.warning(
            "feed gap closed: %s to %s (%.1f s), %s; there is no replay: compare with the delivery ledger",
            _iso(gap.since),
            _iso(gap.until or 0.0),
            (gap.until or 0.0) - gap.since,
            gap.reason,
        )

    def all(self) -> list[Gap]:
        """Every gap on record, oldest first."""
        rows = self._database.rows("SELECT since, until, reason FROM gaps ORDER BY number")
        return [Gap(float(str(s)), None if u is None else float(str(u)), str(r)) for s, u, r in rows]


def insert_strays(connection: sqlite3.Connection, strays: list[DeadLetter]) -> None:
    """Keep dead letters of the feed until a lane has written them, inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO strays (body) VALUES (?)", [(msgspec.msgpack.encode(s),) for s in strays]
    )


def _as_dead_letter(gap: Gap) -> DeadLetter:
    until = gap.until or gap.since
    record = {
        "since": _iso(gap.since),
        "until": _iso(until),
        "seconds": round(until - gap.since, 3),
        "reason": gap.reason,
    }
    return DeadLetter(
        stage="feed",
        destination="",
        cause=f"feed_gap: {gap.reason}",
        raw=msgspec.json.encode(record),
        at=until,
    )


def _iso(epoch: float) -> str:
    return (
        datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
