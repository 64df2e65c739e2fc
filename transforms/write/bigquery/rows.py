"""An event as a row of BigQuery: protobuf for the Storage Write API, JSON for insertAll. Pure functions.

`data` is the text of the event's own `data`, cut out of the received bytes and never written anew.
"""

from __future__ import annotations

import hashlib
import json
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
def _timestamp_text(value: int) -> str:
    return (EPOCH + timedelta(microseconds=value)).isoformat(timespec="microseconds") + "Z"


def insert_id(event: Event) -> str:
    """What insertAll knows a repeated row by."""
    if len(event.id) <= MAX_INSERT_ID:
        return event.id
    return hashlib.blake2b(event.id.encode(), digest_size=16).hexdigest()


def json_row(event: Event, schema: SchemaName) -> dict[str, str]:
    """One row for insertAll, by column; a JSON column takes the JSON as text, too."""
    data, plain = data_of(event, schema)
    row = {"event_id": event.id, **({"event_type": event.type} if event.type else {})}
    if schema == "typed":
        value, exact = micros(event.created_at)
        if value is not None:
            row["created_at"] = _timestamp_text(value)
        if not (plain and exact):
            row["event"] = event.raw.decode()
    elif event.created_at:
        row["created_at"] = event.created_at
    if data is not None:
        row["data"] = data.decode()
    return row


def json_text_row(event: Event) -> dict[str, str]:
    """As `proto_text_row`, for insertAll."""
    kind = {"event_type": event.type} if event.type else {}
    return {"event_id": event.id, **kind, "event": event.raw.decode()}


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
    """At least the bytes of the event's row in an insertAll request, as google-cloud-bigquery writes it:
    ASCII, where a character of an id takes up to 12 bytes."""
    raw = len(event.raw)
    if raw < SMALL:  # quotes double inside text, and two bytes of UTF-8 become six
        short = 24 * len(event.id) + 12 * (len(event.type) + len(event.created_at))
        return (4 if event.raw.isascii() else 6) * raw + short + JSON_OVERHEAD
    return len(json.dumps({"json": json_row(event, schema), "insertId": insert_id(event)})) + 2
