"""The books and counters of a run on one machine, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.local import verdict
from pipelines.local.snapshot import Snapshot
from transforms.write.delivery.status import Histogram

Families = Iterator[Metric]


def exposition(snapshot: Snapshot) -> bytes:
    """The page that `/metrics` answers; the names are fixed, dashboards rely on them."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Families:
        yield from _feed(self._snapshot)
        yield from _destinations(self._snapshot)


def _feed(snapshot: Snapshot) -> Families:
    yield CounterMetricFamily(
        "grantex_events_received", "Events taken into the journal.", value=snapshot.received
    )
    yield GaugeMetricFamily(
        "grantex_feed_connections", "Streams of the feed that are open.", value=snapshot.live
    )
    yield GaugeMetricFamily(
        "grantex_feed_connections_wanted",
        "Streams that are to be open.",
        value=snapshot.connections_wanted,
    )
    for name, at, what in (
        ("heard", snapshot.last_heard_at, "an event or a keepalive"),
        ("event", snapshot.last_event_at, "an event"),
    ):
        yield GaugeMetricFamily(
            f"grantex_feed_last_{name}_timestamp_seconds",
            f"When {what} came last, 0 for never.",
            value=at or 0.0,
        )
    yield GaugeMetricFamily(
        "grantex_standby",
        "1 while another process delivers and this one stands by.",
        value=snapshot.standing_by is not None,
    )
    yield CounterMetricFamily(
        "grantex_feed_gaps", "Intervals in which events may have been missed.", value=snapshot.gaps
    )
    yield GaugeMetricFamily("grantex_feed_gap_open", "1 while events may be missed.", value=snapshot.gap_open)
    yield CounterMetricFamily(
        "grantex_feed_gap_seconds",
        "How long the gaps were together, once they have ended.",
        value=snapshot.gap_seconds,
    )
    if snapshot.webhooks is not None:
        webhooks = CounterMetricFamily(
            "grantex_webhooks", "Requests to the webhook receiver, by what became of them.", labels=["result"]
        )
        for result, count in snapshot.webhooks.items():
            webhooks.add_metric([result], count)
        yield webhooks
    if snapshot.proof is not None:
        yield CounterMetricFamily(
            "grantex_ledger_missing",
            "Events in the service's ledger that were never received.",
            value=snapshot.proof.missing,
        )
        yield GaugeMetricFamily(
            "grantex_ledger_proven_until_timestamp_seconds",
            "Until when every event is accounted for; 0 when nothing is proven yet.",
            value=snapshot.proof.until or 0.0,
        )


def _destinations(snapshot: Snapshot) -> Families:
    delivered = CounterMetricFamily("grantex_events_delivered", "Events delivered.", labels=["destination"])
    dead = CounterMetricFamily(
        "grantex_events_dead_lettered", "Events and frames put aside.", labels=["destination", "stage"]
    )
    pending = GaugeMetricFamily("grantex_events_pending", "Events not settled yet.", labels=["destination"])
    lag = GaugeMetricFamily(
        "grantex_delivery_lag_seconds", "Age of the oldest event not settled.", labels=["destination"]
    )
    seconds = HistogramMetricFamily(
        "grantex_request_seconds", "Duration of delivery attempts.", labels=["destination"]
    )
    retries = CounterMetricFamily(
        "grantex_retries", "Attempts that were not the first.", labels=["destination"]
    )
    circuit = GaugeMetricFamily(
        "grantex_circuit_open",
        "1 while the destination is left alone but for probes.",
        labels=["destination"],
    )
    state = GaugeMetricFamily(
        "grantex_destination_state",
        "1 for the state that the destination is in, 0 for the others.",
        labels=["destination", "state"],
    )
    dead.add_metric(["", "feed"], snapshot.feed_dead_letters)
    for item in snapshot.destinations:
        label = [item.name]
        delivered.add_metric(label, item.books.delivered)
        pending.add_metric(label, item.books.pending)
        dead.add_metric([item.name, "write"], item.books.dead_lettered)
        lag.add_metric(label, item.lag)
        found = verdict.of_destination(item).state
        for each in verdict.State:
            state.add_metric([item.name, each.name.lower()], each is found)
        if item.delivery is not None:
            status = item.delivery
            seconds.add_metric(label, _buckets(status.request_seconds), status.request_seconds.sum)
            retries.add_metric(label, status.retries)
            circuit.add_metric(label, status.circuit.open)
    yield from (delivered, dead, pending, lag, seconds, retries, circuit, state)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus wants each bucket to hold those below it as well."""
    bounds = [*(str(bound) for bound in histogram.buckets), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
