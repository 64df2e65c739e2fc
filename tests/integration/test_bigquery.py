"""BigQuery against bqemulator: every row through its query API, and each id once over crashes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from pipelines.packs.sql import COLUMNS
from tests.servers.bigquery import PROJECT, Emulator
from tests.transforms.write.encodings import CREATED_AT, event
from transforms.event import Batch, Event
from transforms.write.bigquery.destination import BigQuery, Method
from transforms.write.bigquery.rows import SchemaName
from transforms.write.contract import Outcome

ROOT = Path(__file__).parents[2]


def settings(
    emulator: Emulator, table: str, method: Method = "storage_write", schema: SchemaName = "typed"
) -> BigQuery:
    name = f"{PROJECT}.events.{table}"
    return BigQuery(name, method, schema, endpoint=emulator.rest, storage_endpoint=emulator.storage)


def batch(first: int, count: int) -> Batch:
    return Batch([event(number) for number in range(first, first + count)])


def written(outcome: Outcome | None) -> None:
    assert outcome is None, outcome


@pytest.mark.parametrize("schema", get_args(SchemaName))
@pytest.mark.parametrize("method", get_args(Method))
def test_a_missing_table_is_made_and_every_row_is_in_it(
    emulator: Emulator, method: Method, schema: SchemaName
) -> None:
    table = f"made_{method}_{schema}"
    writer = settings(emulator, table, method, schema).open()
    written(writer.write(batch(0, 500)))
    written(writer.write(batch(500, 250)))
    writer.close()
    rows = emulator.query(
        f"SELECT event_id, event_type, CAST(created_at AS STRING), TO_JSON_STRING(data) "
        f"FROM `{PROJECT}.events.{table}` ORDER BY event_id"
    )
    assert [row[0] for row in rows] == [one.id for one in batch(0, 750).events]
    assert {row[1] for row in rows} == {"grant.created"}
    moments = {str(row[2]).replace(" ", "T").removesuffix("+00").removesuffix("Z") for row in rows}
    assert moments == {CREATED_AT.removesuffix("Z")}
    data = [json.loads(str(row[3])) for row in rows]
    data = [json.loads(one) if isinstance(one, str) else one for one in data]
    assert data == [{"n": number} for number in range(750)]


def test_the_table_is_partitioned_by_day_and_clustered_by_type(emulator: Emulator) -> None:
    writer = settings(emulator, "layout").open()
    written(writer.write(batch(0, 1)))
    writer.close()
    made = emulator.table("events.layout")
    assert made["timePartitioning"] == {"type": "DAY", "field": "created_at"}
    assert made["clustering"] == {"fields": ["event_type"]}
    assert [(field["name"], field["type"]) for field in made["schema"]["fields"]] == [
        ("event_id", "STRING"),
        ("event_type", "STRING"),
        ("created_at", "TIMESTAMP"),
        ("data", "JSON"),
        ("event", "STRING"),
    ]


def test_the_compatible_table_is_partitioned_by_arrival_as_its_times_are_text(emulator: Emulator) -> None:
    writer = settings(emulator, "layout_of_old", schema="compatible").open()
    written(writer.write(batch(0, 1)))
    writer.close()
    made = emulator.table("events.layout_of_old")
    assert made["timePartitioning"] == {"type": "DAY"}
    assert made["clustering"] == {"fields": ["event_type"]}
    names = [(field["name"], field["type"]) for field in made["schema"]["fields"]]
    assert names == [(name, "STRING") for name in ("event_id", "event_type", "created_at", "data")]


def test_the_view_holds_each_event_once(emulator: Emulator) -> None:
    """bqemulator does not look at insertIds, so what is sent twice is there twice."""
    writer = settings(emulator, "events", "insert_all").open()
    for first, count in ((0, 40), (30, 40), (0, 5)):
        written(writer.write(batch(first, count)))
    writer.close()
    assert len(emulator.ids("events.events")) == 85
    sql = (ROOT / "templates/packs/bigquery/views.sql").read_text()
    for statement in sql.replace("PROJECT.DATASET", f"{PROJECT}.events").split(";\n")[:2]:
        emulator.query(statement)
    assert Counter(emulator.ids("events.events_once")) == Counter(one.id for one in batch(0, 70).events)
    whole = emulator.rows(f"SELECT * FROM `{PROJECT}.events.events_once` WHERE event_id = '{event(33).id}'")
    assert len(whole) == 1
    assert set(whole[0]) == {*COLUMNS, "event"}, "the views' columns and no other"


@pytest.mark.parametrize("method", get_args(Method))
def test_what_the_columns_cannot_hold_is_kept_whole(emulator: Emulator, method: Method) -> None:
    table = f"odd_{method}"
    raws = [
        b'{"id":"a","type":"t","createdAt":"yesterday","data":{"x":1}}',
        b'{"id":"b","type":"t","createdAt":"2026-03-01T12:00:00Z"}',
        b'{"id":"c","type":"t","createdAt":"2026-03-01T12:00:00Z","data":{"x":2},"more":"\xc3\xa9\\"\\n"}',
        b'{"id":"d","type":"t","createdAt":"2026-03-01T12:00:00Z","data":{"x":3}}',
    ]
    events = [Event(raw[7:8].decode(), "t", json.loads(raw)["createdAt"], raw) for raw in raws]
    writer = settings(emulator, table, method).open()
    written(writer.write(Batch(events)))
    writer.close()
    rows = emulator.query(
        f"SELECT event, created_at IS NULL, data IS NULL FROM `{PROJECT}.events.{table}` ORDER BY event_id"
    )
    assert rows == [
        (raws[0].decode(), "true", "false"),
        (raws[1].decode(), "false", "true"),
        (raws[2].decode(), "false", "false"),
        (None, "false", "false"),
    ]


def test_a_missing_dataset_is_said_in_plain_words(emulator: Emulator) -> None:
    missing = BigQuery(
        f"{PROJECT}.nowhere.t", endpoint=emulator.rest, storage_endpoint=emulator.storage
    ).open()
    outcome = missing.write(batch(0, 2))
    missing.close()
    assert outcome is not None
    assert outcome.blocked
    assert list(outcome.later) == [0, 1]
    assert "dataset practice.nowhere does not exist" in outcome.cause
    assert "bq --location=EU mk" in outcome.cause


def test_other_columns_are_named_with_what_to_do(emulator: Emulator) -> None:
    compatible = settings(emulator, "peers", schema="compatible").open()
    written(compatible.write(batch(0, 1)))
    compatible.close()
    typed = settings(emulator, "peers").open()
    outcome = typed.write(batch(1, 1))
    typed.close()
    assert outcome is not None
    assert outcome.blocked
    assert "created_at is STRING and should be TIMESTAMP" in outcome.cause
    assert "--bigquery_schema=compatible" in outcome.cause


def test_a_batch_that_was_in_before_a_crash_is_found_by_its_memo(emulator: Emulator) -> None:
    first = settings(emulator, "memo").open()
    written(first.write(batch(0, 3)))
    crashed = batch(3, 4)
    written(first.write(crashed))  # and the process dies before it can note that
    assert crashed.memo
    first.close()
    second = settings(emulator, "memo").open()
    written(second.write(crashed))
    written(second.write(batch(7, 2)))
    second.close()
    assert Counter(emulator.ids("events.memo")) == Counter(one.id for one in batch(0, 9).events)


def test_a_memo_without_its_append_is_written_anew(emulator: Emulator) -> None:
    first = settings(emulator, "early").open()
    written(first.write(batch(0, 3)))
    crashed = batch(3, 4)

    def crash(batch: Batch, memo: bytes) -> None:
        raise KeyboardInterrupt  # the memo is on disk, the append was never sent

    crashed.on_remember = crash
    with pytest.raises(KeyboardInterrupt):
        first.write(crashed)
    assert crashed.memo
    first.close()
    crashed.on_remember = None
    second = settings(emulator, "early").open()
    written(second.write(crashed))
    second.close()
    assert Counter(emulator.ids("events.early")) == Counter(one.id for one in batch(0, 7).events)


def test_a_memo_of_a_stream_that_is_gone_repeats_rather_than_loses(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    lost = batch(0, 2)
    lost.memo = b'["projects/practice/datasets/events/tables/gone/streams/0123456789abcdef",0,2]'
    writer = settings(emulator, "gone").open()
    written(writer.write(lost))
    writer.close()
    assert sorted(emulator.ids("events.gone")) == [one.id for one in lost.events]
    assert "may repeat" in caplog.text


# A lane's delivery in a process of its own, on the real journal; it is killed without warning.
PROGRAM = """
import sys, threading
from pathlib import Path
from tests.transforms.write.encodings import event
from transforms.batch import BatchPolicy
from transforms.feed.journal import Journal
from transforms.write.bigquery.destination import BigQuery
from transforms.write.delivery.delivery import Delivery

