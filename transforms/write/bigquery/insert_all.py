"""Writes batches through BigQuery's tabledata.insertAll: at least once, most repeats removed by insertId."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from google.api_core.exceptions import BadRequest

from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.write.bigquery.reply import insert_outcome
from transforms.write.bigquery.rest import FAILED, Rest, failed
from transforms.write.bigquery.rows import insert_id, json_row, json_text_row
from transforms.write.contract import Outcome, Writer, finding
from transforms.write.google import GoogleToken

if TYPE_CHECKING:
    from transforms.write.bigquery.destination import BigQuery


def is_for_no_rows(error: Exception) -> bool:
    """Whether BigQuery refused a request because nothing was in it: "No rows present in the request."."""
    return isinstance(error, BadRequest) and "no rows" in str(error).lower()


class InsertAllWriter(Writer):
    """One connection that posts rows."""

    def __init__(self, settings: BigQuery) -> None:
        self._schema = settings.schema
        self._table = str(settings.name_of_table)
        self._where = f"BigQuery table {self._table}"
        self._token = GoogleToken(anonymous=settings.anonymous, way_out=settings.way_out)
        self._rest = Rest(settings, self._token)
        self._table_ready = False

    def write(self, batch: Batch) -> Outcome | None:
        """Post `batch` once, and once more what is refused for what is in it, then as nothing but text."""
        if not self._table_ready:
            outcome = self._rest.ready(self._where, len(batch.events))
            if outcome is not None:
                return outcome
            self._table_ready = True
        batch.place = self._table
        outcome = self._post(batch.events)
        if outcome is not None and outcome.rejected and self._schema == "typed":
            outcome = self._post_as_text(batch.events, outcome)
        if outcome is not None and outcome.blocked:
            self._table_ready = False  # look again: it may have been deleted, changed or put right
        return outcome

    def _post(self, events: Sequence[Event], *, as_text: bool = False) -> Outcome | None:
        rows = [json_text_row(event) if as_text else json_row(event, self._schema) for event in events]
        try:
            faults = self._rest.insert(rows, [insert_id(event) for event in events])
        except FAILED as error:
            return failed(error, len(events), self._where)
        return insert_outcome(self._where, faults, len(events))

    def _post_as_text(self, events: Sequence[Event], first: Outcome) -> Outcome | None:
        """A moment outside of what partitions take, or JSON that BigQuery's type does not: still an event."""
        refused = sorted(first.rejected)
        second = self._post([events[index] for index in refused], as_text=True) or Outcome()
        rejected = {refused[index]: reason for index, reason in second.rejected.items()}
        later = sorted({*first.later, *(refused[index] for index in second.later)})
        if not (rejected or later):
            return None
        return replace(
            first,
            rejected=rejected,
            later=later,
            blocked=first.blocked or second.blocked,
            cause=second.cause or first.cause,
            retry_after=second.retry_after,
            too_large=second.too_large,
            unknown=first.unknown or second.unknown,
        )

    def check(self) -> Iterator[Finding]:
        """Post no row at all: who may not insert is told so, and who may is told that there is none."""
        what = "the right to insert"
        try:
            self._rest.insert([], [])
        except FAILED as error:
            outcome = None if is_for_no_rows(error) else failed(error, 0, self._where)
            yield finding(what, outcome)
        else:
            yield Finding(what, True)

    def close(self) -> None:
        """Let go; a request that hangs in another thread fails at once."""
        self._rest.close()
        self._token.close()
