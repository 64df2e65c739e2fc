"""How long the end of the input waits for a destination: one time for all keys of a worker process."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from transforms.clock import Clock

# The part of a wait that is kept for one last try, whatever back-off says: a destination that came back
# meanwhile takes everything then.
LAST_TRY = 0.2


@dataclass(frozen=True)
class DrainTime:
    """What a destination is given at the end of the input, before what it has not taken becomes dead letters.

    idle: seconds without anything taken; as long as a lane's drain by default.
    at_most: seconds in all, from the first key on; unbounded where the runner waits for as long as it takes.
    """

    idle: float = 25.0
    at_most: float = math.inf


class Drain:
    """The keys' common time, which the first of them starts; safe for threads. A runner may end them one
    after another, and each waiting anew would take a multiple."""

    def __init__(self, time: DrainTime, clock: Clock) -> None:
        self._time, self._clock = time, clock
        self._lock = threading.Lock()
        self._limit = self._until = math.inf
        self._keys: set[str] = set()

    def begin(self, key: str) -> bool:
        """A key ends. True when it has before, as the runner repeats the bundle: time begins anew."""
        with self._lock:
            again = key in self._keys
            if again or not self._keys:
                self._keys.clear()
                self._limit = self._clock.monotonic() + self._time.at_most
                self._renew()
            self._keys.add(key)
            return again

    def left(self) -> float:
        """Seconds that are left; none or less when the time is over."""
        with self._lock:
            return self._until - self._clock.monotonic()

    def progressed(self) -> None:
        """The destination has taken something, and is given its time anew."""
        with self._lock:
            self._renew()

    @property
    def for_last_try(self) -> float:
        """Seconds that one last try is given."""
        return LAST_TRY * min(self._time.idle, self._time.at_most)

    def _renew(self) -> None:
        self._until = min(self._clock.monotonic() + self._time.idle, self._limit)
