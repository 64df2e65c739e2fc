"""How long ago an event was received, whatever the wall clock has done since."""

from __future__ import annotations

import threading
from bisect import bisect_right

from transforms.clock import Clock
from transforms.feed.journal import Journal

MARK_EVERY = 1.0  # seconds: how exact an age is
MOST_MARKS = 4_000  # past it every second one goes: what is old needs no seconds


class Ages:
    """Ages of what the journal takes from now on, by the monotonic clock. Of what it held before, only the
    wall clock knows: it is asked once, now."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._began, self._began_at = clock.monotonic(), clock.now()
        self._lock = threading.Lock()
        self._end = journal.end
        self._firsts = [journal.end]  # offsets, ascending; the event at each was received ...
        self._times = [self._began]  # ... then, and those up to the next one within MARK_EVERY of it
        journal.listeners.append(self._appended)

    def of(self, offset: int) -> float:
        """Seconds since the event at `offset`, or the next one kept, was received."""
        now = self._clock.monotonic()
        with self._lock:
            place = bisect_right(self._firsts, offset) - 1
            if place >= 0:
                return now - self._times[place]
        taken_at = self._journal.taken_at(offset)
        before = 0.0 if taken_at is None else max(0.0, self._began_at - taken_at)
        return before + now - self._began

    def _appended(self) -> None:
        """The journal may have grown; called at every append."""
        now, end = self._clock.monotonic(), self._journal.end
        with self._lock:
            if end > self._end and now - self._times[-1] >= MARK_EVERY:
                self._firsts.append(self._end)
                self._times.append(now)
                if len(self._firsts) > MOST_MARKS:
                    del self._firsts[1::2], self._times[1::2]
            self._end = max(self._end, end)
