"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading


class ManualClock:
    """Wall and monotonic time move together, by `advance` alone; who waits for a time is woken by it."""

    def __init__(self, now: float = 1_772_366_400.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, threading.Event]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds
            for deadline, event in self._waiting:
                if deadline <= self._monotonic:
                    event.set()

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        if timeout is None:
            return event.wait()
        with self._lock:
            waiter = (self._monotonic + timeout, event)
            if timeout <= 0:
                return event.is_set()
            self._waiting.append(waiter)
        event.wait()
        with self._lock:
            self._waiting.remove(waiter)
            return self._monotonic < waiter[0]
