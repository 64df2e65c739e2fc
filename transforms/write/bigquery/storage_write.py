"""Writes batches through BigQuery's Storage Write API, each row once even over a crash.

Each writer appends to a COMMITTED stream of its own, with offsets. Before an append, (stream, offset, rows)
is remembered with the batch. One rule makes that enough: **an offset of a stream belongs to one batch for
ever**. After anything but success the writer leaves its stream; whoever tries the batch again first finalizes
the stream in the memo, which keeps a late append out, and reads its row count: the rows are in it, or they
never will be and go into another stream.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]
import msgspec
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery_storage_v1.types import protobuf, storage, stream
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from transforms.event import Batch
from transforms.preflight import Finding
from transforms.retry import MAX_RETRY_AFTER
from transforms.way_out import WayOut
from transforms.write.bigquery.reply import STREAM_IS_OVER, Status, row_errors_outcome, status_outcome
from transforms.write.bigquery.rest import Rest
from transforms.write.bigquery.rows import descriptor, proto_row, proto_text_row
from transforms.write.contract import Outcome, Writer, finding
from transforms.write.failure import KEPT
from transforms.write.google import (
    ALREADY_EXISTS,
    DEADLINE_EXCEEDED,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    UNAUTHENTICATED,
    GoogleToken,
    channel,
    token_outcome,
)

if TYPE_CHECKING:
    from transforms.write.bigquery.destination import BigQuery

# Where gRPC carries a google.rpc.Status.
DETAILS = "grpc-status-details-bin"
StorageError = storage.StorageError.pb()


def status_of_call(error: grpc.RpcError) -> Status:
    """The status with which a call ended."""
    code = error.code().value[0] if error.code() else DEADLINE_EXCEEDED
    status = status_pb2.Status(code=code, message=error.details() or "")
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS:
            with contextlib.suppress(DecodeError):  # of something in between: the code alone has to do
                status.details.extend(status_pb2.Status.FromString(value).details)
    return status_of_reply(status)


def status_of_reply(status: Any) -> Status:
    """The status (google.rpc.Status) of one answer within a call."""
    detail, wait = "", None
    for packed in status.details:
        error, retry = StorageError(), error_details_pb2.RetryInfo()
        with contextlib.suppress(DecodeError, ValueError):  # a code that is newer than our messages
            if packed.Unpack(error):
                detail = StorageError.StorageErrorCode.Name(error.code)
            elif packed.Unpack(retry):
                wait = min(retry.retry_delay.ToNanoseconds() / 1e9, MAX_RETRY_AFTER)
    return Status(int(status.code), str(status.message), detail, wait)


STORAGE_ENDPOINT = "https://bigquerystorage.googleapis.com"
SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryWrite"
# An append takes some 100 ms; what takes longer than this is asked about by finalizing its stream.
APPEND_SECONDS = 30.0
CALL_SECONDS = 15.0
CreateRequest = storage.CreateWriteStreamRequest.pb()
FinalizeRequest = storage.FinalizeWriteStreamRequest.pb()
FinalizeResponse = storage.FinalizeWriteStreamResponse.pb()
AppendRequest = storage.AppendRowsRequest.pb()
AppendResponse = storage.AppendRowsResponse.pb()
WriteStream = stream.WriteStream.pb()
ProtoSchema = protobuf.ProtoSchema.pb()


class Appends:
    """One open AppendRows call: append, wait for the answer, append again."""

    def __init__(self, call: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = call(iter(self._requests.get, None), metadata=metadata)
        self.fresh = True  # the first request of a call carries the rows' schema
        self._reader = threading.Thread(target=self._read, name="bigquery-replies", daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        """BigQuery ended the call, as it does after some minutes without a request."""
        return not self._replies.empty() or not self._reader.is_alive()

    def append(self, request: Any) -> Any:
        """The answer to `request`. Raises grpc.RpcError when the call ended instead, TimeoutError when
        nothing came within APPEND_SECONDS: then the rows may have been written or not."""
        self._requests.put(request)
        self.fresh = False
        try:
            reply = self._replies.get(timeout=APPEND_SECONDS)
        except queue.Empty:
            raise TimeoutError(f"no answer within {APPEND_SECONDS:.0f} s") from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """End the call; an `append` that waits in another thread fails at once."""
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for reply in self._call:
                self._replies.put(reply)
            self._replies.put(ConnectionResetError("BigQuery ended the call"))
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            self._replies.put(error)


class StorageClient:
    """A channel for one writer. Raises OSError when an authority cannot be read."""

    def __init__(self, endpoint: str | None, token: GoogleToken, way_out: WayOut) -> None:
        self._token = token
        self._channel = channel(endpoint or STORAGE_ENDPOINT, way_out)
        self._append = self._channel.stream_stream(
            f"{SERVICE}/AppendRows", AppendRequest.SerializeToString, AppendResponse.FromString
        )

    def create_stream(self, table: str) -> str:
        """A new COMMITTED stream of the table at this path: rows are visible once they are appended, and
        offsets tell a repeated append. Raises grpc.RpcError, and
        ConnectionError for an answer without one."""
        request = CreateRequest(parent=table, write_stream=WriteStream(type_=WriteStream.COMMITTED))
        name: str = self._call("CreateWriteStream", WriteStream, request, f"parent={quote(table)}").name
        if not name:
            raise ConnectionError("the answer to a new stream was not BigQuery's")
        return name

    def finalize(self, name: str) -> int:
        """Let nothing more into the stream; returns how many rows it has, now for ever. Raises
        grpc.RpcError."""
        request = FinalizeRequest(name=name)
        route = f"name={quote(name)}"
        return int(self._call("FinalizeWriteStream", FinalizeResponse, request, route).row_count)

    def connect(self, name: str) -> Appends:
        """An open call that appends to the stream."""
        return Appends(self._append, self._metadata(f"write_stream={quote(name)}"))

    def close(self) -> None:
        """End every call and the connection."""
        self._channel.close()

    def _call(self, method: str, response: Any, request: Any, route: str) -> Any:
        call = self._channel.unary_unary(
            f"{SERVICE}/{method}", type(request).SerializeToString, response.FromString
        )
        return call(request, timeout=CALL_SECONDS, metadata=self._metadata(route))

    def _metadata(self, route: str) -> Sequence[tuple[str, str]]:
        return [("x-goog-request-params", route), *self._token.headers().items()]


def append_request(name: str, offset: int, rows: Sequence[bytes], schema: Any | None) -> Any:
    """Rows for the stream from `offset` on; `schema` is their DescriptorProto, needed once a call."""
    request = AppendRequest(write_stream=name)
    request.offset.value = offset
    if schema is not None:
        request.proto_rows.writer_schema.proto_descriptor.CopyFrom(schema)
        request.trace_id = "grantex-beam:1"
    request.proto_rows.rows.serialized_rows.extend(rows)
    return request


def row_errors(reply: Any, count: int) -> list[tuple[int, str]]:
    """Index and message of each row of an append of `count` that its answer names."""
    return [(int(error.index), str(error.message)) for error in reply.row_errors if 0 <= error.index < count]


log = logging.getLogger("grantex.write")
# BigQuery takes 10 MB a request; the rest is for the schema, the names and the framing.
MAX_ROWS_BYTES = 9_900_000


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """Where a batch was about to be appended."""

    stream: str
    offset: int
    rows: int

    @property
    def place(self) -> str:
        """The stream and its rows, for a person."""
        return f"{self.stream} rows {self.offset}-{self.offset + self.rows - 1}"


_memo = msgspec.json.Decoder(Memo)


# What a call, an append or reading a token ends with when it does not succeed.
NOT_DONE = (grpc.RpcError, GoogleAuthError, TimeoutError, ConnectionError)


class StorageWriter(Writer):
    """One stream at a time, one append in flight."""

    def __init__(self, settings: BigQuery) -> None:
        self._schema = settings.schema
        self._path = settings.name_of_table.path
        self._where = f"BigQuery table {settings.name_of_table}"
        self._token = GoogleToken(anonymous=settings.anonymous, way_out=settings.way_out)
        self._rest = Rest(settings, self._token)
        self._descriptor = descriptor(settings.schema)
        self._client = StorageClient(settings.storage_endpoint, self._token, settings.way_out)
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
        except NOT_DONE as error:
            outcome = self._outcome_of(error, count)
        except ValueError:  # gRPC's way to say that the channel is closed
            if not self._closed:
                raise
            outcome = Outcome(later=range(count), cause=f"{self._where}: this program stops. {KEPT}.")
        finally:
            if not settled:
                self._leave_stream()
        return outcome

    def check(self) -> Iterator[Finding]:
        """Open a stream, which takes the right to append, and finalize it empty, of which nothing is left."""
        what = "the right to append"
        try:
            self._client.finalize(self._client.create_stream(self._path))
        except NOT_DONE as error:
            yield finding(what, self._outcome_of(error, 0))
        else:
            yield Finding(what, True, note="a stream was opened and finalized empty")

    def _outcome_of(self, error: Exception, count: int) -> Outcome:
        """The outcome that one of NOT_DONE stands for."""
        if isinstance(error, grpc.RpcError):
            return self._judge(status_of_call(error), count)
        if isinstance(error, GoogleAuthError):
            return token_outcome(error, count, self._where)
        return Outcome(later=range(count), cause=f"{self._where}: {error}. {KEPT}.")

    def close(self) -> None:
        """Let go; an append that hangs in another thread fails at once. What is in the stream stays."""
        self._closed = True
        appends = self._appends
        if appends is not None:
            appends.close()
        for each in (self._client, self._rest, self._token):
            each.close()

    def _attempt(self, batch: Batch) -> Outcome | None:
        count = len(batch.events)
        if not self._table_ready:
            outcome = self._rest.ready(self._where, count)
            if outcome is not None:
                return outcome
            self._table_ready = True
        if batch.memo and self._is_in(memo := _memo.decode(batch.memo), count):
            batch.place = memo.place
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
        memo = Memo(self._stream, self._offset, len(rows))
        batch.remember(msgspec.json.encode(memo))
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
        written = code == ALREADY_EXISTS or self._confirms(reply)
        if written and not reply.row_errors:
            self._offset += len(rows)
            batch.place = memo.place
            return None
        if code == OK and not reply.row_errors:
            raise ConnectionError("the answer to an append was not BigQuery's")
        outcome = row_errors_outcome(self._where, row_errors(reply, len(rows)), len(rows))
        status = status_of_reply(reply.error)
        return outcome or self._judge(status._replace(code=code or INVALID_ARGUMENT), len(rows))

    def _confirms(self, reply: Any) -> bool:
        """Whether `reply` says that the rows are at our offset, which it repeats."""
        result = reply.append_result
        return reply.HasField("append_result") and (
            not result.HasField("offset") or result.offset.value == self._offset
        )

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
