"""A real Prometheus scrapes a real job: every fixed name arrives, with values that make sense."""

from __future__ import annotations

import subprocess
from itertools import islice
from pathlib import Path

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Finish
from tests.integration.job import World
from tests.servers.prometheus import Prometheus, program

# design.md's table: dashboards, templates and outside checks rely on them.
NAMES = {
    "grantex_events_received_total": {},
    "grantex_events_delivered_total": {"destination"},
    "grantex_events_dead_lettered_total": {"destination", "stage"},
    "grantex_events_pending": {"destination"},
    "grantex_feed_connections": {},
    "grantex_feed_connections_wanted": {},
    "grantex_feed_last_heard_timestamp_seconds": {},
    "grantex_feed_last_event_timestamp_seconds": {},
    "grantex_feed_gap_open": {},
    "grantex_feed_gap_seconds_total": {},
    "grantex_feed_gaps_total": {},
    "grantex_delivery_lag_seconds": {"destination"},
    "grantex_request_seconds_bucket": {"destination", "le"},
    "grantex_request_seconds_count": {"destination"},
    "grantex_request_seconds_sum": {"destination"},
    "grantex_retries_total": {"destination"},
    "grantex_circuit_open": {"destination"},
}
ADDED_BY_PROMETHEUS = {"__name__", "instance", "job"}


def test_real_prometheus_scrapes_every_fixed_name(around: World, tmp_path: Path) -> None:
    program("prometheus")
    with around.live_job() as job:
        prometheus = Prometheus(tmp_path, job.port)
        with prometheus.process:
            around.feed.publish_many([*islice(generate(), 60), b"no JSON"])
            prometheus.wait_for('grantex_events_delivered_total{destination="splunk"} == 60')
            around.splunk.busy()
            around.feed.publish_many(islice(generate(), 40))
            prometheus.wait_for('grantex_circuit_open{destination="splunk"} == 1')
            prometheus.wait_for('grantex_events_delivered_total{destination="files"} == 100')
            assert prometheus.value('grantex_events_pending{destination="splunk"}') == 40
            prometheus.wait_for('grantex_delivery_lag_seconds{destination="splunk"} > 0.3')
            around.splunk.busy(0)
            prometheus.wait_for('grantex_events_delivered_total{destination="splunk"} == 100')
            around.feed.finish_streams(Finish.CUT)
            prometheus.wait_for("grantex_feed_gaps_total == 1")
            prometheus.wait_for("grantex_feed_connections == 1")
            for name, labels in NAMES.items():
                found = prometheus.query(name)
                assert found, f"{name} was not scraped"
                assert {key for series, _ in found for key in series} - ADDED_BY_PROMETHEUS == set(labels), (
                    name
                )
                assert all(value >= 0 for _, value in found), name
            assert prometheus.value("grantex_events_received_total") == 100
            assert prometheus.value('grantex_events_dead_lettered_total{stage="feed"}') == 1
            assert prometheus.value('grantex_retries_total{destination="splunk"}') >= 1
            assert prometheus.value('grantex_circuit_open{destination="splunk"}') == 0
            assert prometheus.value(
                'grantex_request_seconds_count{destination="splunk"}'
                ' == on(destination) grantex_request_seconds_bucket{le="+Inf"}'
            ) >= prometheus.value('grantex_retries_total{destination="splunk"}')
            # what a dashboard does with them
            assert prometheus.query("histogram_quantile(0.99, rate(grantex_request_seconds_bucket[1m]))")


def test_every_destination_has_every_name(around: World, tmp_path: Path) -> None:
    program("prometheus")
    names = {"bigquery", "s3", "datadog", "splunk", "kafka", "files"}
    ages = [f"--{name}_max_age=0.5" for name in names]
    with around.start(["--demo=true", f"--files_dir={around.out}", *ages]) as job:
        prometheus = Prometheus(tmp_path, job.port)
        with prometheus.process:
            prometheus.wait_for("count(grantex_events_delivered_total > 0) == 6")
            for name, labels in NAMES.items():
                if "destination" in labels:
                    found = {series.get("destination", "") for series, _ in prometheus.query(name)}
                    assert found - {""} == names, name
        assert job.drain() == 0


def test_promtool_finds_nothing_to_complain_of(around: World) -> None:
    promtool = program("promtool")
    with around.live_job() as job:
        around.feed.publish_many([*islice(generate(), 20), b"no JSON"])
        job.wait_until(lambda: job.metric("grantex_events_delivered_total", "splunk") == 20, "it delivered")
        page = job.get("/metrics")[1]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
