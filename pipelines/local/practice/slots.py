"""The service's count of streams per developer, with its leak."""

from __future__ import annotations

import threading

from transforms.clock import Clock

LIMIT = 5
TTL = 300.0  # seconds


class Slots:
    """A counter per developer that lives 300 s from its last touch: every stream's keepalive and every
    refused attempt touches it, so slots of a crashed server linger for as long as anybody asks."""

    def __init__(self, clock: Clock, limit: int = LIMIT, ttl: float = TTL) -> None:
        self._clock = clock
        self._limit = limit
        self._ttl = ttl
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, float]] = {}

    def acquire(self, developer: str) -> bool:
        """Take a slot; False when all are taken."""
        with self._lock:
            taken = self._taken(developer)
            granted = taken < self._limit
            self._counts[developer] = (taken + granted, self._clock.monotonic() + self._ttl)
            return granted

    def touch(self, developer: str) -> None:
        """A live stream's keepalive: everything counted lives on."""
        with self._lock:
            self._counts[developer] = (self._taken(developer), self._clock.monotonic() + self._ttl)

    def release(self, developer: str) -> None:
        """A stream ended while the server was there to notice."""
        with self._lock:
            taken = self._taken(developer)
            self._counts[developer] = (max(0, taken - 1), self._clock.monotonic() + self._ttl)

    def taken(self, developer: str) -> int:
        """Slots counted now, dead ones included."""
        with self._lock:
            return self._taken(developer)

    def _taken(self, developer: str) -> int:
        count, until = self._counts.get(developer, (0, 0.0))
        return count if self._clock.monotonic() < until else 0
