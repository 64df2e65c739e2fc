"""Writes batches through BigQuery's tabledata.insertAll: at least once, most repeats removed by insertId."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
from google.auth.exceptions import GoogleAuthError

from transforms.event import Batch, Event
from transforms.write.bigquery.reply import insert_outcome, rest_outcome
from transforms.write.bigquery.rows import insert_body, json_row, json_text_row
from transforms.write.bigquery.table import REST_ENDPOINT, Tables
from transforms.write.contract import Outcome, Writer
from transforms.write.failure import as_outcome, is_delivered
from transforms.write.google import GoogleToken, token_outcome
from transforms.write.over_http.connection import HttpConnection

if TYPE_CHECKING:
    from transforms.write.bigquery.destination import BigQuery


class InsertAllWriter(Writer):
    """One connection that posts rows."""

    def __init__(self, settings: BigQuery) -> None:
        table = settings.name_of_table
        self._schema = settings.schema
        self._where = f"BigQuery table {table}"
        self._token = GoogleToken(anonymous=settings.anonymous)
        self._tables = Tables(table, settings.schema, settings.endpoint, settings.way_out)
        self._table_ready = False
        url = f"{settings.endpoint or REST_ENDPOINT}/bigquery/v2/{table.path}/insertAll"
        self._connection = HttpConnection(url, {"Content-Type": "application/json"}, settings.way_out)

    def write(self, batch: Batch) -> Outcome | None:
        """Post `batch` once, and once more what is refused for what is in it, then as nothing but text."""
        count = len(batch.events)
        try:
            headers = self._token.headers()
            if not self._table_ready:
                outcome = self._tables.ready(self._where, headers, count)
                if outcome is not None:
                    return outcome
                self._table_ready = True
            outcome = self._post([json_row(event, self._schema) for event in batch.events], headers)
            if outcome is not None and outcome.rejected and self._schema == "typed":
                outcome = self._post_as_text(batch.events, outcome, headers)
        except GoogleAuthError as error:
            return token_outcome(error, count, self._where)
        except httpx.TransportError as error:
            return as_outcome(error, count, self._where)
        if outcome is not None and outcome.blocked:
            self._table_ready = False  # look again: it may have been deleted, changed or mended
        return outcome

    def _post(self, rows: Sequence[bytes], headers: Mapping[str, str]) -> Outcome | None:
        for name, value in headers.items():
            self._connection.set_header(name, value)
        reply = self._connection.post(insert_body(rows))
        if is_delivered(reply.status):
            return insert_outcome(self._where, reply.body, len(rows))
        if reply.status == 401:
            self._token.forget()
        return rest_outcome(self._where, reply.status, reply.headers, reply.body, len(rows), time.time())

    def _post_as_text(
        self, events: Sequence[Event], first: Outcome, headers: Mapping[str, str]
    ) -> Outcome | None:
        """A moment outside of what partitions take, or JSON that BigQuery's type does not: still an event."""
        refused = sorted(first.rejected)
        second = self._post([json_text_row(events[index]) for index in refused], headers) or Outcome()
        rejected = {refused[index]: reason for index, reason in second.rejected.items()}
        later = sorted({*first.later, *(refused[index] for index in second.later)})
        if not (rejected or later):
            return None
        return replace(
            first,
            rejected=rejected,
            later=later,
            blocked=first.blocked or second.blocked,
            unknown=first.unknown or second.unknown,
        )

    def close(self) -> None:
        self._connection.close()
