"""/metrics: the names that dashboards rely on, in a format that Prometheus reads; and docs/metrics.md."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.local.metrics import METRICS, exposition
from pipelines.local.proof import ProofStatus
from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from transforms.feed.journal import Books
from transforms.feed.status import ConnectionStatus, Phase
from transforms.write.delivery.status import CircuitStatus, DeliveryStatus, Histogram

# From the design: name -> type and labels. They never change.
FIXED = {
    "grantex_events_received_total": ("counter", set()),
    "grantex_events_delivered_total": ("counter", {"destination"}),
    "grantex_events_dead_lettered_total": ("counter", {"destination", "stage"}),
    "grantex_events_filtered_total": ("counter", {"destination"}),
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
    "grantex_events_unknown_total": ("counter", {"destination"}),
    "grantex_dead_letters_total": ("counter", {"destination", "cause"}),
    "grantex_received_by_type_total": ("counter", {"type"}),
    "grantex_journal_bytes": ("gauge", set()),
    "grantex_journal_max_bytes": ("gauge", set()),
    "grantex_lane_restarts_total": ("counter", {"destination"}),
    "grantex_destination_state": ("gauge", {"destination", "state"}),
    "grantex_webhooks_total": ("counter", {"result"}),
    "grantex_ledger_missing_total": ("counter", set()),
    "grantex_ledger_proven_until_timestamp_seconds": ("gauge", set()),
    "grantex_build_info": ("gauge", {"version"}),
}
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


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
        "journal_max_bytes": 50,
        "by_type": {"grant.created": 97, "other": 3},
        "letters": {"not_json": 2, "feed_gap": 1},
        "destinations": [
            DestinationSnapshot(
                "splunk", Books(100, 80, 3, 7, 0, 10), 2.5, delivery([0.004, 0.2, 100.0]), restarts=2
            ),
            DestinationSnapshot("removed", Books(50, 20, 0, 30, 0), 99.0),
        ],
    }
    return Snapshot(**(given | more))


def complete() -> Snapshot:
    """With everything that there is only sometimes."""
    proof = ProofStatus("wh_1", 1.0, 900.0, 3, 1, (), told_at=950.0)
    return taken(webhooks={"accepted": 5}, proof=proof)


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
        for family in text_string_to_metric_families(exposition(complete()).decode())
        for sample in family.samples
        if not sample.name.endswith("_created") and not sample.name.startswith("process_")
    }
    assert found == FIXED


def test_the_table_says_types_and_labels_as_they_are_and_each_help_ends_as_a_sentence() -> None:
    histogram = "grantex_request_seconds_bucket"
    declared = {
        one.shown if one.kind != "histogram" else histogram: (one.kind.value, set(one.labels))
        for one in METRICS
    }
    assert declared == {
        name: (kind, labels - {"le"})
        for name, (kind, labels) in FIXED.items()
        if name == histogram or kind != "histogram"
    }
    assert all(one.help.endswith(".") for one in METRICS)


def test_the_page_of_the_docs_is_made_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("pipelines.metrics_page", run_name="__main__")
    made = capsys.readouterr().out
    assert DOCS.read_text() == made, "out of date: python -m pipelines.metrics_page > docs/metrics.md"


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
    assert found["grantex_events_delivered_total", "splunk"] == 80
    assert found["grantex_events_filtered_total", "splunk"] == 10
    assert found["grantex_events_pending", "splunk"] == 7
    assert found["grantex_events_dead_lettered_total", "splunk", "write"] == 3
    assert found["grantex_events_dead_lettered_total", "", "feed"] == 2
    assert found["grantex_delivery_lag_seconds", "splunk"] == 2.5
    assert found["grantex_retries_total", "splunk"] == 4
    assert found["grantex_circuit_open", "splunk"] == 1
    assert found["grantex_dead_letters_total", "bad", "splunk"] == 3
    assert found["grantex_dead_letters_total", "feed_gap", ""] == 1
    assert found["grantex_received_by_type_total", "grant.created"] == 97
    assert found["grantex_journal_bytes",] == 5
    assert found["grantex_journal_max_bytes",] == 50
    assert found["grantex_lane_restarts_total", "splunk"] == 2
    assert found["grantex_destination_state", "splunk", "down"] == 1
    assert found["grantex_standby",] == 0
    assert found["process_resident_memory_bytes",] > 1_000_000


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
