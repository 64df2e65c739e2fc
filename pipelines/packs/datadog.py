"""The catalogue for Datadog: a pipeline, monitors, a dashboard, a metric made of logs, rules of Cloud SIEM.

Bodies of the API's own requests, checked against the vendor's typed models in the tests. Monitors and widgets
count the attribute `id` (cardinality) and not logs, so that a repeat does not count twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.packs import runbook
from pipelines.packs.detection import Detection, Monitor, NewValue
from pipelines.packs.detections import CATALOGUE, named

Body = dict[str, Any]

SOURCE = "source:grantex"
TAGS = ["source:grantex", "managed_by:grantex-beam"]
PRIORITIES = {"critical": 2, "warning": 3, "info": 5}
# Attributes that the pipeline makes: what they are called, where they come from, and as what.
ATTRIBUTES = {
    "event_type": ("type", "auto"),
    "grant_id": ("data.grantId", "auto"),
    "agent_id": ("data.agentId", "auto"),
    "principal_id": ("data.principalId", "auto"),
    "scopes": ("data.scopes", "auto"),
    "cascade": ("data.cascade", "string"),
    "percent": ("data.pct", "string"),  # a number could not be grouped by
    "delegation_depth": ("data.delegationDepth", "integer"),
}
METRIC = "grantex.events"


def pipeline() -> Body:
    """The log pipeline: our message is the event's JSON as text, which Datadog does not take apart itself.

    It has no date remapper: a log that is too old for Datadog comes without `timestamp`, so that it is kept,
    and one made of createdAt would have it dropped after all.
    """
    remappers = [
        {
            "type": "attribute-remapper",
            "name": f"grantex.{name}",
            "is_enabled": True,
            "sources": [f"grantex.event.{path}"],
            "source_type": "attribute",
            "target": f"grantex.{name}",
            "target_type": "attribute",
            "preserve_source": True,
            "override_on_conflict": False,
            **({} if kind == "auto" else {"target_format": kind}),
        }
        for name, (path, kind) in ATTRIBUTES.items()
    ]
    parser = {
        "type": "grok-parser",
        "name": "The event, out of the message",
        "is_enabled": True,
        "source": "message",
        "samples": ['{"id":"evt_01","type":"grant.revoked","data":{"grantId":"grnt_01","cascade":false}}'],
        "grok": {"support_rules": "", "match_rules": "event %{data:grantex.event:json}"},
    }
    severity = {
        "type": "category-processor",
        "name": "How grave it is",
        "is_enabled": True,
        "target": "grantex.severity",
        "categories": [
            {"name": "warn", "filter": {"query": "@grantex.event_type:grant.revoked"}},
            {"name": "error", "filter": {"query": "@grantex.event_type:budget.exhausted"}},
            {"name": "info", "filter": {"query": SOURCE}},
        ],
    }
    status = {
        "type": "status-remapper",
        "name": "Status",
        "is_enabled": True,
        "sources": ["grantex.severity"],
    }
    return {
        "name": "Grantex",
        "is_enabled": True,
        "filter": {"query": SOURCE},
        "processors": [parser, *remappers, severity, status],
    }


def metric() -> Body:
    """A metric made of logs, for anomalies: log monitors have none. It counts repeats, which a deviation does
    not mind."""
    attributes = {
        "compute": {"aggregation_type": "count"},
        "filter": {"query": SOURCE},
        "group_by": [{"path": "@grantex.event_type", "tag_name": "event_type"}],
    }
    return {"data": {"id": METRIC, "type": "logs_metrics", "attributes": attributes}}


def monitors() -> Sequence[Body]:
    """Every monitor."""
    found = [
        monitor(one, one.datadog) for one in CATALOGUE if one.alerts and isinstance(one.datadog, Monitor)
    ]
    return [*found, anomaly_monitor()]


def message(detection: Detection) -> str:
    whom = "Tell somebody: add a handle such as @slack-security."
    entry = f"Runbook: {runbook.url(detection.name)}"
    return f"{detection.why}\n\nWhat to do: {detection.todo}\n\n{entry}\n\n{whom}"


def monitor(detection: Detection, settings: Monitor) -> Body:
    """One log monitor."""
    by = f'.by("{",".join(settings.by)}")' if settings.by else ""
    critical, warning = detection.filled(settings.critical), detection.filled(settings.warning)
    query = (
        f'logs("{SOURCE} {detection.filled(settings.search)}").index("*").rollup("cardinality", "@id"){by}'
        f'.last("{detection.filled(settings.window)}") > {critical}'
    )
    thresholds: Body = {"critical": float(critical)}
    if warning:
        thresholds["warning"] = float(warning)
    return {
        "name": f"Grantex: {detection.title}",
        "type": "log alert",
        "query": query,
        "message": message(detection),
        "tags": [*TAGS, f"detection:{detection.name}"],
        "priority": PRIORITIES[detection.severity],
        "options": {
            "thresholds": thresholds,
            "enable_logs_sample": True,
            "include_tags": True,
            "renotify_interval": 0,
            "on_missing_data": "resolve",  # no event is good news, and no sign of loss
        },
    }


def anomaly_monitor() -> Body:
    """Token issuance as a whole against its own past, as the service's guide has it: agile, 3 deviations."""
    detection = named("token_issuance_spike")
    series = f"sum:{METRIC}{{event_type:token.issued}}.as_count()"
    query = (
        f"avg(last_4h):anomalies({series}, 'agile', 3, direction='above', interval=60, "
        "alert_window='last_15m', count_default_zero='true', seasonality='hourly') >= 1"
    )
    return {
        "name": "Grantex: Token issuance unlike before",
        "type": "query alert",
        "query": query,
        "message": message(detection),
        "tags": [*TAGS, f"detection:{detection.name}"],
        "priority": PRIORITIES[detection.severity],
        "options": {
            "thresholds": {"critical": 1.0, "critical_recovery": 0.0},
            "threshold_windows": {"trigger_window": "last_15m", "recovery_window": "last_15m"},
            "include_tags": True,
            "notify_no_data": False,
            "require_full_window": False,
        },
    }


