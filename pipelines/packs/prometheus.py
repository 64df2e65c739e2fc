"""The rules about this job and about the service for Prometheus, and how both are scraped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipelines.packs import runbook
from pipelines.packs.detection import Rule
from pipelines.packs.detections import CATALOGUE
from pipelines.packs.detections.exporter import SERVICE_RULES

PROMETHEUS = """# Both jobs, for a Prometheus of your own.
global:
  scrape_interval: 15s
rule_files:
  - grantex_beam.rules.yml
  - grantex_service.rules.yml
alerting:
  alertmanagers:
    - static_configs:
        - targets: ["127.0.0.1:9093"]
scrape_configs:
  - job_name: grantex-beam
    static_configs:
      - targets: ["127.0.0.1:8787"]
  # The service answers ten requests a minute, to your API key.
  - job_name: grantex-service
    scrape_interval: 30s
    scheme: https
    authorization:
      credentials_file: /etc/prometheus/grantex_api_key
    static_configs:
      - targets: ["api.grantex.dev"]
"""
ALERTMANAGER = """# One message for each alert, at once when it is critical.
route:
  receiver: somebody
  group_by: [alertname, destination]
  group_wait: 30s
  repeat_interval: 4h
  routes:
    - matchers: [severity="critical"]
      receiver: somebody
      group_wait: 0s
      repeat_interval: 1h
inhibit_rules:
  # What is critical says what its warning would say.
  - source_matchers: [alertname="GrantexDeliveryVeryLate"]
    target_matchers: [alertname="GrantexDeliveryLate"]
    equal: [instance, destination]
  - source_matchers: [alertname="GrantexJournalFull"]
    target_matchers: [alertname="GrantexJournalFilling"]
    equal: [instance]
  - source_matchers: [alertname="GrantexFeedDown"]
    target_matchers: [alertname=~"GrantexFeedSilent|GrantexFeedGapOpen|GrantexFeedFewConnections"]
    equal: [instance]
receivers:
  - name: somebody
    webhook_configs:
      - url: http://127.0.0.1:9095/alerts
"""


def exporter_rules() -> Sequence[tuple[str, Sequence[Rule]]]:
    """Groups by the detection's name, thresholds filled in."""
    groups = []
    for one in CATALOGUE:
        rules = [replace(each, expr=one.filled(each.expr)) for each in one.rules]
        if rules:
            groups.append((one.name, rules))
    return groups


def rule_file(groups: Sequence[tuple[str, Sequence[Rule]]]) -> str:
    """A rule file."""
    found = [{"name": name, "rules": [_rule(name, rule) for rule in rules]} for name, rules in groups]
    head = "# Made by `python -m pipelines.packs`; change the definitions, not this file.\n"
    text: str = yaml.safe_dump({"groups": found}, sort_keys=False, width=110, allow_unicode=True)
    return head + text


def _rule(detection: str, rule: Rule) -> dict[str, Any]:
    return {
        "alert": rule.alert,
        "expr": rule.expr,
        "for": rule.lasts,
        "labels": {"severity": rule.severity, "detection": detection},
        "annotations": {"summary": rule.summary, "runbook_url": runbook.url(rule.alert)},
    }


def files() -> Mapping[str, str]:
    """Path below templates/packs, and text."""
    return {
        "prometheus/grantex_beam.rules.yml": rule_file(exporter_rules()),
        "prometheus/grantex_service.rules.yml": rule_file([("grantex_service", SERVICE_RULES)]),
        "prometheus/prometheus.yml": PROMETHEUS,
        "prometheus/alertmanager.yml": ALERTMANAGER,
    }
