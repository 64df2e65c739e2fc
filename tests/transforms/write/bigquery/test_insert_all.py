"""insertAll over real HTTP: named rows, stopped bystanders, what passes by itself and what a person mends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from pipelines.practice.bigquery import PracticeBigQuery
from tests.transforms.write.bigquery.server import TABLE, ids, reaching
from tests.transforms.write.bigquery.test_storage_write import odd
from tests.transforms.write.encodings import batch, event
from tests.transforms.write.splunk.server import all_later
from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.secret import remember
from transforms.write.contract import Writer
from transforms.write.google import MOST_SAID

INSERT = "/insertAll"
KIND = "bigquery#tableDataInsertAllResponse"


@pytest.fixture
def server() -> Iterator[PracticeBigQuery]:
    with PracticeBigQuery() as running:
        yield running


@pytest.fixture
def writer(server: PracticeBigQuery) -> Iterator[Writer]:
    opened = reaching(server, "insert_all").open()
    yield opened
    opened.close()


def refusal(status: int, reason: str, message: str = "said so") -> bytes:
    """A refusal in Google's form."""
    said = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return json.dumps({"error": said}).encode()


def errors(*rows: tuple[int, str, str]) -> bytes:
    """A 200 that names rows: index, reason, message."""
    named = [
        {"index": index, "errors": [{"reason": reason, "message": message}]}
        for index, reason, message in rows
    ]
    return json.dumps({"kind": KIND, "insertErrors": named}).encode()


def test_the_insert_id_is_the_events_id(server: PracticeBigQuery, writer: Writer) -> None:
    """So a repeat within a minute or so is dropped by the service."""
    assert writer.write(batch(3)) is None
    assert writer.write(batch(5)) is None
    sent = [json.loads(one.body) for one in server.requests if one.path.endswith(INSERT)]
    assert [row["insertId"] for row in sent[0]["rows"]] == [one.id for one in batch(3).events]
    assert ids(server) == Counter(one.id for one in batch(5).events)


def test_only_the_rows_that_are_named_become_dead_letters(server: PracticeBigQuery, writer: Writer) -> None:
    server.refused_ids = {event(number).id: f"bad {number}" for number in (0, 4)}
    outcome = writer.write(batch(5))
    assert outcome is not None
    assert {index: why.rpartition(" refused it: ")[2] for index, why in outcome.rejected.items()} == {
        0: "bad 0",
        4: "bad 4",
    }
    assert list(outcome.later) == []
    assert ids(server) == Counter(event(number).id for number in (1, 2, 3))


def test_a_reply_that_names_every_row_of_a_large_batch_is_read_whole(
    server: PracticeBigQuery, writer: Writer
) -> None:
    server.refused_ids = {event(number).id: "a reason of some length " * 10 for number in range(2000)}
    outcome = writer.write(batch(2000))
    assert outcome is not None
    assert len(outcome.rejected) == 2000


def test_stopped_rows_are_bystanders_and_come_again(server: PracticeBigQuery, writer: Writer) -> None:
    server.refused_ids, server.stops = {event(1).id: "bad"}, True
    made = batch(4)
    outcome = writer.write(made)
    assert outcome is not None
    assert (list(outcome.rejected), list(outcome.later)) == ([1], [0, 2, 3])
    assert not outcome.blocked
    assert writer.write(Batch([made.events[index] for index in outcome.later])) is None
    assert ids(server) == Counter(event(number).id for number in (0, 2, 3))


def test_what_the_columns_do_not_take_is_kept_whole_at_the_second_try(
    server: PracticeBigQuery, writer: Writer
) -> None:
    events = [event(0), *odd(), event(9)]
    assert writer.write(Batch(events)) is None
    rows = {row["event_id"]: row for row in server.rows(TABLE)}
    assert rows.keys() == {one.id for one in events}
    for one in odd():
        assert rows[one.id] == {"event_id": one.id, "event_type": one.type, "event": one.raw.decode()}


