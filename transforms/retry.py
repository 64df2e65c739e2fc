"""When to try again: back-off with full jitter, and what a service asks for by `Retry-After`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime

# Whoever asks for more than an hour is wrong (a clock, a proxy), and an hour is a loud outage already.
MAX_RETRY_AFTER = 3600.0
# RFC 9110 knows whole seconds; some services send a fraction.
_SECONDS = re.compile(r"\d{1,18}(\.\d{1,9})?", re.ASCII)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that `Retry-After` asks for, given as seconds or as an HTTP date (RFC 9110, 10.2.3), within
    0 and MAX_RETRY_AFTER; None when it is absent or unreadable. `now` is seconds since the epoch.

    headers: names in lower case, or of any case in a mapping that does not mind (httpx.Headers).
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # "-0000": UTC, by RFC 5322
            moment = moment.replace(tzinfo=timezone.utc)
        return min(max(moment.timestamp() - now, 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


@dataclass(frozen=True)
class Backoff:
    """Full jitter (each wait is uniform between 0 and a doubling bound), so that clients that failed
    together do not come back together.

    base: seconds, the bound of the first wait.
    cap: seconds, the most a bound grows to.
    """

    base: float = 0.5
    cap: float = 30.0

    def seconds(self, failures: int, uniform: Callable[[float, float], float]) -> float:
        """Seconds to wait after `failures` failures in a row (1 or more); `uniform(a, b)` is the dice."""
        bound = min(self.cap, self.base * 2.0 ** min(max(failures - 1, 0), 32))
        return uniform(0.0, bound)
