"""Events read back from BigQuery: exact where the table has the bytes, else rebuilt from its columns."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from typing import Any

import pytest

from tests.servers.bigquery import PROJECT, Emulator
from tests.transforms.write.encodings import event
from transforms.archive.bigquery_rows import BigQueryRows, query, row_as_event
from transforms.archive.choice import Archive, Selection, instant
from transforms.archive.sources import ArchiveError
from transforms.event import Batch, Event
from transforms.write.bigquery.destination import BigQuery
from transforms.write.bigquery.rows import SchemaName

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def row(**columns: Any) -> dict[str, Any]:
    known = {"event_id": "evt_1", "event_type": "t", "created_at": NOON, "data": '{"n":1}', "event": None}
    return {**known, **columns}


@pytest.mark.parametrize(
    ("columns", "expected", "exact"),
    [
        ({}, b'{"id":"evt_1","type":"t","createdAt":"2026-03-01T12:00:00.000Z","data":{"n":1}}', False),
        (
            {"created_at": NOON.replace(microsecond=123456), "data": "null"},
            b'{"id":"evt_1","type":"t","createdAt":"2026-03-01T12:00:00.123456Z","data":null}',
            False,
        ),
        (
            {"event_id": 'a"\u00e9'},
            '{"id":"a\\"\u00e9","type":"t","createdAt":"2026-03-01T12:00:00.000Z","data":{"n":1}}'.encode(),
            False,
        ),
        ({"event": '{ "id": "evt_1" }'}, b'{ "id": "evt_1" }', True),
    ],
)
def test_a_typed_row(columns: dict[str, Any], expected: bytes, exact: bool) -> None:
    assert row_as_event(row(**columns), typed=True) == (expected, exact)


def test_a_compatible_row_keeps_the_text_of_time_and_data_and_what_no_strict_reader_takes() -> None:
    kept = row(created_at="2026-03-01T12:00:00Z", data='{ "n" : 1.0 }')
    expected = b'{"id":"evt_1","type":"t","createdAt":"2026-03-01T12:00:00Z","data":{ "n" : 1.0 }}'
    assert row_as_event(kept, typed=False) == (expected, False)
    strange = row(created_at=None, data='{"id":"evt_1","x":\x01}')
    assert row_as_event(strange, typed=False) == (b'{"id":"evt_1","x":\x01}', True)


def test_the_query_asks_for_the_time_and_sorts() -> None:
    typed = {"event_id": "STRING", "created_at": "TIMESTAMP", "data": "JSON", "event": "STRING"}
    assert query("p-1.d.t", typed, {"since"}) == (
        "SELECT event_id, event_type, created_at, TO_JSON_STRING(data) AS data, event FROM `p-1.d.t` "
        "WHERE created_at IS NULL OR (created_at >= @since) ORDER BY created_at, event_id"
    )
    compatible = {"event_id": "STRING", "created_at": "STRING", "data": "STRING"}
    assert query("p-1.d.t", compatible, set()) == (
        "SELECT event_id, event_type, created_at, data, NULL AS event FROM `p-1.d.t` "
        "ORDER BY created_at, event_id"
    )


ODD = Event("evt_odd", "t", "", b'{"id":"evt_odd","type":"t","more":[1,2],"data":{"a":1}}')


def filled(emulator: Emulator, name: str, schema: SchemaName) -> BigQueryRows:
    """A table that our writer has filled with 30 plain events and an odd one."""
    table = f"{PROJECT}.events.{name}"
    destination = BigQuery(
        table, "storage_write", schema, endpoint=emulator.rest, storage_endpoint=emulator.storage
    )
    writer = destination.open()
    assert writer.write(Batch([*(event(number, time(number)) for number in range(30)), ODD])) is None
    writer.close()
    return BigQueryRows(table, emulator.rest)


def time(number: int) -> str:
    return f"2026-03-01T12:00:{number:02}.123Z"


def read(archive: Archive) -> tuple[list[Event], Counter[str]]:
    counts: Counter[str] = Counter()
    (shard,) = archive.shards()
    return [one for _, events in archive.read(shard, counts) for one in events], counts


@pytest.mark.parametrize("schema", ["typed", "compatible"])
def test_what_our_writer_put_into_a_table_comes_back(emulator: Emulator, schema: SchemaName) -> None:
    source = filled(emulator, f"replay_{schema}", schema)
    found, counts = read(Archive(source))
    by_id = {one.id: one for one in found}
    assert len(found) == len(by_id) == counts["events"] == 31
    for number in range(30):
        sent = event(number, time(number))
        assert json.loads(by_id[sent.id].raw) == json.loads(sent.raw)
    if schema == "typed":
        assert by_id["evt_odd"].raw == ODD.raw
        assert counts["rebuilt"] == 30
        some, counts = read(Archive(source, Selection(since=instant("2026-03-01T12:00:10+00:00"))))
        assert [one.created_at for one in some] == [time(number) for number in range(10, 30)]
        assert counts["events"] == 21, "the others were not asked for, but for the one without a time"


def test_a_table_that_is_not_there_or_not_ours(emulator: Emulator) -> None:
    with pytest.raises(ArchiveError, match=r"bigquery:practice\.events\.nowhere cannot be read"):
        list(BigQueryRows(f"{PROJECT}.events.nowhere", emulator.rest).shards())
    emulator.query(f"CREATE TABLE `{PROJECT}.events.other` (event_id STRING)")
    with pytest.raises(ArchiveError, match="no column created_at, data, event_type"):
        list(BigQueryRows(f"{PROJECT}.events.other", emulator.rest).shards())
