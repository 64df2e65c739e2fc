"""A Grafana dashboard of this job's metrics, and of the service's own, with Grafana's typed models.

Nothing here is per agent: no metric has such a label. The models come with the development requirements and
need Python 3.11; the rendered file needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DATASOURCE = "${DS_PROMETHEUS}"
UID = "grantex-beam"


@dataclass(frozen=True)
class Chart:
    """One panel. queries: PromQL by legend; stat: a single number instead of lines; red: from here on."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    width: int = 8
    stat: bool = False
    red: float | None = None
    help: str = ""


ROWS: Mapping[str, Sequence[Chart]] = {
    "Feed": (
        Chart(
            "Connections",
            {"open": "grantex_feed_connections", "wanted": "grantex_feed_connections_wanted"},
            stat=True,
            width=4,
        ),
        Chart(
            "Nothing heard for",
            {"": "time() - (grantex_feed_last_heard_timestamp_seconds > 0)"},
            "s",
            4,
            True,
            90,
            "Keepalives come every 30 s.",
        ),
        Chart(
            "Gaps in 24 h",
            {"": "increase(grantex_feed_gaps_total[24h])"},
            "none",
            4,
            True,
            1,
            "Intervals that nobody heard.",
        ),
        Chart(
            "Received",
            {"{{instance}}": "rate(grantex_events_received_total[$__rate_interval])"},
            "cps",
            12,
        ),
        Chart(
            "Received by type",
            {"{{type}}": "sum by (type) (rate(grantex_received_by_type_total[$__rate_interval]))"},
            "cps",
            12,
        ),
        Chart(
            "Missing, by the service's ledger",
            {"": "increase(grantex_ledger_missing_total[24h])"},
            "none",
            6,
            True,
            1,
            "Events of the last 24 h that the ledger names and nobody received.",
        ),
        Chart(
            "Accounted for until",
            {"": "time() - (grantex_ledger_proven_until_timestamp_seconds > 0)"},
            "s",
            6,
            True,
            900,
            "How long ago that moment is.",
        ),
    ),
    "Destinations": (
        Chart(
            "Delivered",
            {
                "{{destination}}": "sum by (destination) "
                "(rate(grantex_events_delivered_total[$__rate_interval]))"
            },
            "cps",
        ),
        Chart("Pending", {"{{destination}}": "sum by (destination) (grantex_events_pending)"}),
        Chart(
            "Age of the oldest event not settled",
            {"{{destination}}": "max by (destination) (grantex_delivery_lag_seconds)"},
            "s",
        ),
        Chart(
            "Request, 99th percentile",
            {
                "{{destination}}": "histogram_quantile(0.99, sum by (le, destination) "
                "(rate(grantex_request_seconds_bucket[$__rate_interval])))"
            },
            "s",
        ),
        Chart(
            "Left alone (circuit open)",
            {"{{destination}}": "max by (destination) (grantex_circuit_open)"},
            red=1,
        ),
        Chart(
            "Dead letters in 1 h",
            {
                "{{destination}} {{stage}}": "sum by (destination, stage) "
                "(increase(grantex_events_dead_lettered_total[1h]))"
            },
        ),
        Chart(
            "Retries",
            {"{{destination}}": "sum by (destination) (rate(grantex_retries_total[$__rate_interval]))"},
            "cps",
        ),
        Chart(
            "Journal", {"in use": "grantex_journal_bytes", "at most": "grantex_journal_max_bytes"}, "bytes"
        ),
        Chart(
            "Restarts in 1 h",
            {"{{destination}}": "sum by (destination) (increase(grantex_lane_restarts_total[1h]))"},
        ),
    ),
    "The service itself": (
        Chart(
            "Token exchanges",
            {"{{status}}": "sum by (status) (rate(grantex_token_exchange_total[$__rate_interval]))"},
            "cps",
            6,
        ),
        Chart(
            "Authorize, 99th percentile",
            {
                "": "histogram_quantile(0.99, sum by (le) "
                "(rate(grantex_authorize_duration_seconds_bucket[$__rate_interval])))"
            },
            "s",
            6,
        ),
        Chart(
            "Webhook deliveries",
            {"{{status}}": "sum by (status) (rate(grantex_webhook_deliveries_total[$__rate_interval]))"},
            "cps",
            6,
        ),
        Chart(
            "Grants and anomalies",
            {
                "active grants": "sum(grantex_active_grants)",
                "anomalies open": "sum(grantex_anomalies_unacknowledged)",
                "revoked in 1 h": "sum(increase(grantex_grants_revoked_total[1h]))",
            },
            width=6,
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana 10 imports it; it asks for the Prometheus. Raises ImportError without the
    models."""
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    builder = (
        build.Dashboard("Grantex")
        .uid(UID)
        .tags(["grantex"])
        .description("grantex-beam: the feed, each destination; and the service's own metrics.")
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    number = 0
    for title, charts in ROWS.items():
        builder.with_row(build.Row(title))
        for chart in charts:
            number += 1
            builder.with_panel(_panel(chart).id(number))
    made: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(builder.build()))
    return {"__inputs": [INPUT], "__requires": REQUIRES, **made}


INPUT = {
    "name": "DS_PROMETHEUS",
    "label": "Prometheus",
    "description": "The Prometheus that scrapes grantex-beam.",
    "type": "datasource",
    "pluginId": "prometheus",
    "pluginName": "Prometheus",
}
REQUIRES = [
    {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.1.0"},
    {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
    {"type": "panel", "id": "stat", "name": "Stat", "version": ""},
    {"type": "panel", "id": "timeseries", "name": "Time series", "version": ""},
]


def _panel(chart: Chart) -> Any:
    from grafana_foundation_sdk.builders import common as build_common
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.builders import prometheus, stat, timeseries
    from grafana_foundation_sdk.models import common, dashboard

    source = dashboard.DataSourceRef(type_val="prometheus", uid=DATASOURCE)
    panel: Any
    if chart.stat:
        newest = build_common.ReduceDataOptions().calcs(["lastNotNull"])
        panel = stat.Panel().reduce_options(newest).graph_mode(common.BigValueGraphMode.NONE)
    else:
        legend = build_common.VizLegendOptions().show_legend(True)
        legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
        panel = timeseries.Panel().fill_opacity(10).legend(legend)
    panel.min(0).title(chart.title).unit(chart.unit).height(7).span(chart.width).datasource(source)
    if chart.help:
        panel.description(chart.help)
    steps = [dashboard.Threshold(value=None, color="green")]
    if chart.red is not None:
        steps.append(dashboard.Threshold(value=chart.red, color="red"))
    mode: Any = dashboard.ThresholdsMode.ABSOLUTE
    panel.thresholds(build.ThresholdsConfig().mode(mode).steps(steps))
    for number, (name, expr) in enumerate(chart.queries.items()):
        target = prometheus.Dataquery().expr(expr).ref_id(chr(ord("A") + number))
        target.datasource({"type": "prometheus", "uid": DATASOURCE})
        panel.with_target(target.legend_format(name) if name else target)
    return panel


def files() -> Mapping[str, str]:
    """Path below templates/packs, and text. Raises ImportError without the models."""
    return {"grafana/grantex_beam.json": json.dumps(dashboard(), indent=2) + "\n"}
