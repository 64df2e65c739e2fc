"""Beam metrics of a destination, declared once. They have no labels, so its name is part of theirs."""

from __future__ import annotations

from collections.abc import Mapping

from apache_beam.metrics import Metrics

from transforms.dead_letter import DeadLetter, counted_as
from transforms.event import Batch, Receipt
from transforms.write.contract import Outcome

NAMESPACE = "grantex"

# What follows the destination's name and "_", and what it is, for docs/metrics.md: nothing is counted under a
# name that is not here.
COUNTERS: Mapping[str, str] = {
    "events_received": "Events that came to the destination.",
    "events_delivered": "Events delivered.",
    "events_dead_lettered": "Events put aside.",
    "events_filtered": "Events that it did not ask for; all others came to it.",
    "events_unknown": "Events that may have arrived and were sent again: possible repeats.",
    "requests": "Delivery attempts.",
    "retries": "Attempts that were not the first.",
}
CAUSES = "dead_letters"
DISTRIBUTIONS: Mapping[str, str] = {
    "request_milliseconds": "Duration of delivery attempts.",
    "delivery_lag_milliseconds": "Age of a batch's oldest event when it was delivered.",
}
# Of one key, whose name follows: gauges of several cannot be added up.
GAUGES: Mapping[str, str] = {
    "events_pending": "Events not settled yet.",
    "bytes_pending": "Bytes of them in the job's state, where they are about a quarter of what they were.",
    "batches_in_flight": "1 while a request outlasts the bundle that made it.",
    "circuit_open": "1 while the destination is left alone but for probes.",
    "needs_you": "1 while nothing passes until a person puts something right; the workers' log says what.",
}


class DeliveryCounters:
    """Counts results; only on the bundle's own thread, from any other Beam drops the increments.

    Beam's metrics hold whole numbers: times are in milliseconds.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._causes: set[str] = set()

        def counter(name: str) -> Metrics.DelegatingCounter:
            assert name in COUNTERS
            return Metrics.counter(NAMESPACE, f"{destination}_{name}")

        def distribution(name: str) -> Metrics.DelegatingDistribution:
            assert name in DISTRIBUTIONS
            return Metrics.distribution(NAMESPACE, f"{destination}_{name}")

        self._received = counter("events_received")
        self._delivered = counter("events_delivered")
        self._dead_lettered = counter("events_dead_lettered")
        self._filtered = counter("events_filtered")
        self._unknown = counter("events_unknown")
        self._requests = counter("requests")
        self._retries = counter("retries")
        self._request = distribution("request_milliseconds")
        self._lag = distribution("delivery_lag_milliseconds")

    def declare(self) -> None:
        """Show every counter of the books before anything is counted, those at zero too.

        A dashboard then shows none instead of no data. And Prism keeps one of the numbers when two bundles at
        once bring it a counter that it has not seen (its jobservices/metrics.go, unprocessedPayloads). These
        are declared by bundles before those that count, all but `events_received`.
        """
        for counter in (
            self._received,
            self._delivered,
            self._dead_lettered,
            self._filtered,
            self._unknown,
            self._requests,
            self._retries,
        ):
            counter.inc(0)

    def count(self, result: DeadLetter | Receipt) -> None:
        """Count what one receipt or dead letter stands for."""
        if isinstance(result, Receipt):
            self.delivered(len(result.event_ids))
            return
        self._dead_lettered.inc()
        cause = counted_as(result.cause, self._causes)
        self._causes.add(cause)
        Metrics.counter(NAMESPACE, f"{self._destination}_{CAUSES}_{cause}").inc()

    def delivered(self, events: int) -> None:
        """Count events that were delivered, of one receipt or of many."""
        self._delivered.inc(events)

    def received(self, events: int) -> None:
        """Count events that came in."""
        self._received.inc(events)

    def filtered(self, events: int) -> None:
        """Count events that were not asked for. They are counted where they are left out: call it with 0 from
        a bundle's beginning on, see `declare`."""
        self._filtered.inc(events)

    def attempted(self, batch: Batch, outcome: Outcome | None, seconds: float) -> None:
        """Count an attempt that has ended, and the events that may have arrived and are sent again."""
        self._requests.inc()
        self._request.update(round(seconds * 1000))
        if batch.attempts > 1:
            self._retries.inc()
        if outcome is not None and outcome.unknown:
            self._unknown.inc(len(outcome.later))

    def unanswered(self, batch: Batch) -> None:
        """Count events that were being sent when they were given up."""
        self._unknown.inc(len(batch.events))

    def arrived(self, lag: float) -> None:
        """Record the age in seconds of a batch's oldest event when it was delivered."""
        self._lag.update(round(max(lag, 0.0) * 1000))

    def standing(
        self, key: str, pending: int, size: int, *, in_flight: bool, circuit_open: bool, needs_you: bool
    ) -> None:
        """Record what one key has left, `size` bytes in its state; the others as GAUGES says."""
        values = (pending, size, int(in_flight), int(circuit_open), int(needs_you))
        for name, value in zip(GAUGES, values, strict=True):
            Metrics.gauge(NAMESPACE, f"{self._destination}_{name}_{key}").set(value)
