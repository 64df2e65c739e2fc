"""BigQuery's table: its name, whether its columns take our rows, and making it when it is missing (REST)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec

from transforms.way_out import WayOut
from transforms.write.bigquery.reply import MENDED, rest_outcome
from transforms.write.bigquery.rows import Column, SchemaName, columns
from transforms.write.contract import Outcome
from transforms.write.over_http.connection import user_agent

REST_ENDPOINT = "https://bigquery.googleapis.com"
# One small request each; Google's own client waits longer, but a writer must not hang at its start.
TABLE_SECONDS = 15.0
_PARTS = re.compile(r"(?P<project>(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*)[.:](?P<dataset>\w+)\.(?P<table>[\w-]+)")


@dataclass(frozen=True, slots=True)
class TableName:
    """A table's full name."""

    project: str
    dataset: str
    table: str

    @property
    def path(self) -> str:
        """As REST and gRPC write it."""
        return f"projects/{self.project}/datasets/{self.dataset}/tables/{self.table}"

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"


def parse_table(text: str) -> TableName:
    """ "project.dataset.table" (or the older "project:dataset.table"). Raises ValueError with what would be
    right."""
    found = _PARTS.fullmatch(text)
    if found is None or len(found["dataset"]) > 1024 or len(found["table"]) > 1024:
        raise ValueError("must be project.dataset.table, as BigQuery names it")
    return TableName(found["project"], found["dataset"], found["table"])


def definition(table: TableName, schema: SchemaName) -> dict[str, Any]:
    """The body of `tables.insert`: by day of created_at where that is a TIMESTAMP and else by day of arrival,
    clustered by type."""
    made: dict[str, Any] = {
        "tableReference": {
            "projectId": table.project,
            "datasetId": table.dataset,
            "tableId": table.table,
        },
        "description": "Events of Grantex, written by grantex-beam.",
        "schema": {"fields": [_field(column) for column in columns(schema)]},
        "timePartitioning": {"type": "DAY"},
        "clustering": {"fields": ["event_type"]},
    }
    if schema == "typed":
        made["timePartitioning"]["field"] = "created_at"
    return made


def _field(column: Column) -> dict[str, str]:
    mode = "REQUIRED" if column.required else "NULLABLE"
    return {"name": column.name, "type": column.type, "mode": mode, "description": column.description}


class _Field(msgspec.Struct, frozen=True):
    name: str
    type: str
    mode: str = "NULLABLE"


class _Schema(msgspec.Struct, frozen=True):
    fields: Sequence[_Field] = ()


class _Table(msgspec.Struct, frozen=True):
    schema: _Schema = _Schema()
    type: str = "TABLE"


_decoder = msgspec.json.Decoder(_Table)


def mismatch(table: TableName, schema: SchemaName, found: _Table) -> str:
    """Why the table cannot take our rows, and what to do; "" when it can.

    Further columns are fine as long as they may be empty; BigQuery does not mind the case of names.
    """
    if found.type != "TABLE":
        return f"{table} is a {found.type.lower()}, not a table: name a table with --bigquery_table"
    there = {field.name.lower(): field for field in found.schema.fields}
    missing = [column for column in columns(schema) if column.name not in there]
    wrong = [
        f"{column.name} is {_kind(there[column.name])} and should be {column.type}"
        for column in columns(schema)
        if column.name in there and not _same(column, there[column.name])
    ]
    ours = {column.name for column in columns(schema)}
    forced = [name for name, field in there.items() if name not in ours and field.mode == "REQUIRED"]
    if wrong or forced:
        faults = wrong + [f"{name} is REQUIRED and nothing of an event belongs there" for name in forced]
        other = "compatible" if schema == "typed" else "typed"
        return (
            f"{table} has other columns than --bigquery_schema={schema} writes: {', '.join(faults)}. Name "
            f"another table (it is created) or try --bigquery_schema={other}"
        )
    if missing:
        adds = ", ".join(f"ADD COLUMN {column.name} {column.type}" for column in missing)
        names = ", ".join(column.name for column in missing)
        return f"{table} lacks the column(s) {names}. Run: ALTER TABLE `{table}` {adds}"
    return ""


def _kind(field: _Field) -> str:
    return f"an array of {field.type}" if field.mode == "REPEATED" else field.type


def _same(column: Column, field: _Field) -> bool:
    return field.type.upper() == column.type and field.mode != "REPEATED"


class Tables:
    """Looks at the table and makes it; `ready` is all there is to call."""

    def __init__(self, table: TableName, schema: SchemaName, endpoint: str | None, way_out: WayOut) -> None:
        self._table, self._schema, self._way_out = table, schema, way_out
        self._root = f"{endpoint or REST_ENDPOINT}/bigquery/v2"

    def ready(self, where: str, headers: Mapping[str, str], count: int) -> Outcome | None:
        """None when the table is there, perhaps since now, with our columns; else what that means for a
        batch of `count` events. Raises httpx.TransportError."""
        with httpx.Client(
            headers={"User-Agent": user_agent(), **headers},
            verify=self._way_out.tls(client=False),
            timeout=TABLE_SECONDS,
            trust_env=False,
        ) as client:
            reply = client.get(f"{self._root}/{self._table.path}")
            if reply.status_code == 404:
                made = self._create(client, where, count)
                if made is not None:
                    return made
                reply = client.get(f"{self._root}/{self._table.path}")
        if reply.status_code != 200:
            return self._refused(where, reply, count)
        try:
            fault = mismatch(self._table, self._schema, _decoder.decode(reply.content))
        except msgspec.MsgspecError:
            fault = "the answer is not BigQuery's: check --bigquery_endpoint and what stands in between"
        if fault:
            return Outcome(later=range(count), cause=f"{where}: {fault}. {MENDED}.", blocked=True)
        return None

    def _create(self, client: httpx.Client, where: str, count: int) -> Outcome | None:
        table = self._table
        dataset = f"{self._root}/projects/{table.project}/datasets/{table.dataset}"
        if client.get(dataset).status_code == 404:
            cause = (
                f"{where}: the dataset {table.project}.{table.dataset} does not exist, or these credentials "
                f"may not see it. {MENDED}: create it where the data is to live, for example "
                f"`bq --location=EU mk --dataset {table.project}:{table.dataset}`."
            )
            return Outcome(later=range(count), cause=cause, blocked=True)
        reply = client.post(f"{dataset}/tables", json=definition(table, self._schema))
        if reply.is_success or reply.status_code == 409:  # another writer was quicker
            return None
        return self._refused(where, reply, count)

    def _refused(self, where: str, reply: httpx.Response, count: int) -> Outcome:
        outcome = rest_outcome(where, reply.status_code, reply.headers, reply.content, count, time.time())
        return replace(outcome, unknown=False)  # of the batch nothing has been sent
