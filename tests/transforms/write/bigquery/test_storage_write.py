"""Storage Write over real gRPC: each answer and each break of the call, and that no row is there twice."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import duration_pb2  # type: ignore[import-untyped]
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

from pipelines.practice.bigquery import PracticeBigQuery
from pipelines.practice.bigquery_storage import StorageError
from tests.transforms.write.bigquery.server import TABLE, ids, reaching
from tests.transforms.write.encodings import batch, event
from tests.transforms.write.splunk.server import all_later
from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.write.bigquery import storage_write as bigquery_storage_client
from transforms.write.contract import Outcome, Writer

CODES = StorageError.StorageErrorCode
UNAVAILABLE, RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 14, 8, 9


@pytest.fixture
def server() -> Iterator[PracticeBigQuery]:
    with PracticeBigQuery() as running:
        yield running


def until_delivered(writer: Writer, what: Batch, attempts: int = 10) -> list[Outcome]:
    """Write until nothing is left; the outcomes on the way."""
    outcomes = []
    while (outcome := writer.write(what)) is not None:
        outcomes.append(outcome)
        assert len(outcomes) < attempts, outcomes
    return outcomes


def once(what: Batch) -> Counter[str]:
    return Counter(one.id for one in what.events)


def test_appends_go_to_one_stream_over_one_call(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    for number in range(5):
        assert writer.write(Batch([event(number)])) is None
    writer.close()
    (stream,) = server.storage.streams.values()
    assert (stream.rows, stream.finalized) == (5, False)
    assert ids(server) == Counter(event(number).id for number in range(5))


def test_place_is_remembered_before_the_append(server: PracticeBigQuery) -> None:
    made, seen = batch(3), list[object]()
    made.on_remember = lambda _, memo: seen.append((memo, ids(server).total()))
    assert reaching(server).open().write(made) is None
    (name,) = server.storage.streams
    assert seen == [(b'["%s",0,3]' % name.encode(), 0)]


# Answers within the call


def test_already_exists_is_delivered(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    detail = StorageError(code=CODES.OFFSET_ALREADY_EXISTS)
    server.storage.refuse(6, "The offset is within stream", detail)
    assert writer.write(batch(2)) is None


@pytest.mark.parametrize(
    ("code", "detail", "ends"),
    [
        (11, "OFFSET_OUT_OF_RANGE", False),
        (11, "OFFSET_OUT_OF_RANGE", True),
        (6, "OFFSET_ALREADY_EXISTS", True),  # within the call it is success
        (FAILED_PRECONDITION, "STREAM_FINALIZED", False),
        (FAILED_PRECONDITION, "STREAM_FINALIZED", True),
        (5, "STREAM_NOT_FOUND", True),
        (3, "INVALID_STREAM_STATE", False),
    ],
)
def test_what_is_wrong_with_the_stream_alone_goes_on_in_a_new_one(
    server: PracticeBigQuery, code: int, detail: str, ends: bool
) -> None:
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.storage.refuse(code, "not this stream", StorageError(code=CODES.Value(detail)), ends=ends)
    outcome = all_later(writer.write(batch(3)), 3)
    assert not outcome.blocked
    assert "new stream" in outcome.cause
    assert writer.write(batch(3)) is None
    assert len(server.storage.streams) == 2
    assert ids(server) == once(batch(3)) + Counter([event(100).id])


def test_a_stream_that_others_finalized_is_left(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    next(iter(server.storage.streams.values())).finalized = True
    assert "FAILED_PRECONDITION" in all_later(writer.write(batch(3)), 3).cause
    assert until_delivered(writer, batch(3)) == []


def test_a_stream_that_is_gone_is_replaced(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.storage.streams.clear()
    made = batch(3)
    assert "NOT_FOUND" in all_later(writer.write(made), 3).cause
    assert writer.write(made) is None
    assert ids(server) == once(made) + Counter([event(100).id])


# Rows


def test_only_the_rows_that_are_named_become_dead_letters(server: PracticeBigQuery) -> None:
    server.refused_ids = {event(number).id: f"bad {number}" for number in (0, 2, 4)}
    made = batch(5)
    outcome = reaching(server).open().write(made)
    assert outcome is not None
    assert outcome.rejected.keys() == {0, 2, 4}
    assert outcome.rejected[2].startswith("invalid_row: ")
    assert outcome.rejected[2].endswith("refused it: bad 2")
    assert list(outcome.later) == [1, 3]
    assert ids(server) == Counter()


def test_what_is_left_of_a_batch_with_bad_rows_is_written_once(server: PracticeBigQuery) -> None:
    server.refused_ids = {event(1).id: "bad"}
    writer = reaching(server).open()
    made = batch(3)
    outcome = writer.write(made)
    assert outcome is not None
    left = Batch([made.events[index] for index in outcome.later], memo=made.memo)
    assert writer.write(left) is None
    assert ids(server) == once(left)


def odd() -> list[Event]:
    """Events that the columns do not take, but a string does."""
    deep = b"[" * 600 + b"]" * 600
    return [
        event(1, "2999-01-01T00:00:00Z"),
        event(2, "1971-01-01T00:00:00Z"),
        Event("deep", "t", "", b'{"id":"deep","type":"t","createdAt":"","data":%s}' % deep),
    ]


def test_what_the_columns_do_not_take_is_kept_whole_at_the_second_try(server: PracticeBigQuery) -> None:
    events = [event(0), *odd(), event(9)]
    assert reaching(server).open().write(Batch(events)) is None
    rows = {row["event_id"]: row for row in server.rows(TABLE)}
    assert [row["event_id"] for row in server.rows(TABLE)] == [one.id for one in events]
    for one in odd():
        assert rows[one.id] == {"event_id": one.id, "event_type": one.type, "event": one.raw.decode()}
    assert rows[event(0).id]["created_at"] == 1772366400123000
    assert len(server.storage.streams) == 1


def test_a_row_that_is_not_taken_even_as_text_is_rejected_alone(server: PracticeBigQuery) -> None:
    events = [event(0), *odd()]
    server.refused_ids = {"deep": "no"}
    outcome = reaching(server).open().write(Batch(events))
    assert outcome is not None
    assert list(outcome.rejected) == [3]
    assert list(outcome.later) == [0, 1, 2]


def test_compatible_rows_are_text_already(server: PracticeBigQuery) -> None:
    server.refused_ids = {event(1).id: "bad"}
    outcome = reaching(server, schema="compatible").open().write(batch(2))
    assert outcome is not None
    assert list(outcome.rejected) == [1]
    assert server.storage.appends == 1


# Breaks of the call


@pytest.mark.parametrize("taken", [False, True])
def test_a_lost_connection_loses_and_repeats_nothing(server: PracticeBigQuery, taken: bool) -> None:
    """The stream is asked what became of the append: UNAVAILABLE itself does not say."""
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.storage.cut(taken=taken, times=2)
    made = batch(4)
    outcomes = until_delivered(writer, made)
    assert len(outcomes) == (1 if taken else 2)
    assert not any(one.unknown or one.blocked for one in outcomes)
    assert all("UNAVAILABLE: Socket closed" in one.cause for one in outcomes)
    assert ids(server) == once(made) + Counter([event(100).id])


def test_an_answer_without_a_place_is_no_receipt(server: PracticeBigQuery) -> None:
    """An empty message is what a proxy's answer may decode to, and has the code 0 as well."""
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.storage.refuse(0, "")
    made = batch(4)
    assert "not BigQuery's" in all_later(writer.write(made), 4).cause
    assert writer.write(made) is None
    assert ids(server) == once(made) + Counter([event(100).id])


