"""Beam counters of a destination. They have no labels, so its name is part of theirs."""

from __future__ import annotations

from apache_beam.metrics import Metrics

from transforms.dead_letter import DeadLetter
from transforms.write.contract import Receipt

NAMESPACE = "grantex"


class DeliveryCounters:
    """Counts results; only on the bundle's own thread, from any other Beam drops the increments."""

    def __init__(self, destination: str) -> None:
        self._delivered = Metrics.counter(NAMESPACE, f"{destination}_events_delivered")
        self._dead_lettered = Metrics.counter(NAMESPACE, f"{destination}_events_dead_lettered")

    def count(self, result: DeadLetter | Receipt) -> None:
        """Count what one receipt or dead letter stands for."""
        if isinstance(result, Receipt):
            self._delivered.inc(len(result.event_ids))
        else:
            self._dead_lettered.inc()