directory, rest, storage, wanted = sys.argv[1:]
journal = Journal(Path(directory), feed_url="http://feed")
cursor = journal.cursor("bigquery")
table = BigQuery("practice.events.killed", endpoint=rest, storage_endpoint=storage,
                 policy=BatchPolicy(max_events=20, max_age=0.05))
bell = threading.Event()
delivery = Delivery(table, cursor, wake=bell.set)
delivery.recover()
position = cursor.position
print("ready", flush=True)
while journal.end < int(wanted) or cursor.pending:
    if journal.end < int(wanted) and cursor.pending < 500:
        journal.append([event(n) for n in range(journal.end, journal.end + 50)], [])
    room = delivery.room()
    for chunk in journal.read(position, min(room, 100)) if room else ():
        delivery.add_chunk(chunk)
        position = chunk.end
    list(delivery.tick())
    print(cursor.pending, flush=True)
    bell.wait(0.02)
    bell.clear()
delivery.close(10)
journal.close()
"""


def start(directory: Path, emulator: Emulator, wanted: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(directory), emulator.rest, emulator.storage, str(wanted)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_each_id_is_there_once_after_kill_9(emulator: Emulator, tmp_path: Path) -> None:
    wanted = 3000
    for lines in (6, 15, 9, 20, 12):
        with start(tmp_path, emulator, wanted) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.kill()
        assert process.returncode == -9
    with start(tmp_path, emulator, wanted) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    there = Counter(emulator.ids("events.killed"))
    assert there == Counter(event(number).id for number in range(wanted))