@pytest.mark.parametrize(
    ("status", "blocked", "unknown"), [(503, False, False), (502, False, True), (401, True, False)]
)
def test_a_second_try_that_fails_leaves_its_rows_for_later(
    server: PracticeBigQuery, writer: Writer, status: int, blocked: bool, unknown: bool
) -> None:
    """Neither dead letters nor lost: the next attempt goes the same way."""
    made = Batch([event(0), *odd()])
    assert writer.write(Batch([event(50)])) is None
    server.answer(200, errors((1, "invalid", "no"), (3, "stopped", "")), path=INSERT)
    server.answer(status, b"", path=INSERT)
    outcome = writer.write(made)
    assert outcome is not None
    assert (list(outcome.later), dict(outcome.rejected)) == ([1, 3], {})
    assert (outcome.blocked, outcome.unknown) == (blocked, unknown)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset_keeps_all_and_counts_what_may_have_arrived(
    server: PracticeBigQuery, writer: Writer, when: str
) -> None:
    assert writer.write(Batch([event(50)])) is None
    server.reset(when, path=INSERT)  # type: ignore[arg-type]
    assert all_later(writer.write(batch(3)), 3).unknown
    assert writer.write(batch(3)) is None
    assert ids(server) == Counter([event(50).id, *(one.id for one in batch(3).events)])


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, "rateLimitExceeded"),
        (403, "quotaExceeded"),
        (429, "rateLimitExceeded"),
        (500, "backendError"),
        (503, "backendError"),
        (408, "odd"),
    ],
)
def test_what_passes_by_itself_is_later(
    server: PracticeBigQuery, writer: Writer, status: int, reason: str
) -> None:
    server.answer(status, refusal(status, reason), {"Retry-After": "9"}, path=INSERT)
    outcome = all_later(writer.write(batch(3)), 3)
    assert (outcome.blocked, outcome.too_large, outcome.retry_after) == (False, False, 9.0)
    assert writer.write(batch(3)) is None


@pytest.mark.parametrize("status", [502, 504])
def test_what_a_gateway_lost_the_answer_to_is_counted(
    server: PracticeBigQuery, writer: Writer, status: int
) -> None:
    assert writer.write(Batch([event(50)])) is None
    server.answer(status, b"<html>", path=INSERT)
    assert all_later(writer.write(batch(3)), 3).unknown


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (400, "invalid", "compare the table"),
        (401, "authError", "service account or user that is valid"),
        (403, "accessDenied", "roles/bigquery.dataEditor"),
        (404, "notFound", "--bigquery_table"),
    ],
)
def test_what_a_person_must_mend_blocks_in_plain_words(
    server: PracticeBigQuery, writer: Writer, status: int, reason: str, words: str
) -> None:
    server.answer(status, refusal(status, reason), path=INSERT)
    outcome = all_later(writer.write(batch(3)), 3)
    assert outcome.blocked
    for each in (words, reason, "said so", "kept"):
        assert each in outcome.cause
    assert writer.write(batch(3)) is None


@pytest.mark.parametrize("reason", ["backendError", "internalError", "timeout", "rateLimitExceeded"])
def test_rows_that_failed_for_the_services_own_reasons_come_again(
    server: PracticeBigQuery, writer: Writer, reason: str
) -> None:
    server.answer(200, errors((1, reason, "")), path=INSERT)
    outcome = writer.write(batch(3))
    assert outcome is not None
    assert (list(outcome.later), dict(outcome.rejected), outcome.blocked) == ([1], {}, False)


def test_a_column_that_goes_away_blocks_and_rejects_nothing(server: PracticeBigQuery, writer: Writer) -> None:
    assert writer.write(Batch([event(50)])) is None
    fields = server.tables.get(server.path(TABLE)).resource["schema"]["fields"]  # type: ignore[union-attr]
    server.tables.alter(server.path(TABLE), [one for one in fields if one["name"] != "data"])
    outcome = all_later(writer.write(batch(3)), 3)
    assert outcome.blocked
    assert "no such field: data" in outcome.cause
    assert "ADD COLUMN data JSON" in all_later(writer.write(batch(3)), 3).cause
    server.tables.alter(server.path(TABLE), fields)
    assert writer.write(batch(3)) is None


