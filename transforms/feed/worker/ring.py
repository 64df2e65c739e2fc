"""The ring: what one connection received and no bundle has committed yet, in memory, bounded in bytes."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import Gap, JournalFull, as_dead_letter
from transforms.feed.worker.range import OPEN_END
from transforms.held import HELD

# What Python adds to the raw bytes: measured 330 bytes for an event of the practice feed, id and time
# included, and 240 for the entry that holds those which came together.
EVENT_BYTES = 330
ENTRY_BYTES = 240
PLACE = "the worker's memory for the feed"
ADVICE = "the job's stages behind the feed are too slow: look for the one that is, or give it more workers"
ADVICE_HELD = "put that destination right, or drain the job (what it holds then becomes dead letters)"
# A full ring holds up the socket this long before the connection says that it pauses.
PUSH_BACK = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What was taken at once: events, then dead letters, each with an offset of its own from `first` on.

    taken_at: epoch seconds.
    heard_before, heard_until: until when all that was published lies before it, and with it; epoch seconds.
    """

    first: int
    events: Sequence[Event]
    letters: Sequence[DeadLetter]
    taken_at: float
    heard_before: float
    heard_until: float
    size: int

    @property
    def end(self) -> int:
        """The offset after the last one."""
        return self.first + len(self.events) + len(self.letters)


@dataclass(frozen=True)
class Part:
    """Neighbouring entries, read together: `events` have the offsets from `first` on, letters follow them.

    oldest: when the first of them was taken, epoch seconds.
    heard_until: until when all that was published lies below `end`, epoch seconds.
    """

    first: int
    end: int
    events: Sequence[Event]
    letters: Sequence[DeadLetter]
    oldest: float
    heard_until: float