def security_rules() -> Sequence[Body]:
    """Rules of Cloud SIEM, which costs extra: values not seen for 28 days, the longest that it remembers."""
    return [
        _new_value(one, one.datadog) for one in CATALOGUE if one.alerts and isinstance(one.datadog, NewValue)
    ]


def _new_value(detection: Detection, settings: NewValue) -> Body:
    return {
        "name": f"Grantex: {detection.title}",
        "type": "log_detection",
        "isEnabled": True,
        "message": message(detection),
        "tags": [*TAGS, f"detection:{detection.name}"],
        "queries": [
            {
                "name": "new",
                "query": f"{SOURCE} {settings.search}",
                "aggregation": "new_value",
                "metrics": [settings.attribute],
                "groupByFields": list(settings.by),
                "distinctFields": [],
            }
        ],
        "cases": [{"name": "", "status": "medium", "notifications": []}],
        "options": {
            "detectionMethod": "new_value",
            "keepAlive": 0,
            "maxSignalDuration": 0,
            "evaluationWindow": 0,
            "newValueOptions": {
                "forgetAfter": 28,
                "learningMethod": "duration",
                "learningDuration": 1,
                "instantaneousBaseline": False,
            },
        },
    }


ONCE: Body = {"aggregation": "cardinality", "metric": "@id"}


def _query(search: str, by: str = "", limit: int = 10) -> Body:
    group: list[Body] = []
    if by:
        group = [{"facet": by, "limit": limit, "sort": {**ONCE, "order": "desc"}}]
    return {
        "data_source": "logs",
        "name": "found",
        "indexes": [],
        "search": {"query": f"{SOURCE} $principal {search}".strip()},
        "compute": dict(ONCE),
        "group_by": group,
    }


def _scalar(search: str, by: str = "", limit: int = 10) -> Body:
    return {
        "response_format": "scalar",
        "queries": [_query(search, by, limit)],
        "formulas": [{"formula": "found"}],
    }


def _value(title: str, search: str) -> Body:
    return {
        "definition": {"type": "query_value", "title": title, "precision": 0, "requests": [_scalar(search)]}
    }


def _list(title: str, search: str) -> Body:
    columns = ["timestamp", "@grantex.event_type", "@grantex.grant_id", "@grantex.percent"]
    request = {
        "response_format": "event_list",
        "columns": [{"field": name, "width": "auto"} for name in columns],
        "query": {
            "data_source": "logs_stream",
            "query_string": f"{SOURCE} $principal {search}".strip(),
            "indexes": [],
        },
    }
    return {"definition": {"type": "list_stream", "title": title, "requests": [request]}}


def _top(detection: Detection, search: str, by: str) -> Body:
    limit = int(detection.thresholds["most"].value) if "most" in detection.thresholds else 10
    requests = [_scalar(search, by, limit)]
    return {"definition": {"type": "toplist", "title": detection.title, "requests": requests}}


def dashboard() -> Body:
    """The dashboard: the five widgets that the service's guide promises, scopes, and a principal's trail."""
    by_type = {
        "response_format": "timeseries",
        "queries": [_query("", "@grantex.event_type", 30)],
        "formulas": [{"formula": "found"}],
        "display_type": "bars",
    }
    volume = {"type": "timeseries", "title": named("volume_by_type").title, "requests": [by_type]}
    return {
        "title": "Grantex",
        "description": "Events of Grantex, each counted once. Made by grantex-beam.",
        "layout_type": "ordered",
        "template_variables": [
            {
                "name": "principal",
                "prefix": "@grantex.principal_id",
                "available_values": [],
                "defaults": ["*"],
            }
        ],
        "widgets": [
            {"definition": volume},
            _value("Grants created", "type:grant.created"),
            _value("Grants revoked", "type:grant.revoked"),
            _list("Budget alerts", "type:(budget.threshold OR budget.exhausted)"),
            _top(named("top_agents"), "type:token.issued", "@grantex.agent_id"),
            _top(named("scope_usage"), "type:grant.created", "@grantex.scopes"),
            _list(f"{named('principal_audit').title} (choose one above)", ""),
        ],
    }


def files() -> Mapping[str, str]:
    """Path below templates/packs, and text."""
    bodies = {
        "pipeline": pipeline(),
        "monitors": monitors(),
        "dashboard": dashboard(),
        "metric": metric(),
        "security_rules": security_rules(),
    }
    return {f"datadog/{name}.json": json.dumps(body, indent=2) + "\n" for name, body in bodies.items()}
