"""A practice BigQuery on loopback: datasets, tables and insertAll over REST, Storage Write over gRPC.

Faults on command: those of every practice server for REST, and `storage`'s for appends.

Sources: the reference of BigQuery's REST API (datasets, tables, tabledata.insertAll).
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Sequence
from typing import Any

import msgspec

from pipelines.practice import http_server
from pipelines.practice.bigquery_storage import PracticeStorage
from pipelines.practice.bigquery_tables import Row, Table, Tables, micros
from pipelines.practice.http_server import Answer, Request

PATH = re.compile(
    r"/bigquery/v2/(?P<dataset>projects/[\w.:-]+/datasets/\w+)"
    r"(?P<tables>/tables(/(?P<table>[\w-]+)(?P<insert>/insertAll)?)?)?"
)
MAX_BODY = 10_000_000
MAX_ROWS = 50_000
DATASET = "practice.grantex"


class InsertRow(msgspec.Struct, frozen=True):
    """One of insertAll's rows."""

    json: Row
    insert_id: str = msgspec.field(default="", name="insertId")


class Insert(msgspec.Struct, frozen=True):
    """The body of insertAll."""

    rows: list[InsertRow]
    skip_invalid: bool = msgspec.field(default=False, name="skipInvalidRows")


decode_insert = msgspec.json.Decoder(Insert).decode


class PracticeBigQuery(http_server.PracticeServer):
    """A context manager that serves REST on `url` and gRPC on `storage_url` until it is left.

    dataset: "project.dataset", the one that is there from the start. No credentials are asked for.
    refused_ids: rows with these event ids are refused, and why. stops: one bad row stops its innocent
    neighbours, as it does without skipInvalidRows. tls: for REST alone.
    """

    def __init__(
        self,
        port: int = 0,
        dataset: str = DATASET,
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        connection_age: float | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, keep_events=keep_events, keep_ids=keep_ids, tls=tls)
        self.project, _, self.dataset = dataset.rpartition(".")
        self.tables = Tables([self._dataset_path])
        self.refused_ids: dict[str, str] = {}
        self.stops = False
        self.storage = PracticeStorage(self.tables, self._took, self._fault, connection_age=connection_age)

    @property
    def storage_url(self) -> str:
        """Root of the Storage Write API, the same after `down` and `up`."""
        return self.storage.url

    def path(self, table: str) -> str:
        """Where the API has one of its tables."""
        return f"{self._dataset_path}/tables/{table}"

    def rows(self, table: str) -> list[Row]:
        """What is in a table, in the order it came."""
        found = self.tables.get(self.path(table))
        return found.rows if found else []

    # Both of its faces go away, hang and are slow together

    def up(self) -> None:
        super().up()
        self.storage.up()

    def down(self) -> None:
        super().down()
        self.storage.down()

    def hang(self, seconds: float | None = None) -> None:
        super().hang(seconds)
        self.storage.hang(seconds)

    def release(self) -> None:
        super().release()
        self.storage.release()

    def slow(self, seconds: float) -> None:
        super().slow(seconds)
        self.storage.slow(seconds)

    # Serving

    @property
    def _dataset_path(self) -> str:
        return f"projects/{self.project}/datasets/{self.dataset}"

    def judge(self, request: Request) -> Answer:
        found = PATH.fullmatch(request.path)
        if found is None:
            return error(404, "notFound", "Not Found")
        dataset = found["dataset"]
        if dataset not in self.tables.datasets:
            return error(404, "notFound", f"Not found: Dataset {short(dataset)}")
        if found["tables"] is None:
            _, project, _, name = dataset.split("/")
            known = {"kind": "bigquery#dataset", "id": short(dataset), "location": "EU"}
            return answer(200, {**known, "datasetReference": {"projectId": project, "datasetId": name}})
        if found["table"] is None:
            return self._create(dataset, request)
        path = f"{dataset}/tables/{found['table']}"
        table = self.tables.get(path)
        if table is None:
            return error(404, "notFound", f"Not found: Table {short(path)}")
        if found["insert"]:
            return self._insert(table, request)
        return answer(200, table.resource)

    def _create(self, dataset: str, request: Request) -> Answer:
        try:
            resource = json.loads(request.body)
            path = f"{dataset}/tables/{resource['tableReference']['tableId']}"
        except (ValueError, KeyError, TypeError):
            return error(400, "invalid", "Required parameter is missing: tableReference.tableId")
        resource |= {"kind": "bigquery#table", "id": short(path), "type": "TABLE"}
        if not self.tables.create(path, resource):
            return error(409, "duplicate", f"Already Exists: Table {short(path)}")
        return answer(200, resource)

    def _insert(self, table: Table, request: Request) -> Answer:
        if len(request.body) > MAX_BODY:
            return error(413, "uploadTooLarge", "Request payload size exceeds the limit: 10485760 bytes.")
        try:
            asked = decode_insert(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return error(400, "invalid", "Invalid JSON payload received.")
        if not asked.rows or len(asked.rows) > MAX_ROWS:
            return error(400, "invalid", "No rows present in the request, or too many.")
        rows = [in_micros(row.json, table) for row in asked.rows]
        faults = {index: why for index, row in enumerate(rows) if (why := self._fault(table, row))}
        said = [_insert_error(index, "invalid", why) for index, why in faults.items()]
        innocent = [index for index in range(len(rows)) if index not in faults]
        if faults and (self.stops or not asked.skip_invalid):
            said += [_insert_error(index, "stopped", "") for index in innocent]
        else:
            with self.tables.lock:
                new = [index for index in innocent if table.is_new(asked.rows[index].insert_id)]
                self._took(table, [rows[index] for index in new])
        reply = {"kind": "bigquery#tableDataInsertAllResponse"} | ({"insertErrors": said} if said else {})
        return answer(200, reply)

    def _fault(self, table: Table, row: Row) -> str:
        return self.refused_ids.get(str(row.get("event_id")), "") or table.fault(row)

    def _took(self, table: Table, rows: Sequence[Row]) -> None:
        if self._keep_events:
            table.rows += rows
        self.taken([str(row.get("event_id", "")) for row in rows])


def in_micros(given: Row, table: Table) -> Row:
    """A row with its timestamps as they are stored."""
    times = {name for name, column in table.columns.items() if column["type"] == "TIMESTAMP"}
    return {name: micros(value) if name in times else value for name, value in given.items()}


def _insert_error(index: int, reason: str, message: str) -> dict[str, Any]:
    return {"index": index, "errors": [{"reason": reason, "location": "", "message": message}]}


def short(path: str) -> str:
    """projects/P/datasets/D/tables/T as BigQuery's messages have it: P:D.T."""
    parts: Sequence[str] = path.split("/")[1::2]
    return f"{parts[0]}:{'.'.join(parts[1:])}"


def answer(status: int, content: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(content).encode())


def error(status: int, reason: str, message: str) -> Answer:
    """An answer in Google's form of errors."""
    said = {"reason": reason, "message": message, "domain": "global"}
    return answer(status, {"error": {"code": status, "message": message, "errors": [said]}})
