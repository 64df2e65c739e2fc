"""Beam metrics of a destination. They have no labels, so its name is part of theirs."""

from __future__ import annotations

from apache_beam.metrics import Metrics

from transforms.dead_letter import DeadLetter, counted_as
from transforms.event import Batch, Receipt
from transforms.write.contract import Outcome

NAMESPACE = "grantex"


class DeliveryCounters:
    """Counts results; only on the bundle's own thread, from any other Beam drops the increments.

    Beam's metrics hold whole numbers: times are in milliseconds.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._causes: set[str] = set()

        def counter(name: str) -> Metrics.DelegatingCounter:
            return Metrics.counter(NAMESPACE, f"{destination}_{name}")

        self._received = counter("events_received")
        self._delivered = counter("events_delivered")
        self._dead_lettered = counter("events_dead_lettered")
        self._unknown = counter("events_unknown")
        self._requests = counter("requests")
        self._retries = counter("retries")
        self._request = Metrics.distribution(NAMESPACE, f"{destination}_request_milliseconds")
        self._lag = Metrics.distribution(NAMESPACE, f"{destination}_delivery_lag_milliseconds")

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
            self._unknown,
            self._requests,
            self._retries,
        ):
            counter.inc(0)

    def count(self, result: DeadLetter | Receipt) -> None:
        """Count what one receipt or dead letter stands for."""
        if isinstance(result, Receipt):
            self._delivered.inc(len(result.event_ids))
            return
        self._dead_lettered.inc()
        cause = counted_as(result.cause, self._causes)
        self._causes.add(cause)
        Metrics.counter(NAMESPACE, f"{self._destination}_dead_letters_{cause}").inc()

    def received(self, events: int) -> None:
        """Count events that came in."""
        self._received.inc(events)

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

    def standing(self, key: str, pending: int, size: int, in_flight: bool, circuit_open: bool) -> None:
        """Record what one key has left, `size` bytes in its state; in_flight: a batch's request outlasts the
        bundle that made it.

        Gauges of several keys cannot be added up, so each has its own.
        """

        def gauge(name: str, value: int) -> None:
            Metrics.gauge(NAMESPACE, f"{self._destination}_{name}_{key}").set(value)

        gauge("events_pending", pending)
        gauge("bytes_pending", size)
        gauge("batches_in_flight", int(in_flight))
        gauge("circuit_open", int(circuit_open))
