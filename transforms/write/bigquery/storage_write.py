"""Writes batches through BigQuery's Storage Write API, each row once even over a crash.

Each writer appends to a COMMITTED stream of its own, with offsets. Before an append, (stream, offset, rows)
is remembered with the batch. One rule makes that enough: **an offset of a stream belongs to one batch for
ever**. After anything but success the writer leaves its stream; whoever tries the batch again first finalizes
the stream in the memo, which keeps a late append out, and reads its row count: the rows are in it, or they
never will be and go into another stream.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import httpx
import msgspec
from google.auth.exceptions import GoogleAuthError

from transforms.event import Batch
from transforms.write.bigquery.credentials import GoogleToken, token_outcome
from transforms.write.bigquery.reply import (
    ALREADY_EXISTS,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    STREAM_IS_OVER,
    UNAUTHENTICATED,
    Status,
    row_errors_outcome,
    status_outcome,
)
from transforms.write.bigquery.rows import descriptor, proto_row, proto_text_row
from transforms.write.bigquery.status import status_of_call, status_of_reply
from transforms.write.bigquery.storage_client import Appends, StorageClient, append_request, row_errors
from transforms.write.bigquery.table import Tables
from transforms.write.contract import Outcome, Writer
from transforms.write.over_http.outcome import KEPT
from transforms.write.transient import as_outcome

if TYPE_CHECKING:
    from transforms.write.bigquery.destination import BigQuery

log = logging.getLogger("grantex.write")

# BigQuery takes 10 MB a request; the rest is for the schema, the names and the framing.
MAX_ROWS_BYTES = 9_900_000


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """Where a batch was about to be appended."""

    stream: str
    offset: int
    rows: int


_memo = msgspec.json.Decoder(Memo)


class StorageWriter(Writer):
    """One stream at a time, one append in flight."""

    def __init__(self, settings: BigQuery) -> None:
        self._schema = settings.schema
        self._path = settings.name_of_table.path
        self._where = f"BigQuery table {settings.name_of_table}"
        self._token = GoogleToken(anonymous=settings.anonymous)
        self._tables = Tables(settings.name_of_table, settings.schema, settings.endpoint, settings.ca_file)
        self._descriptor = descriptor(settings.schema)
        self._client = StorageClient(settings.storage_endpoint, self._token, settings.ca_file)
        self._table_ready = False
        self._stream = ""
        self._offset = 0
        self._appends: Appends | None = None
        self._closed = False

    def write(self, batch: Batch) -> Outcome | None:
        """Append `batch` once, unless an earlier attempt turns out to have done it."""
        outcome: Outcome | None = None
        settled = False
        count = len(batch.events)
        try:
            outcome = self._attempt(batch)
            settled = outcome is None
        except grpc.RpcError as error:
            outcome = self._judge(status_of_call(error), count)
        except GoogleAuthError as error:
            outcome = token_outcome(error, count, self._where)
        except httpx.TransportError as error:  # from looking at the table: no rows were sent
            found = as_outcome(error, count, self._where)
            outcome = None if found is None else replace(found, unknown=False)
        except (TimeoutError, ConnectionError) as error:
            outcome = Outcome(later=range(count), cause=f"{self._where}: {error}. {KEPT}.")
        except ValueError:  # gRPC's way to say that the channel is closed
            if not self._closed:
                raise
            outcome = Outcome(later=range(count), cause=f"{self._where}: this program stops. {KEPT}.")
        finally:
            if not settled:
                self._leave_stream()
        return outcome

    def close(self) -> None:
        """Let go; an append that hangs in another thread fails at once. What is in the stream stays."""
        self._closed = True
        appends = self._appends
        if appends is not None:
            appends.close()
        self._client.close()

    def _attempt(self, batch: Batch) -> Outcome | None:
        count = len(batch.events)
        if not self._table_ready:
            outcome = self._tables.ready(self._where, self._token.headers(), count)
            if outcome is not None:
                return outcome
            self._table_ready = True
        if batch.memo and self._is_in(_memo.decode(batch.memo), count):
            return None
        rows = [proto_row(event, self._schema) for event in batch.events]
        if sum(map(len, rows)) + 8 * count > MAX_ROWS_BYTES:
            cause = f"{self._where} takes 10 MB at a time and {count} rows are more"
            return Outcome(later=range(count), cause=cause, too_large=True)
        return self._append(batch, rows)

    def _is_in(self, memo: Memo, count: int) -> bool:
        """Whether the append that `memo` tells of has been written; if not, it never will be."""
        if memo.stream == self._stream:  # everything before our own offset has been confirmed
            return memo.offset + memo.rows <= self._offset
        try:
            return self._client.finalize(memo.stream) >= memo.offset + memo.rows
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        # Streams go with their table, or days after their last append.
        log.warning(
            "%s: %d events were being appended to a stream that is gone; they are sent again and may repeat",
            self._where,
            count,
        )
        return False

    def _append(self, batch: Batch, rows: list[bytes]) -> Outcome | None:
        if not self._stream:
            self._stream, self._offset = self._client.create_stream(self._path), 0
        batch.remember(msgspec.json.encode(Memo(self._stream, self._offset, len(rows))))
        reply = self._send(rows)
        as_text: set[int] = set()
        while more := {index for index, _ in row_errors(reply, len(rows))} - as_text:
            if self._schema != "typed":
                break
            # A moment outside of what partitions take, or JSON that BigQuery's type does not: still an
            # event. Nothing was written, so the same rows go to the same place, these as nothing but text.
            as_text |= more
            for index in more:
                rows[index] = proto_text_row(batch.events[index])
            self._hang_up()  # whether BigQuery goes on with a call after that is not promised
            reply = self._send(rows)
        code = int(reply.error.code)
        # The offset is ours alone, so whatever exists there already is this batch.
        if code in (OK, ALREADY_EXISTS) and not reply.row_errors:
            self._offset += len(rows)
            return None
        outcome = row_errors_outcome(self._where, row_errors(reply, len(rows)), len(rows))
        status = status_of_reply(reply.error)
        return outcome or self._judge(status._replace(code=code or INVALID_ARGUMENT), len(rows))

    def _send(self, rows: list[bytes]) -> Any:
        """The answer to an append at our offset. Raises as `Appends.append`."""
        appends = self._appends
        if appends is None or appends.ended:  # nothing is in flight: the stream itself goes on
            appends = self._appends = self._client.connect(self._stream)
            if self._closed:
                appends.close()
        schema = self._descriptor if appends.fresh else None
        return appends.append(append_request(self._stream, self._offset, rows, schema))

    def _judge(self, status: Status, count: int) -> Outcome:
        if status.code in (NOT_FOUND, INVALID_ARGUMENT) and status.detail not in STREAM_IS_OVER:
            self._table_ready = False
        if status.code == UNAUTHENTICATED:
            self._token.forget()
        return status_outcome(self._where, status, count)

    def _leave_stream(self) -> None:
        self._stream = ""
        self._hang_up()

    def _hang_up(self) -> None:
        appends, self._appends = self._appends, None
        if appends is not None:
            appends.close()
