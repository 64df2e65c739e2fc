"""The metrics of a run on one machine, declared once: /metrics and docs/metrics.md come from the table."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from pipelines.local import verdict
from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from pipelines.local.status_json import VERSION
from transforms.write.delivery.status import DeliveryStatus, Histogram

Value = float | Histogram
Sample = tuple[Sequence[str], Value]  # the labels' values, in their order


class Kind(str, enum.Enum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric. A counter's name has `_total` at its end in Prometheus.

    samples: its samples of a snapshot; none where it does not apply, which `only` says.
    """

    name: str
    kind: Kind
    help: str
    samples: Callable[[Snapshot], Iterable[Sample]]
    labels: Sequence[str] = ()
    only: str = ""

    @property
    def shown(self) -> str:
        """Its name as queries have it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    def family(self, snapshot: Snapshot) -> Family | None:
        """For Prometheus; None when nothing of it applies and `only` says so."""
        samples = list(self.samples(snapshot))
        if not samples and self.only:
            return None
        family: Any = _FAMILIES[self.kind](self.name, self.help, labels=self.labels)
        for labels, value in samples:
            if isinstance(value, Histogram):
                family.add_metric(labels, _buckets(value), value.sum)
            else:
                family.add_metric(labels, value)
        made: Family = family
        return made


_FAMILIES: Mapping[Kind, Any] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


def _one(value: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Iterable[Sample]]:
    """A metric without labels; None: it does not apply."""

    def samples(snapshot: Snapshot) -> Iterable[Sample]:
        found = value(snapshot)
        return [] if found is None else [((), found)]

    return samples


def _each(value: Callable[[DestinationSnapshot], float]) -> Callable[[Snapshot], Iterable[Sample]]:
    """A value of each destination, removed ones included."""
    return lambda snapshot: [((item.name,), value(item)) for item in snapshot.destinations]


def _running(value: Callable[[DeliveryStatus], Value]) -> Callable[[Snapshot], Iterable[Sample]]:
    """A value of each destination that this run delivers to."""
    return lambda snapshot: [
        ((item.name,), value(item.delivery)) for item in snapshot.destinations if item.delivery
    ]


def _dead_lettered(snapshot: Snapshot) -> Iterator[Sample]:
    yield ("", "feed"), snapshot.feed_dead_letters
    for item in snapshot.destinations:
        yield (item.name, "write"), item.books.dead_lettered


def _by_cause(snapshot: Snapshot) -> Iterator[Sample]:
    for cause, count in snapshot.letters.items():
        yield ("", cause), count
    for item in snapshot.destinations:
        for cause, count in item.delivery.dead_lettered.items() if item.delivery else ():
            yield (item.name, cause), count


def _states(snapshot: Snapshot) -> Iterator[Sample]:
    for item in snapshot.destinations:
        found = verdict.of_destination(item).state
        for state in verdict.State:
            yield (item.name, state.name.lower()), state is found


def _of(counts: Mapping[str, int] | None) -> Iterable[Sample]:
    return [((name,), count) for name, count in (counts or {}).items()]


BY_DESTINATION = ("destination",)
WITH_LEDGER = "with `--ledger_webhook`"
WITH_WEBHOOKS = "with `--webhook_port`"

METRICS: Sequence[Metric] = (
    Metric(
        "grantex_events_received",
        Kind.COUNTER,
        "Events taken into the journal, ever.",
        _one(lambda it: it.received),
    ),
    Metric(
        "grantex_received_by_type",
        Kind.COUNTER,
        "Events taken into the journal since the start, by type; those that are not known are `other`.",
        lambda it: _of(it.by_type),
        ("type",),
    ),
    Metric(
        "grantex_feed_connections", Kind.GAUGE, "Streams of the feed that are open.", _one(lambda it: it.live)
    ),
    Metric(
        "grantex_feed_connections_wanted",
        Kind.GAUGE,
        "Streams that are to be open.",
        _one(lambda it: it.connections_wanted),
    ),
    Metric(
        "grantex_feed_last_heard_timestamp_seconds",
        Kind.GAUGE,
        "When an event or a keepalive came last, 0 for never.",
        _one(lambda it: it.last_heard_at or 0.0),
    ),
    Metric(
        "grantex_feed_last_event_timestamp_seconds",
        Kind.GAUGE,
        "When an event came last, 0 for never.",
        _one(lambda it: it.last_event_at or 0.0),
    ),
    Metric(
        "grantex_feed_gaps",
        Kind.COUNTER,
        "Intervals in which events may have been missed.",
        _one(lambda it: it.gaps),
    ),
    Metric(
        "grantex_feed_gap_open", Kind.GAUGE, "1 while events may be missed.", _one(lambda it: it.gap_open)
    ),
    Metric(
        "grantex_feed_gap_seconds",
        Kind.COUNTER,
        "How long the gaps were together, once they have ended.",
        _one(lambda it: it.gap_seconds),
    ),
    Metric(
        "grantex_standby",
        Kind.GAUGE,
        "1 while another process delivers and this one stands by.",
        _one(lambda it: it.standing_by is not None),
    ),
    Metric(
        "grantex_webhooks",
        Kind.COUNTER,
        "Requests to the webhook receiver, by what became of them.",
        lambda it: _of(it.webhooks),
        ("result",),
        WITH_WEBHOOKS,
    ),
    Metric(
        "grantex_ledger_missing",
        Kind.COUNTER,
        "Events in the service's ledger that were never received.",
        _one(lambda it: None if it.proof is None else it.proof.missing),
        only=WITH_LEDGER,
    ),
    Metric(
        "grantex_ledger_proven_until_timestamp_seconds",
        Kind.GAUGE,
        "Until when every event is accounted for; 0 when nothing is proven yet.",
        _one(lambda it: None if it.proof is None else it.proof.until or 0.0),
        only=WITH_LEDGER,
    ),
    Metric(
        "grantex_journal_bytes",
        Kind.GAUGE,
        "Bytes of events in the journal, and of the feed's dead letters that are not written yet.",
        _one(lambda it: it.journal_bytes),
    ),
    Metric(
        "grantex_journal_max_bytes",
        Kind.GAUGE,
        "How many it may hold: then the feed is not read.",
        _one(lambda it: it.journal_max_bytes),
    ),
    Metric(
        "grantex_events_delivered",
        Kind.COUNTER,
        "Events delivered, ever.",
        _each(lambda item: item.books.delivered),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_events_dead_lettered",
        Kind.COUNTER,
        "Events put aside, ever (stage `write`); of the feed, since the start, frames that are no event and "
        "events that the ledger names and nobody received (stage `feed`, no destination).",
        _dead_lettered,
        ("destination", "stage"),
    ),
    Metric(
        "grantex_dead_letters",
        Kind.COUNTER,
        "Dead letters since the start, by the first word of their cause; those of the feed have no "
        "destination, and gaps are among them.",
        _by_cause,
        ("destination", "cause"),
    ),
    Metric(
        "grantex_events_filtered",
        Kind.COUNTER,
        "Events that the destination did not ask for, ever.",
        _each(lambda item: item.books.filtered),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_events_pending",
        Kind.GAUGE,
        "Events not settled yet.",
        _each(lambda item: item.books.pending),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_delivery_lag_seconds",
        Kind.GAUGE,
        "Age of the oldest event not settled.",
        _each(lambda item: item.lag),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_destination_state",
        Kind.GAUGE,
        "1 for the state that the destination is in, 0 for the others.",
        _states,
        ("destination", "state"),
    ),
    Metric(
        "grantex_circuit_open",
        Kind.GAUGE,
        "1 while the destination is left alone but for probes.",
        _running(lambda it: it.circuit.open),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_request_seconds",
        Kind.HISTOGRAM,
        "Duration of delivery attempts.",
        _running(lambda it: it.request_seconds),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_retries",
        Kind.COUNTER,
        "Attempts that were not the first.",
        _running(lambda it: it.retries),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_events_unknown",
        Kind.COUNTER,
        "Events that may have arrived and were sent again: possible repeats.",
        _running(lambda it: it.unknown),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_lane_restarts",
        Kind.COUNTER,
        "Times that a destination's pipeline has failed and started again.",
        _each(lambda item: item.restarts),
        BY_DESTINATION,
    ),
    Metric(
        "grantex_build_info",
        Kind.GAUGE,
        "1, with the version that runs.",
        lambda it: [((VERSION,), 1.0)],
        ("version",),
    ),
)


def exposition(snapshot: Snapshot) -> bytes:
    """The page that `/metrics` answers; the names are fixed, dashboards rely on them."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if (family := metric.family(self._snapshot)) is not None:
                yield family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus wants each bucket to hold those below it as well."""
    bounds = [*(str(bound) for bound in histogram.buckets), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