class Ring:
    """An Intake in memory; safe for all threads.

    Only `evict` makes room, and it is called for offsets that are committed: until then a full ring pushes
    back on the socket. Gaps become letters when they end, and so have offsets and are claimed like events.

    refused: events that came when it was closed and were not kept, however often they were offered.
    """

    def __init__(
        self, max_bytes: int, clock: Clock, label: str = "", changed: threading.Condition | None = None
    ) -> None:
        """label: before the reason of each gap, such as "connection 2 of 2: ".

        changed: guards it, and is told when something comes; several rings may share one.
        """
        self.refused = 0
        self._max_bytes = max_bytes
        self._clock = clock
        self._label = label
        self._changed = changed or threading.Condition()
        self._entries: list[Entry] = []
        self._bytes = 0
        self._end = 0
        self._heard = 0.0
        self._taken_at = 0.0
        self._gap: Gap | None = None
        self._bounded = True
        self._closed = False
        self._last_refused: Sequence[Event] = ()

    # What the connection asks

    def append(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None = None,
        connection: str = "",
    ) -> None:
        """Take all of it, waiting a moment for room; see `Intake.append`. Knows no duplicates.

        Raises JournalFull when there is still none, or the ring is closed.
        """
        size = ENTRY_BYTES + sum(len(event.raw) for event in events) + EVENT_BYTES * len(events)
        size += sum(len(letter.raw) + EVENT_BYTES for letter in letters)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size), PUSH_BACK)
            if self._closed:
                if events is not self._last_refused:  # whoever holds them tries once more as it ends
                    self.refused += len(events)
                    self._last_refused = events
                raise JournalFull("nobody reads it any more", PLACE, ADVICE)
            if not self._has_room(size):
                raise self._full()
            before = self._heard
            self._heard = self._clock.now() if heard_until is None else heard_until
            self._put(events, letters, size, before)

    def heard(self, until: float | None = None) -> None:
        """See `Intake.heard`."""
        with self._changed:
            self._heard = self._clock.now() if until is None else until

    def open_gap(self, reason: str, since: float | None = None) -> None:
        """See `Intake.open_gap`. Without `since`, nothing can be missing before the feed was ever heard."""
        with self._changed:
            since = self._heard if since is None else since
            if self._gap is None and since:
                self._gap = Gap(since, None, self._label + reason)

    def close_gap(self, until: float | None = None) -> None:
        """See `Intake.close_gap`."""
        with self._changed:
            if self._gap is not None:
                until = self._clock.now() if until is None else until
                until = max(self._gap.since, until)  # the wall clock may have been set back
                gap, self._gap = Gap(self._gap.since, until, self._gap.reason), None
                before, self._heard = self._known_until, max(self._heard, until)
                self._put((), [as_dead_letter(gap)], ENTRY_BYTES + EVENT_BYTES, before)

    def note(self, letters: Sequence[DeadLetter]) -> None:
        """News of the process, to be claimed like events: a bundle that fails does not take them with it."""
        with self._changed:
            self._put((), letters, ENTRY_BYTES + EVENT_BYTES * len(letters), self._known_until)

    # What the bundles ask

    @property
    def first(self) -> int:
        """The lowest offset that is kept."""
        with self._changed:
            return self._entries[0].first if self._entries else self._end

    @property
    def first_taken_at(self) -> float:
        """When that was received: now, if nothing is kept."""
        with self._changed:
            return self._entries[0].taken_at if self._entries else self._clock.now()

    @property
    def heard_before(self) -> float:
        """Until when all that was published lies below `first`, epoch seconds; 0 when nothing was heard."""
        with self._changed:
            return self._entries[0].heard_before if self._entries else self._known_until

    @property
    def end(self) -> int:
        """The offset that comes next."""
        return self._end

    @property
    def bytes(self) -> int:
        """What it holds of memory, about."""
        return self._bytes

    def evict(self, before: int) -> None:
        """Forget what is committed: all offsets below `before`."""
        with self._changed:
            done = self._index(before)
            self._bytes -= sum(entry.size for entry in self._entries[:done])
            del self._entries[:done]
            self._changed.notify_all()

    def read(self, position: int, most_events: int, stop: int = OPEN_END) -> Part | None:
        """What is kept from `position` on, about `most_events` events; None when there is nothing."""
        with self._changed:
            at = self._index(position)
            taken: list[Entry] = []
            count = 0
            for entry in self._entries[at : at + most_events]:
                if entry.end > stop or (count and count + len(entry.events) > most_events):
                    break
                taken.append(entry)
                count += len(entry.events)
                if entry.letters:  # the offsets of a part's events have no holes
                    break
        if not taken:
            return None
        events = taken[0].events if len(taken) == 1 else [event for one in taken for event in one.events]
        last = taken[-1]
        return Part(taken[0].first, last.end, events, last.letters, taken[0].taken_at, last.heard_until)

    def quiet_since(self, position: int) -> float | None:
        """Until when all that the feed sent was received and lies below `position`, in epoch seconds (0: the
        feed was never heard); None while something waits there."""
        with self._changed:
            if self._end > position:
                return None
            return self._known_until

    def pending_bytes(self, position: int) -> int:
        """About how many bytes wait from `position` on."""
        with self._changed:
            if position <= (self._entries[0].first if self._entries else self._end):
                return self._bytes
            return sum(entry.size for entry in self._entries[self._index(position) :])

    def events_from(self, position: int) -> int:
        """How many events wait from `position` on."""
        with self._changed:
            return sum(len(entry.events) for entry in self._entries[self._index(position) :])

    def wait(self, position: int, timeout: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait at most `timeout` seconds for something at `position`.

        unless: a reason not to, about rings that share `changed`; asked whenever one of them changes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._end > position or unless(), timeout)

    def wake(self) -> None:
        """Whoever waits for something is to look up."""
        with self._changed:
            self._changed.notify_all()

    # Its end

    def last_call(self) -> None:
        """The connection is about to end: what it has in hand is taken, room or not."""
        with self._changed:
            self._bounded = False
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _full(self) -> JournalFull:
        if held := HELD.full(self._clock.monotonic()):
            return JournalFull(f"the job reads no more: {held}", PLACE, ADVICE_HELD)
        return JournalFull(f"{self._bytes} bytes wait for the runner to take them", PLACE, ADVICE)

    def _has_room(self, size: int) -> bool:
        return not self._bounded or not self._entries or self._bytes + size <= self._max_bytes

    @property
    def _known_until(self) -> float:
        """Until when nothing is missing: an open gap's beginning does not move, whatever is heard or put."""
        return self._heard if self._gap is None else min(self._heard, self._gap.since)

    def _put(
        self, events: Sequence[Event], letters: Sequence[DeadLetter], size: int, heard_before: float
    ) -> None:
        if not events and not letters:
            return
        self._taken_at = max(self._taken_at, self._clock.now())  # arrival times never step back
        entry = Entry(self._end, events, letters, self._taken_at, heard_before, self._known_until, size)
        self._entries.append(entry)
        self._bytes += size
        self._end = entry.end
        self._changed.notify_all()

    def _index(self, position: int) -> int:
        """How many entries end at or below `position`."""
        return bisect_right(self._entries, position, key=attrgetter("end"))
