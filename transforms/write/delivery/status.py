"""How a delivery is doing, as a snapshot for metrics and for people."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transforms.clock import Clock
from transforms.write.delivery.outbox import Outbox
from transforms.write.delivery.told import GO_ON

# From a local disk's flush to a time-out.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Histogram:
    """Durations in seconds. `counts[i]` are those up to `buckets[i]` and above the bucket before; the last
    of `counts` are those above all buckets."""

    buckets: Sequence[float] = REQUEST_BUCKETS
    counts: list[int] = field(default_factory=lambda: [0] * (len(REQUEST_BUCKETS) + 1))
    sum: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.buckets, seconds)] += 1
        self.sum += seconds

    def copy(self) -> Histogram:
        """A snapshot that no longer changes."""
        return Histogram(self.buckets, list(self.counts), self.sum)

    def __add__(self, other: Histogram) -> Histogram:
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.buckets, counts, self.sum + other.sum)


@dataclass(frozen=True)
class CircuitStatus:
    """Whether a destination is being left alone. Times are seconds since the epoch."""

    open: bool = False
    since: float | None = None
    next_probe: float | None = None
    why: str = ""
    needs_you: bool = False  # nothing passes until a person puts something right


@dataclass(frozen=True)
class DeliveryStatus:
    """Totals since this delivery began, and what it holds now. Times are seconds since the epoch.

    pending: events added and not yet delivered or dead-lettered. in_flight, waiting: batches being
    attempted, and sealed batches that are not. unknown: events that may have arrived and were sent again.
    oldest_taken_at: when the oldest pending event was received; None when nothing is pending.
    """

    name: str
    delivered: int
    dead_lettered: Mapping[str, int]  # by the first word of the cause
    attempts: int
    retries: int
    unknown: int
    pending: int
    in_flight: int
    waiting: int
    circuit: CircuitStatus
    last_error: str
    last_error_at: float | None
    oldest_taken_at: float | None
    request_seconds: Histogram
    dead_letters_go_on: bool = False  # the last one came within the last minute
    # Event id and time of the latest of each cause, newest first.
    latest_dead_letters: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)

    def after(self, before: DeliveryStatus) -> DeliveryStatus:
        """This status with the totals of a delivery that ended `before` it added."""
        return replace(
            self,
            delivered=before.delivered + self.delivered,
            dead_lettered=dict(Counter(before.dead_lettered) + Counter(self.dead_lettered)),
            attempts=before.attempts + self.attempts,
            retries=before.retries + self.retries,
            unknown=before.unknown + self.unknown,
            last_error=self.last_error or before.last_error,
            last_error_at=self.last_error_at if self.last_error else before.last_error_at,
            request_seconds=before.request_seconds + self.request_seconds,
            latest_dead_letters={**before.latest_dead_letters, **self.latest_dead_letters},
        )


def snapshot(
    outbox: Outbox, pending: int, oldest_taken_at: float | None, seconds: Histogram, clock: Clock
) -> DeliveryStatus:
    """The status of the delivery that drives `outbox`; its monotonic times become dates."""
    now, circuit, counts = clock.now(), outbox.circuit, outbox.counts
    ahead = now - clock.monotonic()
    since = None if circuit.since is None else circuit.since + ahead
    probe = max(circuit.probe_at + ahead, now) if circuit.is_open else None
    return DeliveryStatus(
        name=outbox.name,
        delivered=counts.delivered,
        dead_lettered=dict(counts.dead_lettered.counts),
        attempts=counts.attempts,
        retries=counts.retries,
        unknown=counts.unknown,
        pending=pending,
        in_flight=outbox.in_flight,
        waiting=len(outbox) - outbox.in_flight,
        circuit=CircuitStatus(circuit.is_open, since, probe, circuit.why, circuit.needs_you),
        last_error=outbox.last_error,
        last_error_at=None if outbox.last_error_at is None else outbox.last_error_at + ahead,
        oldest_taken_at=oldest_taken_at,
        request_seconds=seconds.copy(),
        dead_letters_go_on=outbox.last_rejected_at is not None
        and clock.monotonic() - outbox.last_rejected_at < GO_ON,
        latest_dead_letters=counts.dead_lettered.latest(ahead),
    )
