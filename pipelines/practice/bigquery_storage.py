"""The practice BigQuery's Storage Write API over gRPC: streams with offsets, faithful and faulty on command.

What it does is from the reference of google.cloud.bigquery.storage.v1 (BigQueryWrite, AppendRowsResponse,
StorageError). An append names its first row's offset: below the end is ALREADY_EXISTS, above it OUT_OF_RANGE;
one bad row refuses the append whole and is named in `row_errors`; a finalized stream takes nothing more.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from google.cloud.bigquery_storage_v1.types import storage, stream
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc import status_pb2  # type: ignore[import-untyped]

from pipelines.practice.bigquery_tables import Row, Table, Tables
from pipelines.practice.faults import FaultCommands

StorageError = storage.StorageError.pb()


class Refusal(Exception):
    """An answer other than success. `ends`: the call ends with it, else it is one answer within the call."""

    def __init__(self, code: int, message: str, *details: Any, ends: bool = False) -> None:
        super().__init__(message)
        self.ends = ends
        self.status = status_pb2.Status(code=code, message=message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self.status.details.append(packed)


@dataclass(frozen=True)
class AppendFault:
    """What happens to one append: `refusal` instead of taking it or, with `taken`, after that."""

    refusal: Refusal
    taken: bool = False


@dataclass
class Stream:
    """A committed stream: its rows are in the table as soon as they are appended."""

    table: str  # its path
    rows: int = 0
    finalized: bool = False


@dataclass
class Call:
    """What the requests of one AppendRows call share: stream and rows' schema are sent once."""

    stream: str = ""
    message: Any = None
    fields: Sequence[str] = field(default_factory=tuple)

    def rows(self, request: Any, table: Table) -> list[Row | None]:
        """The request's rows, None for one that cannot be parsed. Raises Refusal."""
        if request.proto_rows.HasField("writer_schema"):
            schema = request.proto_rows.writer_schema.proto_descriptor
            self.message, self.fields = _message(schema), [one.name for one in schema.field]
        if self.message is None:
            raise Refusal(3, "The first request of a call must have a writer_schema", ends=True)
        extra = [name for name in self.fields if name.lower() not in table.columns]
        if extra:
            code = StorageError.StorageErrorCode.SCHEMA_MISMATCH_EXTRA_FIELDS
            raise Refusal(
                3,
                f"Input schema has more fields than BigQuery schema, extra fields: '{','.join(extra)}'",
                StorageError(code=code, entity=self.stream),
                ends=True,
            )
        names = [(name, name.lower()) for name in self.fields]
        return [self._row(raw, names) for raw in request.proto_rows.rows.serialized_rows]

    def _row(self, raw: bytes, names: Sequence[tuple[str, str]]) -> Row | None:
        try:
            row = self.message.FromString(raw)
        except DecodeError:
            return None
        return {low: getattr(row, name) for name, low in names if row.HasField(name)}


def _message(schema: Any) -> Any:
    """The class of the messages that a DescriptorProto describes."""
    file = descriptor_pb2.FileDescriptorProto(name="rows.proto", syntax="proto2", message_type=[schema])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))


def check_offset(offset: int, end: int) -> None:
    codes = StorageError.StorageErrorCode
    if offset < end:
        said = f"The offset is within stream, expected offset {end}, received {offset}"
        raise Refusal(6, said, StorageError(code=codes.OFFSET_ALREADY_EXISTS))
    if offset > end:
        said = f"The offset is beyond stream, expected offset {end}, received {offset}"
        raise Refusal(11, said, StorageError(code=codes.OFFSET_OUT_OF_RANGE))


def unknown_stream(name: str) -> Refusal:
    code = StorageError.StorageErrorCode.STREAM_NOT_FOUND
    detail = StorageError(code=code, entity=name)
    return Refusal(5, f"Requested entity was not found: {name}", detail, ends=True)


SERVICE = "google.cloud.bigquery.storage.v1.BigQueryWrite"
MAX_REQUEST = 10 * 1024 * 1024
MOST_STREAMS = 1000  # they are forgotten, as the real ones are some days after their last append
THREADS = 64  # each open AppendRows call holds one
AppendRequest = storage.AppendRowsRequest.pb()
AppendResponse = storage.AppendRowsResponse.pb()
CreateRequest = storage.CreateWriteStreamRequest.pb()
GetRequest = storage.GetWriteStreamRequest.pb()
FinalizeRequest = storage.FinalizeWriteStreamRequest.pb()
FinalizeResponse = storage.FinalizeWriteStreamResponse.pb()
WriteStream = stream.WriteStream.pb()
CODES = {code.value[0]: code for code in grpc.StatusCode}


