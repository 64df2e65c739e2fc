"""An event as a row of BigQuery: protobuf for the Storage Write API, JSON for insertAll. Pure functions.

`data` is the text of the event's own `data`, cut out of the received bytes and never written anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import msgspec

from transforms.event import Event
from transforms.write.created_at import MAX_LENGTH, epoch_text

SchemaName = Literal["typed", "compatible"]

# insertId may have 128 characters; a longer event id is replaced by its hash.
MAX_INSERT_ID = 128
LAST_MICROS = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z, the last TIMESTAMP there is
EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table; its number in a protobuf row is its place, counted from 1."""

    name: str
    type: str
    description: str
    required: bool = False


EVENT_ID = "The event's id, unique: the key to remove repeats by."
TYPED = (
    Column("event_id", "STRING", EVENT_ID, required=True),
    Column("event_type", "STRING", "What happened, such as grant.created."),
    Column("created_at", "TIMESTAMP", "When it happened; NULL when the event did not say so in RFC 3339."),
    Column("data", "JSON", "The event's data."),
    Column("event", "STRING", "The whole event as received, only where the other columns do not hold it."),
)
COMPATIBLE = (
    Column("event_id", "STRING", EVENT_ID),
    Column("event_type", "STRING", "What happened, such as grant.created."),
    Column("created_at", "STRING", "When it happened, as received."),
    Column("data", "STRING", "The event's data as JSON text."),
)


def columns(schema: SchemaName) -> Sequence[Column]:
    """The columns that are written."""
    return TYPED if schema == "typed" else COMPATIBLE


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event with nothing in it that the columns would not hold."""

    id: str
    type: str
    created_at: str = msgspec.field(name="createdAt")
    data: msgspec.Raw


class _Loose(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()


_plain = msgspec.json.Decoder(_Plain)
_loose = msgspec.json.Decoder(_Loose)
_text = msgspec.json.encode


def data_of(event: Event, schema: SchemaName) -> tuple[bytes | None, bool]:
    """The raw text of the event's `data` (None without one), and whether id, type, createdAt and `data` are
    all that the event has.

    JSON that msgspec does not read (half characters, numbers beyond measure) is kept whole: `typed` has a
    column for it, `compatible` only `data`.
    """
    try:
        return bytes(_plain.decode(event.raw).data), True
    except msgspec.ValidationError:
        pass
    except (msgspec.MsgspecError, RecursionError):
        return (None if schema == "typed" else event.raw), False
    try:
        data = _loose.decode(event.raw).data
    except (msgspec.MsgspecError, RecursionError):
        return (None if schema == "typed" else event.raw), False
    return bytes(data) or None, False


def micros(created_at: str) -> tuple[int | None, bool]:
    """Microseconds since the epoch, and whether that says all of `created_at`; None when BigQuery's
    TIMESTAMP cannot hold it, when it is before 1970 or not RFC 3339."""
    return _micros(created_at) if len(created_at) <= MAX_LENGTH else (None, False)


@lru_cache(maxsize=8192)
def _micros(created_at: str) -> tuple[int | None, bool]:
    whole, _, fraction = epoch_text(created_at).partition(b".")
    if not whole:
        return None, False
    value = int(whole) * 1_000_000 + int(fraction[:6].ljust(6, b"0"))
    return (value, not fraction[6:].strip(b"0")) if value <= LAST_MICROS else (None, False)


# Protobuf. Tags are (number << 3) | wire type: 2 for text, 0 for a varint.


def varint(number: int) -> bytes:
    """A whole number of at least 0 as protobuf writes it."""
    if number < 0x80:
        return _SHORT[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


_SHORT = [bytes((number,)) for number in range(0x80)]


@lru_cache(maxsize=8192)
def _timestamp(value: int) -> bytes:
    return b"\x18" + varint(value)


def proto_row(event: Event, schema: SchemaName) -> bytes:
    """One row as a serialized message of `descriptor`; what is missing is NULL."""
    data, plain = data_of(event, schema)
    text = event.id.encode()
    parts = [b"\x0a", varint(len(text)), text]
    if event.type:
        text = event.type.encode()
        parts += (b"\x12", varint(len(text)), text)
    if schema == "typed":
        value, exact = micros(event.created_at)
        if value is not None:
            parts.append(_timestamp(value))
        if not (plain and exact):
            parts += (b"\x2a", varint(len(event.raw)), event.raw)
    elif event.created_at:
        text = event.created_at.encode()
        parts += (b"\x1a", varint(len(text)), text)
    if data is not None:
        parts += (b"\x22", varint(len(data)), data)
    return b"".join(parts)


def proto_text_row(event: Event) -> bytes:
    """The row of `typed` that BigQuery takes whatever is in the event: its id, its type and the whole of it
    as text."""
    parts: list[bytes] = []
    for tag, text in ((b"\x0a", event.id.encode()), (b"\x12", event.type.encode()), (b"\x2a", event.raw)):
        if text:
            parts += (tag, varint(len(text)), text)
    return b"".join(parts)


def descriptor(schema: SchemaName) -> Any:
    """The protobuf DescriptorProto of `proto_row`. Storage Write takes TIMESTAMP as int64 microseconds and
    JSON as text."""
    from google.protobuf.descriptor_pb2 import (  # type: ignore[import-untyped]
        DescriptorProto,
        FieldDescriptorProto,
    )

    message = DescriptorProto(name="Row")
    for number, column in enumerate(columns(schema), 1):
        message.field.add(
            name=column.name,
            number=number,
            label=FieldDescriptorProto.LABEL_OPTIONAL,
            type=FieldDescriptorProto.TYPE_INT64
            if column.type == "TIMESTAMP"
            else FieldDescriptorProto.TYPE_STRING,
        )
    return message


# insertAll


@lru_cache(maxsize=8192)
def _timestamp_text(value: int) -> bytes:
    return (EPOCH + timedelta(microseconds=value)).isoformat(timespec="microseconds").encode() + b"Z"


def json_row(event: Event, schema: SchemaName) -> bytes:
    """One element of insertAll's `rows`; a JSON column takes the JSON as text, too."""
    data, plain = data_of(event, schema)
    parts = _json_start(event)
    if schema == "typed":
        value, exact = micros(event.created_at)
        if value is not None:
            parts += (b',"created_at":"', _timestamp_text(value), b'"')
        if not (plain and exact):
            parts += (b',"event":', _text(event.raw.decode()))
    elif event.created_at:
        parts += (b',"created_at":', _text(event.created_at))
    if data is not None:
        parts += (b',"data":', _text(data.decode()))
    parts.append(b"}}")
    return b"".join(parts)


