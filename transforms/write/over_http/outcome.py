"""What HTTP statuses and headers mean for a batch: pure functions (broken connections: transient.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from transforms.write.contract import Outcome

# Longer waits than this are a mistake of a clock or a proxy, and an hour is already a loud outage.
MAX_RETRY_AFTER = 3600.0
# Bad Gateway and Gateway Timeout: the service behind was reached (or may have been), and its answer was not.
GATEWAY = frozenset({502, 504})
KEPT = "The events are kept and sent again"


def is_delivered(status: int) -> bool:
    return 200 <= status < 300


def is_credential(status: int) -> bool:
    """Whether a status says that the key or token is wrong, so that reading it again may help."""
    return status in (401, 403)


def is_retryable(status: int) -> bool:
    """Statuses that pass by themselves: 408, 429 and all of 5xx."""
    return status in (408, 429) or status >= 500


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


def refused(where: str, status: int, headers: Mapping[str, str], count: int, now: float) -> Outcome:
    """The outcome of a status outside 2xx for a batch of `count` events, whatever service it is.

    A destination looks first at what it understands better than its status: a 400, a reply with a code.
    What is left here is never an event's own fault, so nothing is rejected.

    where: the service as a person knows it, "Splunk at https://host:8088".
    """
    everything = range(count)
    if is_retryable(status):
        wait = retry_after(headers, now)
        unknown = status in GATEWAY
        maybe = "; what was sent may have arrived" if unknown else ""
        cause = f"{where} answered {status}{maybe}. {KEPT}."
        return Outcome(later=everything, cause=cause, retry_after=wait, unknown=unknown)
    if status == 413:
        cause = f"{where} found the request too large (413). It is sent again in halves."
        return Outcome(later=everything, cause=cause, too_large=True)
    return Outcome(later=everything, cause=f"{where} {advice(status, headers)}", blocked=True)


def advice(status: int, headers: Mapping[str, str]) -> str:
    """What blocks everything, and what a person can do about it."""
    kept = f"{KEPT} when this is mended"
    if is_credential(status):
        return f"refused the credential ({status}). {kept}: correct the key or token, or its rights."
    if 300 <= status < 400:
        target = headers.get("location", "")[:200]
        return (
            f"redirects elsewhere ({status}{f' to {target!r}' if target else ''}). {kept}: correct its URL."
        )
    if status in (404, 405, 410):
        return f"does not serve this path ({status}). {kept}: correct its URL."
    if status == 407:
        return f"cannot be reached without signing in to a proxy (407). {kept}."
    if status == 415:
        return f"does not accept compressed requests (415). {kept}: set --http_compression=none."
    return f"refused the request with status {status}. {kept}: check its URL and what stands in between."
