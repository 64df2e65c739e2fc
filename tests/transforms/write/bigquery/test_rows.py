"""An event as a row: what each column holds, byte for byte, and sizes that are never too small."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from tests.transforms.write.encodings import event
from transforms.event import Event
from transforms.write.bigquery.rows import (
    MAX_INSERT_ID,
    SMALL,
    SchemaName,
    descriptor,
    insert_id,
    json_row,
    json_size,
    json_text_row,
    proto_row,
    proto_size,
    proto_text_row,
    varint,
)
from transforms.write.bigquery.storage_write import append_request

AT = "2026-03-01T12:00:00.123Z"


def made(data: bytes, more: bytes = b"", created_at: str = AT, event_id: str = "e") -> Event:
    raw = b'{"id":%s,"type":"t","createdAt":%s,"data":%s%s}' % (
        json.dumps(event_id).encode(),
        json.dumps(created_at).encode(),
        data,
        more,
    )
    return Event(event_id, "t", created_at, raw)


def read(row: bytes, schema: SchemaName) -> dict[str, Any]:
    """What BigQuery finds in a row, by column."""
    rows = descriptor(schema)
    file = descriptor_pb2.FileDescriptorProto(name="row.proto", syntax="proto2", message_type=[rows])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(rows.name)).FromString(row)
    return {field.name: value for field, value in message.ListFields()}


# `data` is any JSON; its text must not change.
DATA = [
    b"{}",
    b'{ "a" : [1, 2.50, -0, 1E3, 12345678901234567890] }',
    '{"é":"\U0001f600 \\ud83d\\ude00 \\u0000"}'.encode(),
    b'{"a":1,"a":2}',
    b'"text"',
    b"null",
    b"[" * 100 + b"]" * 100,
]


@pytest.mark.parametrize("data", DATA)
def test_data_is_cut_out_of_the_event_and_not_written_anew(data: bytes) -> None:
    one = made(data)
    whole = {"event_id": "e", "event_type": "t", "created_at": 1772366400123000, "data": data.decode()}
    assert read(proto_row(one, "typed"), "typed") == whole
    assert read(proto_row(one, "compatible"), "compatible") == {**whole, "created_at": AT}
    assert json_row(one, "compatible") == {**whole, "created_at": AT}
    as_text = {**whole, "created_at": "2026-03-01T12:00:00.123000Z"}
    assert json_row(one, "typed") == as_text
    assert insert_id(one) == "e"


@pytest.mark.parametrize(
    ("one", "columns"),
    [
        (made(b"{}", b',"more":1'), {"created_at", "data", "event"}),
        (made(b"{}", created_at="yesterday"), {"data", "event"}),
        (made(b"{}", created_at="2026-03-01T12:00:00.1234567Z"), {"created_at", "data", "event"}),
        (made(b"{}", created_at="1969-12-31T23:59:59Z"), {"data", "event"}),
        (made(b'{"half":"\\ud800"}'), {"created_at", "event"}),
        (Event("e", "t", "", b'{"id":"e","type":"t"}'), {"event"}),
    ],
)
def test_what_the_columns_do_not_hold_is_in_event_whole(one: Event, columns: set[str]) -> None:
    row = read(proto_row(one, "typed"), "typed")
    assert row.keys() == {"event_id", "event_type", *columns}
    assert row["event"] == one.raw.decode()
    assert json_row(one, "typed")["event"] == one.raw.decode()


def test_json_that_nobody_reads_is_kept_whole_in_the_compatible_columns() -> None:
    one = made(b'{"half":"\\ud800"}')
    assert read(proto_row(one, "compatible"), "compatible")["data"] == one.raw.decode()


@pytest.mark.parametrize("one", [made(data) for data in DATA] + [Event("e", "", "", b'{"id":"e"}')])
def test_text_rows_are_id_type_and_the_whole_event(one: Event) -> None:
    row = {"event_id": "e", "event": one.raw.decode()} | ({"event_type": one.type} if one.type else {})
    assert read(proto_text_row(one), "typed") == row
    assert json_text_row(one) == row


def test_an_event_id_too_long_for_an_insert_id_is_hashed() -> None:
    ids = {insert_id(event(1, event_id="x" * MAX_INSERT_ID + tail)) for tail in "ab"}
    assert len(ids) == 2
    assert all(len(one) <= MAX_INSERT_ID for one in ids)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16_383, 16_384, 2**31, 2**63 - 1])
def test_varint(number: int) -> None:
    value, shift = 0, 0
    for byte in varint(number):
        value |= (byte & 0x7F) << shift
        shift += 7
    assert value == number


def insert_body(rows: Sequence[dict[str, Any]]) -> bytes:
    """A request as google-cloud-bigquery writes it."""
    return json.dumps({"rows": rows, "skipInvalidRows": True}).encode()


ODD = ['"', "\\\\", "é", "\U0001f600", "\\u0001", "x"]


@pytest.mark.parametrize("schema", get_args(SchemaName))
@pytest.mark.parametrize("letter", ODD)
@pytest.mark.parametrize("length", [0, 10, SMALL - 200, SMALL, 20_000])
def test_sizes_are_never_too_small(schema: SchemaName, letter: str, length: int) -> None:
    """For any place of the odd letters: id, type, time or data, and rows that hold the event twice."""
    text = ('\\"' if letter == '"' else letter) * length
    odd = made(b'{"x":"%s"}' % text.encode(), b',"more":1', created_at=letter * min(length, 300))
    long_id = event(1, event_id=letter * min(length, 1000) or "e")
    for one in (odd, long_id, made(b"{}", event_id=letter * 50)):
        request = append_request("s", 0, [proto_row(one, schema)] * 100, None)
        assert request.ByteSize() <= 100 * proto_size(one, schema)
        row = {"json": json_row(one, schema), "insertId": insert_id(one)}
        assert len(insert_body([row] * 3)) <= 3 * json_size(one, schema) + 50
