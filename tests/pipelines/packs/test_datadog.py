"""Bodies for Datadog's API as its own typed models have them, and free of the guides' mistakes.

What a monitor finds nobody could try here: `make verify-datadog` does, on an account.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datadog_api_client import Configuration
from datadog_api_client.model_utils import ModelNormal, ModelSimple, validate_and_convert_types
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.logs_pipeline import LogsPipeline
from datadog_api_client.v1.model.monitor import Monitor
from datadog_api_client.v2.model.logs_metric_create_request import LogsMetricCreateRequest
from datadog_api_client.v2.model.security_monitoring_standard_rule_create_payload import (
    SecurityMonitoringStandardRuleCreatePayload,
)

from pipelines.packs import datadog
from pipelines.packs.detections import CATALOGUE

PACK = Path(__file__).parents[3] / "templates" / "packs" / "datadog"


def bodies() -> Iterator[tuple[str, type, Any]]:
    for name, model in (
        ("pipeline", LogsPipeline),
        ("dashboard", Dashboard),
        ("metric", LogsMetricCreateRequest),
    ):
        yield name, model, json.loads((PACK / f"{name}.json").read_text())
    for body in json.loads((PACK / "monitors.json").read_text()):
        yield body["name"], Monitor, body
    for body in json.loads((PACK / "security_rules.json").read_text()):
        yield body["name"], SecurityMonitoringStandardRuleCreatePayload, body


def typed(model: type, body: Any) -> Any:
    """`body` as an object of the vendor's model. Raises what the client raises."""
    return validate_and_convert_types(body, (model,), ["body"], True, True, Configuration())


def unknown(found: Any, path: str = "") -> Iterator[str]:
    """Parts that the models do not know."""
    if getattr(found, "_unparsed", False):
        yield f"{path}: {found}"
    if isinstance(found, ModelNormal):
        known = set(found.attribute_map)
        for name, value in found._data_store.items():
            if name not in known:
                yield f"{path}.{name}"
            yield from unknown(value, f"{path}.{name}")
    elif isinstance(found, list):
        for number, each in enumerate(found):
            yield from unknown(each, f"{path}[{number}]")
    elif isinstance(found, ModelSimple):
        return
    elif hasattr(found, "_composed_instances"):
        for each in found._composed_instances:
            yield from unknown(each, path)


@pytest.mark.parametrize(
    ("name", "model", "body"), list(bodies()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_the_vendors_models_know_every_part_of_it(name: str, model: type, body: Any) -> None:
    assert list(unknown(typed(model, body))) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("monitors", lambda body: body[0].update(type="logs alert")),
        ("monitors", lambda body: body[0]["options"].update(thresholds={"critical": "many"})),
        ("monitors", lambda body: body[0]["options"].update(renotify="never")),
        ("pipeline", lambda body: body["processors"][0].update(type="grok")),
        ("pipeline", lambda body: body["processors"][1].update(target_format="text")),
        ("dashboard", lambda body: body["widgets"][0]["definition"].update(type="time")),
    ],
)
def test_a_slip_would_be_found(name: str, change: Any) -> None:
    body = json.loads((PACK / f"{name}.json").read_text())
    change(body)
    model = {"monitors": Monitor, "pipeline": LogsPipeline, "dashboard": Dashboard}[name]
    try:
        found = typed(model, body[0] if isinstance(body, list) else body)
    except Exception:  # noqa: BLE001  whichever the client raises
        return
    assert list(unknown(found))


def test_monitors_count_ids_and_none_is_a_heartbeat() -> None:
    for body in datadog.monitors():
        if body["type"] == "log alert":
            assert '.rollup("cardinality", "@id")' in body["query"], body["name"]
        assert " > " in body["query"] or " >= " in body["query"], "no monitor fires for silence"
        assert body["options"].get("notify_no_data", False) is False


def test_monitors_use_attributes_that_the_pipeline_makes() -> None:
    texts = json.dumps([datadog.monitors(), datadog.dashboard(), datadog.security_rules(), datadog.metric()])
    used = set(re.findall(r"@grantex\.(\w+)", texts))
    assert used <= set(datadog.ATTRIBUTES)


def test_the_pipeline_makes_no_date_of_its_own() -> None:
    kinds = {one["type"] for one in datadog.pipeline()["processors"]}
    assert "date-remapper" not in kinds, "an event that is too old would be dropped after all"


def test_the_guides_monitors_are_there_with_their_thresholds() -> None:
    found = {body["name"]: body for body in datadog.monitors()}
    spike = found["Grantex: Revocation spike"]
    assert spike["options"]["thresholds"] == {"critical": 50.0, "warning": 10.0}
    assert 'last("5m") > 50' in spike["query"]
    assert found["Grantex: Budget exhausted"]["query"].endswith("> 0")
    assert "'agile', 3" in found["Grantex: Token issuance unlike before"]["query"]


def test_the_dashboard_has_the_guides_five_widgets() -> None:
    kinds = [widget["definition"]["type"] for widget in datadog.dashboard()["widgets"]]
    assert kinds[:5] == ["timeseries", "query_value", "query_value", "list_stream", "toplist"]


def test_every_alert_about_events_is_a_monitor_or_a_rule() -> None:
    wanted = {one.name for one in CATALOGUE if one.alerts and one.datadog is not None}
    made = {
        tag.partition(":")[2]
        for body in (*datadog.monitors(), *datadog.security_rules())
        for tag in body["tags"]
    }
    assert wanted <= made
