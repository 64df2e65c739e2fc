"""A clock that stands still until a test moves it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable

LOOK_SECONDS = 0.003  # real ones: how soon who waits sees that a time has come


class ManualClock:
    """Wall and monotonic time move together, by `advance` alone; who waits for a time is woken by it."""

    def __init__(self, now: float = 1_772_366_400.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: dict[threading.Thread, float] = {}

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def advance_for(self, threads: Iterable[threading.Thread], seconds: float) -> None:
        """Let `seconds` pass, but not while any of `threads` is still busy with what the last ones brought:
        each of those that live has to wait for a time to come. Under load they are slower than a test."""
        with self._lock:
            for thread in threads:
                deadline = self._waiting.get(thread, -math.inf)
                if thread.is_alive() and deadline <= self._monotonic:
                    return
        self.advance(seconds)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        if timeout is None:
            return event.wait()
        with self._lock:
            deadline = self._waiting[threading.current_thread()] = self._monotonic + timeout
        try:
            # Setting the event when its time has come would be simpler, and would leave it set.
            while not event.is_set() and self._monotonic < deadline:
                event.wait(LOOK_SECONDS)
            return event.is_set()
        finally:
            with self._lock:
                del self._waiting[threading.current_thread()]


class PassingClock(ManualClock):
    """Whoever waits finds that the time has passed. waits: how long each wait was."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self.waits.append(timeout or 0.0)
        self.advance(timeout or 0.0)
        return event.is_set()
