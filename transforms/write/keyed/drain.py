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
    after another, and each waiting anew for a destination that is away would take a multiple. While it
    takes what it is given, each key is given its time.
    """

    def __init__(self, time: DrainTime, clock: Clock) -> None:
        self._time, self._clock = time, clock
        self._lock = threading.Lock()
        self._limit = self._until = -math.inf
        self._takes = True
        self._together: set[str] = set()  # keys that share the present time
        self._ended: set[str] = set()

    def begin(self, key: str) -> bool:
        """A key ends. True when it has before: the runner repeats the bundle, and time begins anew."""
        with self._lock:
            again = key in self._ended
            if not self._together or key in self._together:
                self._together.clear()
                self._takes = True
                self._limit = self._clock.monotonic() + self._time.at_most
            if self._takes:
                self._renew()
                # Behind a long backlog of another key, or of another destination, it is still tried once.
                self._until = max(self._until, self._clock.monotonic() + self.for_last_try)
            self._together.add(key)
            self._ended.add(key)
            return again

    def left(self) -> float:
        """Seconds that are left; none or less when the time is over."""
        with self._lock:
            return self._until - self._clock.monotonic()

    def progressed(self) -> None:
        """The destination has taken something, and is given its time anew."""
        with self._lock:
            self._takes = True
            self._renew()

    def gave_up(self) -> None:
        """A key has something left that the destination did not take in time."""
        with self._lock:
            self._takes = False

    @property
    def for_last_try(self) -> float:
        """Seconds that one last try is given."""
        return LAST_TRY * min(self._time.idle, self._time.at_most)

    def _renew(self) -> None:
        self._until = max(self._until, min(self._clock.monotonic() + self._time.idle, self._limit))
