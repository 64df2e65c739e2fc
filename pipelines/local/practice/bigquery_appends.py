"""What one append to a practice BigQuery stream may hold, and how it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.cloud.bigquery_storage_v1.types import storage
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc import status_pb2  # type: ignore[import-untyped]

from pipelines.local.practice.bigquery_tables import Row, Table

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
