"""Rules and dashboard: every query is PromQL, of metrics that there are; promtool's unit tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from pipelines.local.metrics import exposition
from pipelines.local.verdict import State
from pipelines.packs.detections.exporter import SERVICE_RULES
from pipelines.packs.prometheus import exporter_rules
from tests.pipelines.local.test_metrics import complete
from tests.servers.prometheus import program

HERE = Path(__file__).parent
PACKS = HERE.parents[2] / "templates" / "packs"
GRAFANA = json.loads((PACKS / "grafana" / "grantex_beam.json").read_text())

# The service's own, as its guide names them.
SERVICES = {
    "grantex_token_exchange_total",
    "grantex_authorize_total",
    "grantex_grants_revoked_total",
    "grantex_webhook_deliveries_total",
    "grantex_anomalies_detected_total",
    "grantex_authorize_duration_seconds_bucket",
    "grantex_token_exchange_duration_seconds_bucket",
    "grantex_http_request_duration_seconds_count",
    "grantex_active_grants",
    "grantex_anomalies_unacknowledged",
}


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in GRAFANA["panels"] if panel["type"] != "row")


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bgrantex_\w+", expression))


def ours() -> set[str]:
    """What is on the job's own page."""
    families = text_string_to_metric_families(exposition(complete()).decode())
    return {sample.name for family in families for sample in family.samples}


def test_no_name_of_ours_is_one_of_the_services() -> None:
    assert not ours() & SERVICES


def test_rules_ask_for_metrics_that_there_are() -> None:
    asked = set().union(*(names(rule.expr) for _, rules in exporter_rules() for rule in rules))
    assert asked <= ours()
    assert set().union(*(names(rule.expr) for rule in SERVICE_RULES)) <= SERVICES


def test_every_panel_asks_for_metrics_that_there_are() -> None:
    there = ours() | SERVICES
    for panel in panels():
        for target in panel["targets"]:
            assert names(target["expr"]), panel["title"]
            assert names(target["expr"]) <= there, panel["title"]


def test_rules_ask_for_states_that_there_are() -> None:
    asked = {
        state
        for _, rules in exporter_rules()
        for rule in rules
        for state in re.findall(r'state="(\w+)"', rule.expr)
    }
    assert asked
    assert asked <= {state.name.lower() for state in State}


def test_no_panel_is_per_agent() -> None:
    assert "agent" not in json.dumps(GRAFANA), "no metric has such a label"


def test_the_dashboard_asks_for_its_prometheus() -> None:
    assert [one["name"] for one in GRAFANA["__inputs"]] == ["DS_PROMETHEUS"]
    for panel in panels():
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
        assert all(target["datasource"]["uid"] == "${DS_PROMETHEUS}" for target in panel["targets"])


def test_the_dashboard_has_a_row_for_the_service_and_panels_do_not_overlap() -> None:
    rows = [panel["title"] for panel in GRAFANA["panels"] if panel["type"] == "row"]
    assert rows == ["Feed", "Destinations", "The service itself"]
    taken: set[tuple[int, int]] = set()
    for panel in GRAFANA["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at.get("x", 0), at.get("x", 0) + at["w"])
            for y in range(at.get("y", 0), at.get("y", 0) + at["h"])
        }
        assert at.get("x", 0) + at["w"] <= 24, panel["title"]
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in GRAFANA["panels"] if "id" in panel}) >= len(list(panels()))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's models need Python 3.11")
def test_grafanas_own_models_read_the_dashboard_back() -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    given = {name: value for name, value in GRAFANA.items() if not name.startswith("__")}
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))
    assert again == given


@pytest.mark.parametrize("name", ["grantex_beam", "grantex_service"])
def test_promtool_accepts_the_rules(name: str) -> None:
    assert "SUCCESS" in promtool("check", "rules", str(PACKS / "prometheus" / f"{name}.rules.yml"))


def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId'].lower()}", "expr": plain(target["expr"])}
        for panel in panels()
        for target in panel["targets"]
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(path))


def plain(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m")


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    copy = tmp_path / "prometheus"
    copy.mkdir()
    for path in (PACKS / "prometheus").glob("*.yml"):
        (copy / path.name).write_text(path.read_text().replace("/etc/prometheus/", f"{tmp_path}/"))
    (tmp_path / "grantex_api_key").write_text("key")
    assert "SUCCESS" in promtool("check", "config", str(copy / "prometheus.yml"))


def test_each_rule_fires_when_it_must_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(HERE / "rules_test.yml"))


def test_each_rule_has_a_unit_test_that_fires_it() -> None:
    tests = yaml.safe_load((HERE / "rules_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    ours = {rule.alert for _, rules in exporter_rules() for rule in rules}
    assert ours <= fired
    kinds = {rule.alert.removesuffix("Critical") for rule in SERVICE_RULES}
    assert kinds <= {name.removesuffix("Critical") for name in fired} | {"GrantexAnomalies"}