def test_an_answer_that_never_comes_is_asked_about(
    server: PracticeBigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_storage_client, "APPEND_SECONDS", 0.3)
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.storage.slow(1.0)
    made = batch(4)
    assert "no answer within" in all_later(writer.write(made), 4).cause
    server.storage.slow(0.0)
    assert writer.write(made) is None
    assert ids(server) == once(made) + Counter([event(100).id])


def test_goaway_under_load_loses_and_repeats_nothing() -> None:
    """Every 0.2 s the server says GOAWAY and soon cuts the call, whatever is under way."""
    with PracticeBigQuery(connection_age=0.2) as server:
        writer = reaching(server).open()
        batches = [Batch([event(10 * number + n) for n in range(10)]) for number in range(60)]
        server.storage.slow(0.02)
        outcomes = [one for each in batches for one in until_delivered(writer, each)]
        writer.close()
        assert ids(server) == Counter(one.id for each in batches for one in each.events)
        assert len(server.storage.streams) > 1 or outcomes == []
        assert all("UNAVAILABLE" in one.cause or "CANCELLED" in one.cause for one in outcomes)


def test_an_outage_is_found_over_without_a_restart(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.down()
    made = batch(4)
    outcome = all_later(writer.write(made), 4)
    assert not outcome.unknown
    assert not outcome.blocked
    server.up()
    give_up = time.monotonic() + 20
    while writer.write(made) is not None:
        assert time.monotonic() < give_up
    assert ids(server) == once(made) + Counter([event(100).id])


@pytest.mark.slow
def test_an_outage_writes_nothing_to_stderr_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own: gRPC's core reads how much to say when it is first used."""
    program = """
from pipelines.practice.bigquery import PracticeBigQuery
from tests.transforms.write.bigquery.server import reaching
from tests.transforms.write.encodings import batch

with PracticeBigQuery() as server:
    writer = reaching(server).open()
    assert writer.write(batch(1)) is None
    server.down()
    assert "UNAVAILABLE" in writer.write(batch(2)).cause
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[4])
    assert capfd.readouterr() == ("", "")


def test_close_ends_an_append_that_hangs(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    server.storage.hang()
    found: list[Outcome | None] = []
    thread = threading.Thread(target=lambda: found.append(writer.write(batch(2))))
    before = server.storage.appends
    thread.start()
    while server.storage.appends == before:
        time.sleep(0.01)
    writer.close()
    thread.join(5)
    assert not thread.is_alive()
    all_later(found[0], 2)


# Quota, size, schema, rights


def test_a_quota_is_waited_out_as_long_as_it_says(server: PracticeBigQuery) -> None:
    wait = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=7, nanos=500_000_000))
    server.storage.refuse(RESOURCE_EXHAUSTED, "Exceeds quota 'AppendBytesThroughput'", wait, ends=True)
    writer = reaching(server).open()
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.retry_after == 7.5
    assert not outcome.blocked
    assert "AppendBytesThroughput" in outcome.cause
    assert until_delivered(writer, batch(2)) == []


def test_a_request_too_large_for_bigquery_is_halved(server: PracticeBigQuery) -> None:
    server.storage.refuse(3, "AppendRows request too large: 10485999 limit 10485760", ends=True)
    assert all_later(reaching(server).open().write(batch(2)), 2).too_large


@pytest.mark.slow
@pytest.mark.parametrize("size", [700, 6_000, 900_000])
def test_batches_as_large_as_they_are_made_are_never_too_large(server: PracticeBigQuery, size: int) -> None:
    """The server refuses requests above 10 MiB, and we halve above 9.9 MB of rows: neither happens."""
    policy = BatchPolicy(max_events=50_000, max_bytes=9_500_000, max_age=5.0)
    settings = reaching(server, policy=policy)
    quotes = '"' * (size // 2)
    events, total = list[Event](), 0
    while True:
        text = quotes.replace('"', '\\"')
        name = f"e{len(events)}"
        raw = f'{{"id":"{name}","type":"t","createdAt":"odd","data":{{"x":"{text}"}}}}'.encode()
        made = Event(name, "t", "odd", raw)  # whole and in part: the most a row can hold
        total += settings.size(made)
        if total > policy.max_bytes:
            break
        events.append(made)
    assert settings.open().write(Batch(events)) is None
    assert ids(server).total() == len(events)


def test_a_column_that_goes_away_is_named_and_adding_it_mends_it(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(Batch([event(100)])) is None
    fields = server.tables.get(server.path(TABLE)).resource["schema"]["fields"]  # type: ignore[union-attr]
    server.tables.alter(server.path(TABLE), [one for one in fields if one["name"] != "event"])
    fresh = reaching(server).open()
    outcome = all_later(fresh.write(batch(2)), 2)
    assert "lacks the column(s) event" in outcome.cause
    server.storage.streams.clear()  # what was open before goes on with the old columns for a while
    assert not all_later(writer.write(batch(2)), 2).blocked
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "SCHEMA_MISMATCH" in outcome.cause or "extra fields: 'event'" in outcome.cause
    outcome = all_later(writer.write(batch(2)), 2)
    assert "ALTER TABLE `practice.grantex.events` ADD COLUMN event STRING" in outcome.cause
    server.tables.alter(server.path(TABLE), fields)
    assert until_delivered(writer, batch(2)) == []
    assert until_delivered(fresh, Batch([event(7)])) == []


def test_a_column_that_somebody_adds_is_left_empty(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(batch(1)) is None
    fields = server.tables.get(server.path(TABLE)).resource["schema"]["fields"]  # type: ignore[union-attr]
    server.tables.alter(server.path(TABLE), [*fields, {"name": "team", "type": "STRING", "mode": "NULLABLE"}])
    assert writer.write(Batch([event(7)])) is None
    assert reaching(server).open().write(Batch([event(8)])) is None


def test_a_table_that_is_dropped_is_made_anew(server: PracticeBigQuery) -> None:
    writer = reaching(server).open()
    assert writer.write(batch(1)) is None
    server.tables.drop(server.path(TABLE))
    until_delivered(writer, batch(3))
    assert ids(server) == once(batch(3))


@pytest.mark.parametrize(
    ("code", "detail", "words"),
    [
        (7, "", "roles/bigquery.dataEditor"),
        (16, "", "service account or user that is valid"),
        (5, "TABLE_NOT_FOUND", "create the dataset, or correct --bigquery_table"),
        (3, "", "--bigquery_schema"),
        (12, "", "--bigquery_storage_endpoint"),
        (9, "CMEK_ENCRYPTION_ERROR", "encryption key"),
        (7, "KMS_PERMISSION_DENIED", "encryption key"),
    ],
)
def test_what_a_person_must_mend_blocks_in_plain_words(
    server: PracticeBigQuery, code: int, detail: str, words: str
) -> None:
    details = [StorageError(code=CODES.Value(detail))] if detail else []
    server.storage.refuse(code, "said so", *details, ends=True)
    writer = reaching(server).open()
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert words in outcome.cause
    assert "said so" in outcome.cause
    assert until_delivered(writer, batch(2)) == []
    assert ids(server) == once(batch(2))


@pytest.mark.parametrize("code", [1, 2, 4, 10, 13, 14, 15])
def test_what_passes_by_itself_is_later(server: PracticeBigQuery, code: int) -> None:
    server.storage.refuse(code, "said so", ends=True)
    writer = reaching(server).open()
    assert not all_later(writer.write(batch(2)), 2).blocked
    assert until_delivered(writer, batch(2)) == []


# Crashes


@pytest.mark.parametrize("written", [False, True])
def test_another_writer_finds_out_whether_the_append_was_written(
    server: PracticeBigQuery, written: bool
) -> None:
    made = batch(3)
    crashed = reaching(server).open()
    server.storage.cut(taken=written)
    all_later(crashed.write(made), 3)
    crashed.close()
    again = Batch(made.events, memo=made.memo)
    assert reaching(server).open().write(again) is None
    assert ids(server) == once(made)
    assert len(server.storage.streams) == (1 if written else 2)


def test_an_append_that_comes_late_finds_its_stream_closed(server: PracticeBigQuery) -> None:
    """What the crashed writer had on its way cannot arrive after the new one has looked."""
    made = batch(3)
    crashed = reaching(server).open()
    assert crashed.write(Batch([event(100)])) is None
    server.storage.refuse(UNAVAILABLE, "lost", ends=True)
    all_later(crashed.write(made), 3)
    assert reaching(server).open().write(Batch(made.events, memo=made.memo)) is None
    first, second = server.storage.streams.values()
    assert (first.finalized, first.rows, second.rows) == (True, 1, 3)