def json_text_row(event: Event) -> bytes:
    """As `proto_text_row`, for insertAll."""
    return b"".join((*_json_start(event), b',"event":', _text(event.raw.decode()), b"}}"))


def _json_start(event: Event) -> list[bytes]:
    insert_id = event.id
    if len(insert_id) > MAX_INSERT_ID:
        insert_id = hashlib.blake2b(insert_id.encode(), digest_size=16).hexdigest()
    parts = [b'{"insertId":', _text(insert_id), b',"json":{"event_id":', _text(event.id)]
    return [*parts, b',"event_type":', _text(event.type)] if event.type else parts


INSERT_HEAD = b'{"skipInvalidRows":true,"rows":['
INSERT_TAIL = b"]}"


def insert_body(rows: Sequence[bytes]) -> bytes:
    """The body of an insertAll request. Rows that are valid go in although others are not."""
    return INSERT_HEAD + b",".join(rows) + INSERT_TAIL


# Sizes

# Below this an event cannot fill a request together with 500 others, and a bound that is quick to reckon
# does (0.2 us instead of 3); above it the row is measured.
SMALL = 4000
# Per row: tags and lengths of every field, and those of the row itself.
PROTO_OVERHEAD = 64
JSON_OVERHEAD = 160


def proto_size(event: Event, schema: SchemaName) -> int:
    """At least the bytes of the event's row in an AppendRows request."""
    raw = len(event.raw)
    if raw < SMALL:  # `data` and, rarely, the whole event; a character is at most 4 bytes
        return 2 * raw + 4 * (len(event.id) + len(event.type) + len(event.created_at)) + PROTO_OVERHEAD
    return len(proto_row(event, schema)) + PROTO_OVERHEAD


def json_size(event: Event, schema: SchemaName) -> int:
    """At least the bytes of the event's row in an insertAll request."""
    raw = len(event.raw)
    if raw < SMALL:  # quotes double inside text; a control character of an id takes 6 bytes
        short = 12 * len(event.id) + 6 * (len(event.type) + len(event.created_at))
        return 4 * raw + short + JSON_OVERHEAD
    return len(json_row(event, schema)) + 1
