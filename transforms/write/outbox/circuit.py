"""When a destination is left alone: the circuit breaker, and the limit on dead letters."""

from __future__ import annotations

import threading
from collections import deque

# Three failures in a row are an outage rather than an accident.
FAILURES_TO_OPEN = 3
HOUR = 3600.0


class Circuit:
    """Open while a destination seems down; then one batch at a time probes it. Knows no clock.

    Times are monotonic seconds. `failures` counts attempts in a row that got nothing through.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.since: float | None = None  # when it opened; None while closed
        self.probe_at = 0.0
        self.why = ""

    @property
    def is_open(self) -> bool:
        return self.since is not None

    def failed(self, now: float, wait: float, why: str, *, at_once: bool = False) -> None:
        """An attempt got nothing through; the next probe may come `wait` seconds from now.

        `at_once` opens the circuit whatever the count.
        """
        if self.since is None and (at_once or self.failures >= FAILURES_TO_OPEN):
            self.since = now
        self.probe_at = now + wait
        self.why = why

    def progressed(self) -> None:
        """Something got through: close and forget the failures."""
        self.failures = 0
        self.since = None
        self.why = ""


class DeadLetterLimit:
    """At most `limit` dead letters within an hour (None: no limit). One for the life of a destination, so
    that a lane's restarts do not add up."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._times: deque[float] = deque()
        self._lock = threading.Lock()  # on a cluster the keys of a process share one

    def allow(self, now: float) -> bool:
        """Count one more dead letter at `now` (monotonic seconds), or refuse it."""
        if self.limit is None:
            return True
        with self._lock:
            while self._times and self._times[0] <= now - HOUR:
                self._times.popleft()
            if len(self._times) >= self.limit:
                return False
            self._times.append(now)
            return True
