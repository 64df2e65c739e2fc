"""BigQuery's table: its name, how it is made, and whether its columns take our rows. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from transforms.structs import ready
from transforms.write.bigquery.rows import Column, SchemaName, columns

# A project may have its organisation before a colon ("example.com:my-project"). For forms as well as here, so
# without what only Python reads; that a table's name has no other signs is seen to by `parse_table`.
TABLE = r"([a-z0-9.-]+:)?[a-z][a-z0-9-]*[.:][A-Za-z0-9_]+\.[^ .:/]+"


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
    rest, _, table = text.rpartition(".")
    if not re.fullmatch(TABLE, text) or not re.fullmatch(r"[\w-]{1,1024}", table):
        raise ValueError("must be project.dataset.table, as BigQuery names it")
    project, dataset = re.split(r"[.:](?=[^.:]+$)", rest)
    if len(dataset) > 1024:
        raise ValueError("must be project.dataset.table, as BigQuery names it")
    return TableName(project, dataset, table)


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


@ready
class _Table(msgspec.Struct, frozen=True):
    schema: _Schema = _Schema()
    type: str = "TABLE"


def mismatch(table: TableName, schema: SchemaName, resource: Any) -> str:
    """Why the table cannot take our rows, and what to do; "" when it can.

    resource: the table as `tables.get` shows it. Further columns are fine as long as they may be empty;
    BigQuery does not mind the case of names. Raises ValueError for what is no table's resource.
    """
    found = msgspec.convert(resource, _Table)
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