class PracticeStorage(FaultCommands):
    """Serves on `url` between `up` and `down`, at the same port each time.

    took: called with the rows of each append before it is answered. fault: why a row is refused, "" when it
    is not. connection_age: seconds after which the server says GOAWAY to a connection and, some moments
    later, cuts it; None for never.
    """

    def __init__(
        self,
        tables: Tables,
        took: Callable[[Table, Sequence[Row]], None],
        fault: Callable[[Table, Row], str],
        *,
        connection_age: float | None = None,
    ) -> None:
        super().__init__()
        self.tables = tables
        self.streams: dict[str, Stream] = {}
        self.appends = 0
        self.may_append = True  # the caller's right
        self.connection_age = connection_age
        self._took, self._fault = took, fault
        self._append_faults: deque[AppendFault] = deque()
        self._numbers = itertools.count(1)
        self._port = 0
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen (again), on the same port."""
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2 * MAX_REQUEST)]
        if self.connection_age is not None:
            age = int(self.connection_age * 1000)
            options += [("grpc.max_connection_age_ms", age), ("grpc.max_connection_age_grace_ms", 50)]
        server = grpc.server(ThreadPoolExecutor(THREADS, "practice-bigquery"), options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        self._server = server

    def down(self) -> None:
        """Refuse connections and cut those that are open."""
        self.release()
        server, self._server = self._server, None
        if server is not None:
            server.stop(0).wait()

    # Faults on command

    def refuse(self, code: int, message: str, *details: Any, ends: bool = False, times: int = 1) -> None:
        """Answer the next appends with this status and take nothing; `ends`: end the call with it."""
        fault = AppendFault(Refusal(code, message, *details, ends=ends))
        self._append_faults.extend([fault] * times)

    def cut(self, *, taken: bool, times: int = 1) -> None:
        """End the call of the next appends as a lost connection does, before or after taking them."""
        fault = AppendFault(Refusal(14, "Socket closed", ends=True), taken)
        self._append_faults.extend([fault] * times)

    # Serving

    def _handlers(self) -> Any:
        def handler(make: Any, serve: Any, request: Any, response: Any) -> Any:
            return make(
                serve, request_deserializer=request.FromString, response_serializer=response.SerializeToString
            )

        unary, both = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "CreateWriteStream": handler(unary, self._create, CreateRequest, WriteStream),
                "GetWriteStream": handler(unary, self._get, GetRequest, WriteStream),
                "FinalizeWriteStream": handler(unary, self._finalize, FinalizeRequest, FinalizeResponse),
                "AppendRows": handler(both, self._append_rows, AppendRequest, AppendResponse),
            },
        )

    def _create(self, request: Any, context: Any) -> Any:
        self.hold()
        if not self.may_append:
            denied = f"Permission 'TABLES_UPDATE_DATA' denied on resource '{request.parent}'."
            _end(context, Refusal(7, denied))
        if request.write_stream.type_ != WriteStream.COMMITTED:
            _end(context, Refusal(12, "this practice server knows COMMITTED streams only"))
        with self.tables.lock:
            if self.tables.get(request.parent) is None:
                code = StorageError.StorageErrorCode.TABLE_NOT_FOUND
                _end(context, Refusal(5, f"Table not found: {request.parent}", StorageError(code=code)))
            name = f"{request.parent}/streams/s{next(self._numbers)}"
            self.streams[name] = Stream(request.parent)
            if len(self.streams) > MOST_STREAMS:
                del self.streams[next(iter(self.streams))]
        return WriteStream(name=name, type_=WriteStream.COMMITTED)

    def _finalize(self, request: Any, context: Any) -> Any:
        self.hold()
        with self.tables.lock:
            found = self._stream(request.name, context)
            found.finalized = True
            return FinalizeResponse(row_count=found.rows)

    def _get(self, request: Any, context: Any) -> Any:
        self._stream(request.name, context)
        return WriteStream(name=request.name, type_=WriteStream.COMMITTED)

    def _stream(self, name: str, context: Any) -> Stream:
        found = self.streams.get(name)
        return found if found is not None else _end(context, unknown_stream(name))

    def _append_rows(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        call = Call()
        for request in requests:
            self.appends += 1
            self.hold()
            fault = self._append_faults.popleft() if self._append_faults else None
            answer = AppendResponse()
            try:
                if fault is not None and not fault.taken:
                    raise fault.refusal
                answer.append_result.offset.value = self._append(call, request, answer)
                if self.seconds_late:
                    time.sleep(self.seconds_late)
                if fault is not None:
                    raise fault.refusal
            except Refusal as refusal:
                if refusal.ends:
                    _end(context, refusal)
                answer.error.CopyFrom(refusal.status)
            yield answer

    def _append(self, call: Call, request: Any, answer: Any) -> int:
        """Take the rows and return their first offset. Raises Refusal."""
        if request.ByteSize() > MAX_REQUEST:
            raise Refusal(
                3, f"AppendRows request too large: {request.ByteSize()} limit {MAX_REQUEST}", ends=True
            )
        name = call.stream = request.write_stream or call.stream
        with self.tables.lock:
            found = self.streams.get(name)
            table = self.tables.get(found.table) if found else None
            if found is None or table is None:
                raise unknown_stream(name)
            if found.finalized:
                code = StorageError.StorageErrorCode.STREAM_FINALIZED
                raise Refusal(9, f"Stream is finalized: {name}", StorageError(code=code, entity=name))
            rows = call.rows(request, table)
            offset = int(request.offset.value) if request.HasField("offset") else found.rows
            check_offset(offset, found.rows)
            self._check_rows(rows, table, answer)
            found.rows += len(rows)
            self._took(table, [row for row in rows if row is not None])
            return offset

    def _check_rows(self, rows: Sequence[Row | None], table: Table, answer: Any) -> None:
        for index, row in enumerate(rows):
            why = "the row cannot be parsed" if row is None else self._fault(table, row)
            if why:
                answer.row_errors.add(index=index, code=1, message=why)
        if answer.row_errors:
            raise Refusal(
                3,
                "Errors found while processing rows. Please refer to the row_errors field for details. The "
                "list may not be complete because of the size limitations.",
            )


def _end(context: Any, refusal: Refusal) -> NoReturn:
    """End the call with the refusal's status and details."""
    status = refusal.status
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(CODES[status.code], status.message)  # raises
    raise AssertionError
