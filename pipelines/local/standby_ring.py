"""What a standby has heard: events in memory, and since when nothing is missing between them.

Until `hand_over` it is the intake of the standby's connections; from then on it passes everything on to the
journal, after what it holds. So the streams go on as they are.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from transforms.clock import Clock, epoch_of, monotonic_of
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import JournalFull
from transforms.feed.journal import Journal

log = logging.getLogger("grantex.standby")

# Beside its bytes: an event is an object with three texts, and what arrives together a row. Measured: 100,000
# events of 278 bytes take 596 bytes each by 400, and 900 one by one.
EVENT_BYTES = 330
ITEM_BYTES = 330
APPEND_EVENTS = 5_000  # in one transaction of the journal: as many rows as arrived would take seconds
# Of the time for which the journal knows ids: what the other process had taken long ago, it may not know.
KNOWN = 0.5


@dataclass(slots=True)
class _Heard:
    """Events that arrived together. at: when; until: what was published until then had been received. Both
    monotonic seconds."""

    at: float
    until: float
    events: Sequence[Event]
    letters: Sequence[DeadLetter]
    size: int
    connection: str


@dataclass(slots=True)
class _Hole:
    """An interval in which no stream of the standby heard the feed, in monotonic seconds; until None: now."""

    since: float
    until: float | None
    reason: str
    size: int = ITEM_BYTES

    def holds(self, at: float) -> bool:
        """Whether `at` lies in it."""
        return self.since <= at and (self.until is None or at < self.until)


class StandbyRing:
    """Safe for threads. It keeps the newest events that fit into `most_bytes` of memory."""

    def __init__(self, most_bytes: int, dedupe_horizon: float, clock: Clock) -> None:
        """dedupe_horizon: for how many seconds the journal will know ids."""
        self.most_bytes = most_bytes
        self.events = 0  # held
        self.bytes = 0
        self.account = ""  # whose feed it is, once that is known
        self._horizon = dedupe_horizon
        self._clock = clock
        self._lock = threading.Lock()
        self._items: deque[_Heard | _Hole] = deque()
        self._reaches = math.inf  # nothing is missing since then but for the holes; infinite before a stream
        self._why = "not running"  # why nothing is known of what was before
        self._hole: _Hole | None = None  # the one that is open, the last item
        self._heard = -math.inf
        self._journal: Journal | None = None
        self._taken_from = -math.inf  # until when the process before had received everything
        self._through = False  # empty, and the journal takes everything itself

    @property
    def reaches_back_to(self) -> float | None:
        """Epoch seconds since when it holds everything but for its holes; None before its first stream."""
        reaches = self._reaches
        return None if reaches == math.inf else epoch_of(self._clock, reaches)

    def append(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None = None,
        connection: str = "",
    ) -> Sequence[Event] | None:
        """See `Intake.append`. While standing by it is never full: the oldest events go. Raises JournalFull
        while the journal has no room for what it holds."""
        if not self._through:
            with self._lock:
                if self._journal is None:
                    self._keep(events, letters, heard_until, connection)
                    return None
                self._pass_on(self._journal)
        assert self._journal is not None
        return self._journal.append(events, letters, heard_until, connection)

    def heard(self, until: float | None = None) -> None:
        """See `Intake.heard`."""
        if not self._through:
            with self._lock:
                at = self._clock.monotonic() if until is None else monotonic_of(self._clock, until)
                self._heard = max(self._heard, at)
                if not self._try_to_pass_on():
                    return
        assert self._journal is not None
        self._journal.heard(until)

    def open_gap(self, reason: str, since: float | None = None) -> None:
        """See `Intake.open_gap`."""
        if not self._through:
            with self._lock:
                if self._hole is None and self._reaches < math.inf:
                    at = self._clock.monotonic() if since is None else monotonic_of(self._clock, since)
                    self._hole = _Hole(at, None, reason)
                    self._add(self._hole)
                if not self._try_to_pass_on():
                    return
        assert self._journal is not None
        self._journal.open_gap(reason, since)

    def close_gap(self, until: float | None = None) -> None:
        """See `Intake.close_gap`."""
        if not self._through:
            with self._lock:
                at = self._clock.monotonic() if until is None else monotonic_of(self._clock, until)
                self._reaches = min(self._reaches, at)
                if self._hole is not None:
                    self._hole.until = at
                    self._hole = None
                if not self._try_to_pass_on():
                    return
        assert self._journal is not None
        self._journal.close_gap(until)

    def check_account(self, developer_id: str) -> None:
        """See `AccountIntake.check_account`. Raises JournalError."""
        with self._lock:
            self.account = developer_id
            journal = self._journal
        if journal is not None:
            journal.check_account(developer_id)

    def hand_over(self, journal: Journal) -> None:
        """Append what is held to the journal that the other process has left, and from now on everything.

        Only what neither that process nor this one heard is a gap. Ids that it has taken fall out there.
        Raises JournalError when it is another account's.
        """
        with self._lock:
            if self.account:
                journal.check_account(self.account)
            if journal.heard_until:
                self._taken_from = monotonic_of(self._clock, journal.heard_until)
            reaches = None if self._reaches == math.inf else self._reaches
            first = _Hole(-math.inf, reaches, self._why)
            if reaches is None:
                self._hole = first
            self._items.appendleft(first)
            self.bytes += first.size
            holes = [item for item in self._items if isinstance(item, _Hole)]
            if journal.gap_open and not any(hole.holds(self._taken_from) for hole in holes):
                journal.gap_was_heard()
            held, self._journal = self.events, journal
            if self._try_to_pass_on():
                log.info(
                    "took over: %d events heard while standing by are in the journal or were there", held
                )

    def _keep(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None,
        connection: str,
    ) -> None:
        at = self._clock.monotonic()
        until = at if heard_until is None else monotonic_of(self._clock, heard_until)
        size = ITEM_BYTES + EVENT_BYTES * (len(events) + len(letters))
        size += sum([len(event.raw) for event in events]) + sum([len(letter.raw) for letter in letters])
        self.events += len(events)
        self._heard = max(self._heard, until)
        self._add(_Heard(at, until, events, letters, size, connection))

    def _add(self, item: _Heard | _Hole) -> None:
        self._items.append(item)
        self.bytes += item.size
        while self.bytes > self.most_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._pop()
        if isinstance(oldest, _Heard):
            self._reaches = max(self._reaches, oldest.at)
        elif oldest.until is None:  # until it is closed, nothing is known to be there
            self._reaches, self._hole = math.inf, None
        else:
            self._reaches = max(self._reaches, oldest.until)
        self._why = f"neither process heard it, or --standby_bytes={self.most_bytes} did not reach back to it"

    def _pop(self) -> _Heard | _Hole:
        item = self._items.popleft()
        self.bytes -= item.size
        self.events -= len(item.events) if isinstance(item, _Heard) else 0
        return item

    def _try_to_pass_on(self) -> bool:
        """Whether all that was heard is in the journal now; False while there is none."""
        if self._journal is None:
            return False
        try:
            self._pass_on(self._journal)
        except JournalFull as full:
            log.debug("%d events heard while standing by wait for room: %s", self.events, full)
        return self._through

    def _pass_on(self, journal: Journal) -> None:
        """Everything in the order in which it came. Raises JournalFull; what is left stays."""
        while self._items:
            item = self._items[0]
            if isinstance(item, _Hole):
                self._record(journal, item)
                self._pop()
            else:
                self._append_some(journal)
        if self._heard > -math.inf:
            journal.heard(epoch_of(self._clock, max(self._heard, self._taken_from)))
        self._through = True

    def _record(self, journal: Journal, hole: _Hole) -> None:
        """The part of it that the other process did not hear is a gap."""
        if hole.until is not None and hole.until <= self._taken_from:
            return
        since = max(hole.since, self._taken_from)
        journal.open_gap(hole.reason, epoch_of(self._clock, since) if since > -math.inf else None)
        if hole.until is not None:
            journal.close_gap(epoch_of(self._clock, hole.until))

    def _append_some(self, journal: Journal) -> None:
        known_since = self._clock.monotonic() - self._horizon * KNOWN
        events: list[Event] = []
        letters: list[DeadLetter] = []
        until, number, connection = -math.inf, 0, ""
        for item in self._items:
            if isinstance(item, _Hole) or len(events) >= APPEND_EVENTS:
                break
            if number and item.connection != connection:
                break
            connection = item.connection
            number += 1
            until = item.until
            if item.at > self._taken_from:
                letters += item.letters  # they have no id by which a repeat would be known
            if item.at > min(self._taken_from, known_since):
                events += item.events
        if events or letters:
            journal.append(events, letters, epoch_of(self._clock, max(until, self._taken_from)), connection)
        for _ in range(number):
            self._pop()
