"""A feed gap: an interval in which events may have been published that nobody received."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

import msgspec

from transforms.dead_letter import DeadLetter


@dataclass(frozen=True)
class Gap:
    """Epoch seconds; `until` is None while the gap is open."""

    since: float
    until: float | None
    reason: str


def as_dead_letter(gap: Gap) -> DeadLetter:
    """A gap among the dead letters, for whoever audits them; its `raw` is a JSON object of the interval."""
    until = gap.until or gap.since
    record = {
        "since": iso(gap.since),
        "until": iso(until),
        "seconds": round(until - gap.since, 3),
        "reason": gap.reason,
    }
    return DeadLetter(
        stage="feed",
        destination="",
        cause=f"feed_gap: {gap.reason}",
        raw=msgspec.json.encode(record),
        at=until,
    )


def iso(epoch: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return (
        datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
