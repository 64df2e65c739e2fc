"""Every rendered file of the packs, by its path in the tree."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.packs import datadog, grafana, page, prometheus, retention, runbook, splunk, sql
from pipelines.packs.detection import Detection
from pipelines.packs.detections import CATALOGUE


def rendered(*, with_grafana: bool = True) -> Mapping[str, str]:
    """Text by path. Raises ImportError where Grafana's models are missing and `with_grafana` wants them."""
    files = {**queries(), **splunk.files(), **datadog.files(), **prometheus.files(), **retention.files()}
    if with_grafana:
        files.update(grafana.files())
    found = {f"templates/packs/{name}": text for name, text in files.items()}
    return {**found, "docs/packs.md": page.page(), runbook.PAGE: runbook.page()}


def queries() -> Mapping[str, str]:
    """SQL files by path below templates/packs."""
    head = f"-- Replace {sql.BIGQUERY_TABLE} with your table."
    views = f"{head}\n-- For --bigquery_schema=compatible see views_compatible.sql.\n\n"
    compatible = f"{head} For --bigquery_schema=compatible.\n\n"
    found = {
        "bigquery/views.sql": views + "\n".join(sql.bigquery_views().values()),
        "bigquery/views_compatible.sql": compatible
        + "\n".join(sql.bigquery_views(schema="compatible").values()),
        "athena/table.sql": f"-- Replace {sql.ATHENA_LOCATION} with your bucket and prefix.\n"
        + sql.athena_table(),
        "athena/views.sql": "-- Athena runs one statement at a time.\n\n"
        + "\n".join(sql.athena_views().values()),
    }
    for one in CATALOGUE:
        if one.sql:
            found[f"bigquery/{one.name}.sql"] = f"{_comment(one)}{sql.query(one, 'bigquery')}"
            found[f"athena/{one.name}.sql"] = f"{_comment(one)}{sql.query(one, 'athena')}"
    return found


def _comment(one: Detection) -> str:
    lines = [f"{one.title}. {one.why}", f"What to do: {one.todo}"]
    return "".join(f"-- {line}\n" for line in lines)