@pytest.mark.parametrize("status", [413, 400])
def test_a_request_too_large_is_sent_again_in_halves(
    server: PracticeBigQuery, writer: Writer, status: int
) -> None:
    message = "Request payload size exceeds the limit: 10485760 bytes."
    server.answer(status, refusal(status, "uploadTooLarge", message), path=INSERT)
    assert all_later(writer.write(batch(3)), 3).too_large


def test_a_body_that_nobody_can_read_is_unknown(server: PracticeBigQuery, writer: Writer) -> None:
    assert writer.write(Batch([event(50)])) is None
    server.garbage(b"<html>", path=INSERT)
    assert all_later(writer.write(batch(3)), 3).unknown
    assert writer.write(batch(3)) is None
    assert ids(server).total() == 4, "the insertIds of the first attempt are known"


FOREIGN = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'"OK"',
    b"<!DOCTYPE html><html>sign in",
    b'{"success":false}',
    b'{"error":{"code":503,"message":"x"}}',
    b'{"kind":"bigquery#tableDataInsertAllResponse","error":{"code":503}}',
    b'{"kind":5}',
    b"[" * 100_000,
    b'{"kind":"bigquery#tableDataInsertAllResponse","x":' + b"[" * 100_000,
    b'{"kind":"bigquery#tableDataInsertAllResponse","insertErrors":5}',
    b'{"kind":"bigquery#tableDataInsertAllResponse","insertErrors":[{"index":"x","errors":[]}]}',
    b'{"kind":"bigquery#tableDataInsertAllResponse","insertErrors":[{"index":0,"errors":[5]}]}',
    b'{"kind":"bigquery#tableDataInsertAllResponse","insertErrors":[{"errors":[{"reason":null}]}]}',
]


@pytest.mark.parametrize("body", FOREIGN, ids=lambda body: repr(body[-30:]))
def test_an_answer_that_is_not_bigquerys_is_no_receipt(
    server: PracticeBigQuery, writer: Writer, body: bytes
) -> None:
    assert writer.write(Batch([event(50)])) is None
    server.answer(200, body, path=INSERT)
    outcome = all_later(writer.write(batch(3)), 3)
    assert (outcome.unknown, outcome.rejected) == (True, {})
    assert "not BigQuery's" in outcome.cause
    assert writer.write(batch(3)) is None


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_another_success_than_200_is_no_receipt(
    server: PracticeBigQuery, writer: Writer, status: int
) -> None:
    assert writer.write(Batch([event(50)])) is None
    body = b"" if status == 204 else b'{"kind":"%s"}' % KIND.encode()
    server.answer(status, body, path=INSERT)
    all_later(writer.write(batch(3)), 3)
    assert writer.write(batch(3)) is None


REFUSALS = [
    *FOREIGN,
    b'{"error":"no"}',
    b'{"error":["no"]}',
    b'{"error":{"message":5,"errors":[{"reason":[]}]}}',
]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("body", REFUSALS, ids=lambda body: repr(body[-30:]))
def test_no_refusal_raises_whatever_its_body_is(
    server: PracticeBigQuery, writer: Writer, status: int, body: bytes
) -> None:
    for path in (f"/{TABLE}", INSERT):
        server.answer(status, body, path=path)
        if path == f"/{TABLE}" and status == 404:
            continue  # it is created, which it was
        all_later(writer.write(batch(3)), 3)
    assert writer.write(batch(3)) is None


def test_a_page_of_something_in_between_is_not_taken_for_bigquerys_refusal(
    server: PracticeBigQuery, writer: Writer
) -> None:
    server.answer(403, b"<html>Access denied by your firewall", path=INSERT)
    outcome = all_later(writer.write(batch(3)), 3)
    assert outcome.blocked
    assert "in between" in outcome.cause
    assert "dataEditor" not in outcome.cause


