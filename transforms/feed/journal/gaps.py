"""Feed gaps: intervals in which events may have been published that nobody received."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence

from transforms.clock import Clock, epoch_of, monotonic_of
from transforms.feed.intake import Gap, as_dead_letter, iso
from transforms.feed.journal.database import Database, note, put_note
from transforms.feed.journal.letters import FeedLetters
from transforms.feed.journal.schema import sign

log = logging.getLogger("grantex.feed")
KEEP_GAPS = 10_000  # rows; each is also in the dead letters, so the oldest may go
HEARD_EVERY = 5.0  # seconds between two notes on disk that the feed was alive
CORRECTED = 0.5  # seconds by which wall and monotonic clock differ when the wall clock was set


class GapLog:
    """Keeps the journal's gap records. The journal's lock guards all calls."""

    def __init__(self, database: Database, clock: Clock, letters: FeedLetters) -> None:
        self._database = database
        self._clock = clock
        self._letters = letters
        heard = note(database, "heard")
        # 0: this journal never heard a feed. Not in the future: the clock may have been set back since.
        self._heard = min(heard, clock.now()) if isinstance(heard, float) else 0.0
        self._heard_at = monotonic_of(self._clock, self._heard)
        self._noted = clock.monotonic() - HEARD_EVERY
        self.total = int(str(database.rows("SELECT coalesce(max(number), 0) FROM gaps")[0][0]))
        # Of those on record now, and later ones; an open one counts when it has ended.
        self.seconds = float(str(database.rows("SELECT coalesce(sum(until - since), 0.0) FROM gaps")[0][0]))
        self.open: Gap | None = None
        self._number = 0  # of the open gap
        self._opened = 0.0  # monotonic, when it began
        for number, since, reason in database.rows(
            "SELECT number, since, reason FROM gaps WHERE until IS NULL ORDER BY number LIMIT 1"
        ):
            self._open(Gap(min(float(str(since)), clock.now()), None, str(reason)), int(str(number)))
        self._until: float | None = None  # when the open gap ended, while that cannot be written

    def _open(self, gap: Gap, number: int) -> None:
        self.open, self._number, self._opened = gap, number, monotonic_of(self._clock, gap.since)

    def _not_later(self, since: float, at: float) -> float:
        """`since`, which was at `at` (monotonic); as the wall clock now has it, when it was set back."""
        corrected = epoch_of(self._clock, at)
        return corrected if since - corrected > CORRECTED else since

    def heard(self, until: float | None = None) -> None:
        """All that was published until then (epoch seconds; None: now) was taken; on disk every few seconds,
        so a gap after a kill begins a little early."""
        now, at = self._clock.now(), self._clock.monotonic()
        self._heard = now if until is None else until
        self._heard_at = at - (now - self._heard)
        if at - self._noted >= HEARD_EVERY:
            self.note_heard()

    def note_heard(self) -> None:
        """Put the last moment the feed was heard on disk. A full disk is not worth failing for, nor the
        reserve: the next gap then begins earlier than it had to."""
        self._noted = self._clock.monotonic()
        if self._until is not None:
            self._save_end()
        if self._heard:
            try:
                self._database.write(
                    lambda connection: put_note(connection, "heard", self._heard),
                    spend_reserve=False,
                    tries=1,
                )
            except sqlite3.OperationalError as error:
                log.debug("the time of the last sign of life was not noted: %s", error)

    def begin(self, reason: str, since: float | None) -> None:
        """Open a gap unless one is open, or no feed was ever heard (nothing is missing then)."""
        self._until = None  # if its end could not be written yet, the gap goes on
        if self.open is not None or not self._heard:
            return
        heard = self._not_later(self._heard, self._heard_at)
        gap = Gap(heard if since is None else min(since, self._clock.now()), None, reason)
        self.total += 1
        self._open(gap, self.total)
        try:
            self._database.write(lambda connection: _insert(connection, self._number, gap))
        except sqlite3.OperationalError as error:
            log.error("a feed gap is kept in memory only, until the journal can be written: %s", error)
        log.warning(
            "feed gap since %s: %s; events published until it closes are not received",
            iso(gap.since),
            reason,
        )

    @property
    def heard_until(self) -> float:
        """See `Journal.heard_until`."""
        return self._heard if self.open is None else self.open.since

    def withdraw(self) -> None:
        """Take the open gap off the record. Raises sqlite3.OperationalError."""
        if self.open is None:
            return
        number = self._number
        self._database.write(
            lambda connection: connection.execute("DELETE FROM gaps WHERE number = ?", (number,))
        )
        log.warning("the feed gap since %s was heard by the standby: it is none", iso(self.open.since))
        self.total -= 1
        self.open = self._until = None

    def end(self, until: float | None = None) -> None:
        """Close the open gap, now or at `until`; it goes among the dead letters, for whoever audits them."""
        if self.open is not None:
            self._until = self._clock.now() if until is None else until
            self._save_end()

    def _save_end(self) -> None:
        if self.open is None or self._until is None:
            return
        # A wall clock that was set back meanwhile has all of the gap earlier: it is as long as it was.
        since = self._not_later(self.open.since, self._opened)
        gap = Gap(since, max(since, self._until), self.open.reason)
        try:
            self._letters.keep(
                [as_dead_letter(gap)], lambda connection: _insert(connection, self._number, gap)
            )
        except sqlite3.OperationalError as error:
            log.error("the end of a feed gap will be written when the journal can be: %s", error)
            return
        self.seconds += gap.seconds
        ended = monotonic_of(self._clock, self._until)
        if ended > self._heard_at:
            self._heard, self._heard_at = self._until, ended
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


def _insert(connection: sqlite3.Connection, number: int, gap: Gap) -> None:
    row = (number, gap.since, gap.until, gap.reason)
    connection.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?)", (*row, sign("gaps", *row)))
    connection.execute("DELETE FROM gaps WHERE number <= (SELECT max(number) FROM gaps) - ?", (KEEP_GAPS,))
