"""BigQuery: its parameters, the rule between them, and the destination they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.flags.command_line import Arrived
from pipelines.flags.parameter import Group, byte_count, choice, seconds, text, url, whole
from transforms.write.bigquery.destination import MOST_BYTES, MOST_ROWS, BigQuery
from transforms.write.bigquery.table import parse_table

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("BigQuery", destination="bigquery", first="bigquery_table")


def table(text: str) -> str:
    """A table's full name, as BigQuery and its older tools write it."""
    return str(parse_table(text))


@dataclass(frozen=True, kw_only=True)
class BigQueryParameters:
    bigquery_table: str = text(
        GROUP,
        "",
        "Table that events go to; it is created when missing, its dataset is not.",
        read=table,
        placeholder="PROJECT.DATASET.TABLE",
        pattern=r"[^\s.:]+(:[^\s.:]+)?[.:][^\s.:]+[.][^\s.:]+",
        param_type="BIGQUERY_TABLE",
        in_demo=False,
        example="my-project.grantex.events",
    )
    bigquery_method: Literal["storage_write", "insert_all"] = choice(
        GROUP,
        "storage_write",
        "storage_write: each event once; insert_all: at least once.",
        ("storage_write", "insert_all"),
    )
    bigquery_schema: Literal["typed", "compatible"] = choice(
        GROUP,
        "typed",
        "typed: TIMESTAMP and JSON columns; compatible: four STRING columns.",
        ("typed", "compatible"),
    )
    bigquery_endpoint: str = url(
        GROUP,
        "",
        "Root of another REST service; http:// is an emulator without credentials.",
        ours="/bigquery/v2",
        example="http://127.0.0.1:9050",
    )
    bigquery_storage_endpoint: str = url(
        GROUP,
        "",
        "Root of another Storage Write (gRPC) service.",
        parent=("bigquery_method", "storage_write"),
        ours="/google.cloud",
        example="http://127.0.0.1:9060",
    )
    bigquery_max_events: int = whole(GROUP, 500, "Events in one request.", at_least=1, at_most=MOST_ROWS)
    # BigQuery refuses requests above 10 MB; the rest is room for what surrounds the rows.
    bigquery_max_bytes: int = byte_count(GROUP, 9_000_000, "Bytes in one request.", at_most=MOST_BYTES)
    bigquery_max_age: float = seconds(GROUP, 5, "How long an event waits for others.")


def faults(settings: Settings, arrived: Arrived) -> Iterator[str]:
    """Half of an emulator would send the other half of the calls to Google without credentials."""
    rest, storage = settings.bigquery_endpoint, settings.bigquery_storage_endpoint
    if settings.bigquery_method == "storage_write" and rest.startswith("http://") and not storage:
        yield (
            f"{arrived.source('bigquery_endpoint')}: an emulator needs --bigquery_storage_endpoint, too, or "
            "--bigquery_method=insert_all"
        )


def destination(settings: Settings) -> BigQuery:
    """What `settings` ask for."""
    return BigQuery(
        table=settings.bigquery_table,
        method=settings.bigquery_method,
        schema=settings.bigquery_schema,
        endpoint=settings.bigquery_endpoint or None,
        storage_endpoint=settings.bigquery_storage_endpoint or None,
        way_out=settings.way_out,
        policy=settings.batch_policy(GROUP.destination),
    )
