"""What a practice BigQuery has: datasets, tables with their columns and rows, and what a cell takes.

From BigQuery's reference: data types, tables.insert, and "Streaming data into partitioned tables".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

# Streaming takes days from ten years ago to one year ahead.
PAST_DAYS, FUTURE_DAYS = 3650, 366
MAX_DEPTH = 500  # of JSON
# insertIds are forgotten after a minute or so.
MOST_INSERT_IDS = 10_000
Row = dict[str, Any]


@dataclass
class Table:
    """A table as `tables.insert` asked for it, and the rows that it took, in order."""

    resource: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    insert_ids: dict[str, None] = field(default_factory=dict)  # the latest

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """Its columns by name in lower case."""
        fields = self.resource.get("schema", {}).get("fields", ())
        return {one["name"].lower(): one for one in fields}

    @property
    def day_column(self) -> str:
        """The column that decides on the day's partition; "" when none does."""
        return str(self.resource.get("timePartitioning", {}).get("field", ""))

    def fault(self, row: Row) -> str:
        """Why `row` cannot go in; "" when it can."""
        columns = self.columns
        for name in row:
            if name not in columns:
                return f"no such field: {name}."
        for name, column in columns.items():
            value = row.get(name)
            if value is None:
                if column.get("mode") == "REQUIRED":
                    return f"Missing required field: {name}."
            elif why := cell_fault(column["type"], name, value):
                return why
        day = row.get(self.day_column)
        return "" if day is None else day_fault(self.day_column, day)

    def is_new(self, insert_id: str) -> bool:
        """Whether no row with this insertId came lately."""
        new = not insert_id or insert_id not in self.insert_ids
        self.insert_ids[insert_id] = None
        if len(self.insert_ids) > MOST_INSERT_IDS:
            del self.insert_ids[next(iter(self.insert_ids))]
        return new


class Tables:
    """Datasets ("projects/P/datasets/D") and tables ("…/tables/T") by path; safe for threads."""

    def __init__(self, datasets: Sequence[str]) -> None:
        self.lock = threading.RLock()
        self.datasets = set(datasets)
        self._tables: dict[str, Table] = {}

    def get(self, path: str) -> Table | None:
        with self.lock:
            return self._tables.get(path)

    def create(self, path: str, resource: dict[str, Any]) -> bool:
        """False when there is one already."""
        _, project, _, dataset, _, name = path.split("/")
        reference = {"projectId": project, "datasetId": dataset, "tableId": name}
        known = {"kind": "bigquery#table", "type": "TABLE", "tableReference": reference}
        with self.lock:
            new = path not in self._tables
            self._tables.setdefault(path, Table({**known, **resource}))
            return new

    def drop(self, path: str) -> None:
        with self.lock:
            self._tables.pop(path, None)

    def alter(self, path: str, fields: Sequence[Mapping[str, Any]]) -> None:
        """Give the table other columns, as ALTER TABLE does; its rows stay."""
        with self.lock:
            table = self._tables[path]
            table.resource = {**table.resource, "schema": {"fields": list(fields)}}


def cell_fault(kind: str, name: str, value: Any) -> str:
    """Why a column of this type cannot hold `value`; timestamps come in microseconds."""
    if kind == "JSON":
        return f"Invalid JSON in field {name}." if not is_json(value) else ""
    fits = isinstance(value, int if kind == "TIMESTAMP" else str)
    return "" if fits else f"Could not convert value to {kind}. Field: {name}."


def is_json(text: Any) -> bool:
    """Whether BigQuery's JSON type takes `text`."""
    try:
        json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False
    level = most = 0
    for letter in text:  # brackets inside strings count too: this is practice
        level += (letter in "[{") - (letter in "]}")
        most = max(most, level)
    return most <= MAX_DEPTH


def day_fault(column: str, micros: int) -> str:
    """Why no partition takes this moment, in the words that users of BigQuery report."""
    days = micros / 86_400e6 - datetime.now(timezone.utc).timestamp() / 86_400
    if -PAST_DAYS <= days <= FUTURE_DAYS:
        return ""
    return (
        f"Value {micros} for field {column} is outside the allowed bounds. You can only stream to date "
        f"range within {PAST_DAYS} days in the past and {FUTURE_DAYS} days in the future relative to the "
        "current date."
    )


def micros(text: Any) -> Any:
    """insertAll's text of a timestamp in microseconds; what is none stays as it is."""
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return text
    return int(moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() * 1_000_000)