def test_a_secret_in_bigquerys_words_is_taken_out_before_they_are_cut(
    server: PracticeBigQuery, writer: Writer
) -> None:
    secret = "hush" * 10
    remember(secret)
    server.answer(403, refusal(403, "accessDenied", "x" * (MOST_SAID - 20) + secret), path=INSERT)
    assert "hush" not in all_later(writer.write(batch(3)), 3).cause


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_bigquerys_words_are_one_short_printable_line(
    server: PracticeBigQuery, writer: Writer, status: int
) -> None:
    ugly = "\x1b[2J\u009b\n" + "x" * 200_000
    server.answer(status, refusal(status, ugly, ugly), path=INSERT)
    cause = all_later(writer.write(batch(3)), 3).cause
    assert cause.isprintable()
    assert len(cause) < 1000


def test_a_redirect_is_not_followed_and_its_target_is_data(server: PracticeBigQuery, writer: Writer) -> None:
    server.answer(302, b"", {"Location": "http://[x", "Set-Cookie": "a=\xe9"}, path=INSERT)
    assert all_later(writer.write(batch(3)), 3).blocked
    assert writer.write(batch(3)) is None


def test_closing_ends_a_request_that_hangs(server: PracticeBigQuery) -> None:
    for hung in (f"/{TABLE}", INSERT):
        writer = reaching(server, "insert_all").open()
        if hung == INSERT:
            assert writer.write(batch(1)) is None
        seen = server.request_count
        server.hang()
        outcomes: list[object] = []
        thread = threading.Thread(target=lambda: outcomes.append(writer.write(batch(3))))  # noqa: B023
        thread.start()
        assert server.wait_for_requests(seen + 1)
        writer.close()
        thread.join(5)
        assert not thread.is_alive()
        assert outcomes != [None]
        server.release()


def test_a_cut_answer_is_unknown(server: PracticeBigQuery, writer: Writer) -> None:
    """A body that names rows cannot be told from one that was cut: the status alone is not enough here."""
    assert writer.write(Batch([event(50)])) is None
    server.cut_answer(path=INSERT)
    assert all_later(writer.write(batch(3)), 3).unknown


@pytest.mark.slow
@pytest.mark.parametrize("size", [700, 6_000, 900_000])
def test_batches_as_large_as_they_are_made_are_never_too_large(server: PracticeBigQuery, size: int) -> None:
    policy = BatchPolicy(max_events=50_000, max_bytes=9_500_000, max_age=5.0)
    settings = reaching(server, "insert_all", policy=policy)
    events, total = list[Event](), 0
    while True:
        name = f"e{len(events)}"
        quotes = '\\"' * (size // 2)
        raw = f'{{"id":"{name}","type":"t","createdAt":"odd","data":{{"x":"{quotes}"}}}}'.encode()
        made = Event(name, "t", "odd", raw)
        total += settings.size(made)
        if total > policy.max_bytes:
            break
        events.append(made)
    assert settings.open().write(Batch(events)) is None
    assert ids(server).total() == len(events)


@pytest.mark.slow
def test_neither_way_into_a_table_brings_arrow_into_memory() -> None:
    """28 MB, which pipelines/beam.py keeps out; google-cloud-bigquery would take it along."""
    program = (
        "import sys\n"
        "import pipelines.beam\n"
        "from pipelines.practice.bigquery import PracticeBigQuery\n"
        "from tests.transforms.write.bigquery.server import reaching\n"
        "from tests.transforms.write.encodings import batch\n"
        "with PracticeBigQuery() as server:\n"
        "    for method in ('insert_all', 'storage_write'):\n"
        "        writer = reaching(server, method).open()\n"
        "        assert writer.write(batch(3)) is None\n"
        "        writer.close()\n"
        "assert 'google.cloud.bigquery' in sys.modules\n"
        "assert not {'pyarrow', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
