"""How long to wait before trying again: exponential back-off with full jitter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Full jitter (each wait is uniform between 0 and a doubling bound), so that clients that failed
    together do not come back together.

    base: seconds, the bound of the first wait.
    cap: seconds, the most a bound grows to.
    """

    base: float = 0.5
    cap: float = 30.0

    def wait(self, failures: int, uniform: Callable[[float, float], float]) -> float:
        """Seconds to wait after `failures` failures in a row (1 or more); `uniform(a, b)` is the dice."""
        bound = min(self.cap, self.base * 2.0 ** min(max(failures - 1, 0), 32))
        return uniform(0.0, bound)
