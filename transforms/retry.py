"""How long to wait before trying again: exponential back-off with full jitter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str, now: float) -> float | None:
    """Seconds asked for by a `Retry-After` header (RFC 9110: seconds or an HTTP date), None if unreadable."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# A proxy's mistake in `Retry-After` or `retry:` must not park the feed for a day.
MAX_RETRY_AFTER = 3600.0
# A service that asks for more than this is wrong or broken; it is asked again then.
RETRY_AFTER_CAP = 3600.0


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that `Retry-After` asks for, given as seconds or as an HTTP date (RFC 9110, 10.2.3), within
    0 and an hour; None when it is absent or unreadable. `now` is seconds since the epoch."""
    value = headers.get("retry-after")
    if value is None:
        return None
    value = value.strip()
    try:
        seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else None


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
