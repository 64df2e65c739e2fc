"""/metrics: the names that dashboards rely on, in a format that Prometheus' own parser reads."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pipelines.local.metrics import exposition
from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from transforms.feed.journal import Books
from transforms.feed.status import ConnectionStatus, Phase
from transforms.write.delivery.status import CircuitStatus, DeliveryStatus, Histogram

# From the design: name -> type and labels. They never change.
FIXED = {
    "grantex_events_received_total": ("counter", set()),
    "grantex_events_delivered_total": ("counter", {"destination"}),
    "grantex_events_dead_lettered_total": ("counter", {"destination", "stage"}),
    "grantex_events_pending": ("gauge", {"destination"}),
    "grantex_feed_connections": ("gauge", set()),
    "grantex_feed_connections_wanted": ("gauge", set()),
    "grantex_feed_last_heard_timestamp_seconds": ("gauge", set()),
    "grantex_feed_last_event_timestamp_seconds": ("gauge", set()),
    "grantex_feed_gap_open": ("gauge", set()),
    "grantex_feed_gap_seconds_total": ("counter", set()),
    "grantex_feed_gaps_total": ("counter", set()),
    "grantex_standby": ("gauge", set()),
    "grantex_delivery_lag_seconds": ("gauge", {"destination"}),
    "grantex_request_seconds_bucket": ("histogram", {"destination", "le"}),
    "grantex_request_seconds_sum": ("histogram", {"destination"}),
    "grantex_request_seconds_count": ("histogram", {"destination"}),
    "grantex_retries_total": ("counter", {"destination"}),
    "grantex_circuit_open": ("gauge", {"destination"}),
}


def delivery(durations: list[float]) -> DeliveryStatus:
    seconds = Histogram()
    for duration in durations:
        seconds.record(duration)
    return DeliveryStatus(
        name="splunk",
        delivered=90,
        dead_lettered={"bad": 3},
        attempts=9,
        retries=4,
        unknown=0,
        pending=7,
        in_flight=1,
        waiting=0,
        circuit=CircuitStatus(open=True, since=1.0, next_probe=2.0, why="503"),
        last_error="503",
        last_error_at=1.0,
        oldest_taken_at=None,
        request_seconds=seconds,
    )


def taken(**more: Any) -> Snapshot:
    given: dict[str, Any] = {
        "at": 1000.0,
        "received": 100,
        "duplicates": 1,
        "feed_dead_letters": 2,
        "gaps": 3,
        "gap_open": True,
        "connections": [
            ConnectionStatus(Phase.LIVE, last_event_at=1_772_366_400.0, last_heard_at=1_772_366_402.0),
            ConnectionStatus(Phase.WAITING, last_heard_at=1_772_366_408.5),
        ],
        "connections_wanted": 2,
        "gap_seconds": 12.5,
        "journal_bytes": 5,
        "destinations": [
            DestinationSnapshot("splunk", Books(100, 90, 3, 7, 0), 2.5, delivery([0.004, 0.2, 100.0])),
            DestinationSnapshot("removed", Books(50, 20, 0, 30, 0), 99.0),
        ],
    }
    return Snapshot(**(given | more))


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """(name, label values in order of their names) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_the_names_types_and_labels_are_the_fixed_ones() -> None:
    found = {
        sample.name: (family.type, set(sample.labels))
        for family in text_string_to_metric_families(exposition(taken()).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert {name: found.get(name) for name in FIXED} == FIXED
    assert all(name.startswith("grantex_") for name in found)


def test_the_values_are_those_of_the_books() -> None:
    found = samples(exposition(taken()))
    assert found["grantex_events_received_total",] == 100
    assert found["grantex_feed_connections",] == 1
    assert found["grantex_feed_connections_wanted",] == 2
    assert found["grantex_feed_last_heard_timestamp_seconds",] == 1_772_366_408.5
    assert found["grantex_feed_last_event_timestamp_seconds",] == 1_772_366_400.0
    assert found["grantex_feed_gaps_total",] == 3
    assert found["grantex_feed_gap_open",] == 1
    assert found["grantex_feed_gap_seconds_total",] == 12.5
    assert found["grantex_events_delivered_total", "splunk"] == 90
    assert found["grantex_events_pending", "splunk"] == 7
    assert found["grantex_events_dead_lettered_total", "splunk", "write"] == 3
    assert found["grantex_events_dead_lettered_total", "", "feed"] == 2
    assert found["grantex_delivery_lag_seconds", "splunk"] == 2.5
    assert found["grantex_retries_total", "splunk"] == 4
    assert found["grantex_circuit_open", "splunk"] == 1


def test_a_removed_destination_keeps_its_books_on_the_page_and_nothing_else() -> None:
    found = samples(exposition(taken()))
    assert found["grantex_events_pending", "removed"] == 30
    assert found["grantex_delivery_lag_seconds", "removed"] == 99.0
    assert ("grantex_circuit_open", "removed") not in found


def test_each_bucket_holds_those_below_it_and_the_last_holds_all() -> None:
    found = samples(exposition(taken()))
    buckets = {key[2]: value for key, value in found.items() if key[0] == "grantex_request_seconds_bucket"}
    assert (buckets["0.005"], buckets["0.1"], buckets["0.25"], buckets["60.0"]) == (1, 1, 2, 2)
    assert buckets["+Inf"] == found["grantex_request_seconds_count", "splunk"] == 3
    assert found["grantex_request_seconds_sum", "splunk"] == 100.204
    in_order = sorted(buckets.items(), key=lambda item: float(item[0]))
    values = [value for _, value in in_order]
    assert values == sorted(values)


def test_before_any_destination_the_page_is_complete_all_the_same() -> None:
    found = samples(exposition(taken(destinations=[], connections=[])))
    assert found["grantex_feed_connections",] == 0
    assert found["grantex_feed_last_heard_timestamp_seconds",] == 0
    assert found["grantex_events_dead_lettered_total", "", "feed"] == 2


def test_webhooks_are_counted_by_what_became_of_them_where_they_are_taken() -> None:
    assert b"grantex_webhooks" not in exposition(taken())
    page = exposition(taken(webhooks={"accepted": 5, "stale": 0})).decode()
    assert 'grantex_webhooks_total{result="accepted"} 5.0' in page
    assert 'grantex_webhooks_total{result="stale"} 0.0' in page
