"""Time as an argument: one real clock, and the protocol that tests replace."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where time is read and waited for. Ages use `monotonic`, records for people use `now`."""

    def now(self) -> float:
        """Wall clock, seconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; comparable within one process only."""

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait until `event` is set or `timeout` seconds have passed; True when it is set."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        return event.wait(timeout)


def monotonic_of(clock: Clock, epoch: float) -> float:
    """The monotonic time of a moment, as the wall clock stands now."""
    return clock.monotonic() - (clock.now() - epoch)


def epoch_of(clock: Clock, monotonic: float) -> float:
    """When a monotonic time was, as the wall clock stands now."""
    return clock.now() - (clock.monotonic() - monotonic)
