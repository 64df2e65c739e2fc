"""Splunk: every reply of HEC as an outcome, against a practice server on loopback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.practice.splunk import PracticeSplunk
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk.server import all_later
from transforms.event import Batch, Event
from transforms.secret import LiteralSecret
from transforms.write.contract import Writer
from transforms.write.splunk.destination import Splunk

# One event at fault


def hurt(made: Batch, index: int, raw: bytes) -> Batch:
    events = list(made.events)
    events[index] = replace_raw(events[index], raw)
    return Batch(events)


def replace_raw(one: Event, raw: bytes) -> Event:
    return Event(one.id, one.type, one.created_at, raw)


@pytest.mark.parametrize("bad", [0, 2, 4])
@pytest.mark.parametrize(("raw", "code"), [(b"{broken", 6), (b"null", 12), (b'""', 13)])
def test_the_named_event_is_rejected_and_only_those_behind_it_are_later(
    server: PracticeSplunk, writer: Writer, bad: int, raw: bytes, code: int
) -> None:
    made = hurt(batch(5), bad, raw)
    outcome = writer.write(made)
    assert outcome is not None
    assert list(outcome.rejected) == [bad]
    assert outcome.rejected[bad].startswith(f"hec_{code}: ")
    assert list(outcome.later) == list(range(bad + 1, 5))
    assert not outcome.unknown
    assert not outcome.blocked
    # Neither loss nor repeat once the rest is sent.
    rest = [made.events[index] for index in outcome.later]
    assert not rest or writer.write(Batch(rest)) is None
    assert server.ids == [one.id for index, one in enumerate(made.events) if index != bad]


def test_code_15_names_its_event_like_the_others(server: PracticeSplunk, writer: Writer) -> None:
    server.answer_code(15, 1)
    outcome = writer.write(batch(3))
    assert outcome is not None
    assert (list(outcome.rejected), list(outcome.later)) == ([1], [2])


@pytest.mark.parametrize("code", [6, 12, 13, 15, 16])
@pytest.mark.parametrize("number", [None, -1, 3, 99])
def test_an_event_that_is_not_named_is_found_by_halving(
    server: PracticeSplunk, writer: Writer, code: int, number: int | None
) -> None:
    server.answer_code(code, number, times=2)
    outcome = all_later(writer.write(batch(3)), 3)
    assert outcome.too_large
    assert outcome.unknown
    alone = writer.write(batch(1))
    assert alone is not None
    assert list(alone.rejected) == [0]
    assert not alone.later


def test_an_unknown_code_that_names_an_event_rejects_it(server: PracticeSplunk, writer: Writer) -> None:
    server.answer(400, b'{"text":"new","code":77,"invalid-event-number":1}')
    outcome = writer.write(batch(3))
    assert outcome is not None
    assert (list(outcome.rejected), list(outcome.later)) == ([1], [2])


# Configuration


@pytest.mark.parametrize(
    ("number", "first_later", "unknown"),
    [(1, 0, False), (3, 2, False), (5, 4, False), (0, 0, True), (6, 0, True), (-1, 0, True), (None, 0, True)],
)
def test_code_7_blocks_and_counts_what_was_indexed_before(
    server: PracticeSplunk, writer: Writer, number: int | None, first_later: int, unknown: bool
) -> None:
    server.answer_code(7, number)
    outcome = writer.write(batch(5))
    assert outcome is not None
    assert list(outcome.later) == list(range(first_later, 5))
    assert outcome.blocked
    assert outcome.unknown is unknown
    assert not outcome.rejected
    assert "'main'" in outcome.cause


def test_a_missing_index_blocks_and_nothing_was_indexed(server: PracticeSplunk, settings: Splunk) -> None:
    writer = replace(settings, index="missing").open()
    assert all_later(writer.write(batch(3)), 3).blocked
    server.indexes.add("missing")
    assert writer.write(batch(3)) is None
    assert server.repeats == 0


@pytest.mark.parametrize("code", [5, 10, 11, 14])
def test_codes_of_the_wrong_set_up_block(server: PracticeSplunk, writer: Writer, code: int) -> None:
    server.answer_code(code)
    assert all_later(writer.write(batch(2)), 2).blocked


@pytest.mark.parametrize(
    ("status", "word"),
    [(404, "URL"), (301, "URL"), (415, "--http_compression=none"), (403, "a page"), (400, "400")],
)
def test_statuses_that_are_not_hecs_block(
    server: PracticeSplunk, writer: Writer, status: int, word: str
) -> None:
    server.answer(status, b"<html>no HEC here</html>")
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert word in outcome.cause


# Passing troubles


@pytest.mark.parametrize("code", [8, 9, 18, 19, 20])
def test_busy_codes_are_later(server: PracticeSplunk, writer: Writer, code: int) -> None:
    server.answer_code(code)
    outcome = all_later(writer.write(batch(2)), 2)
    assert not outcome.blocked
    assert not outcome.unknown
    assert writer.write(batch(2)) is None


def test_retry_after_is_carried(server: PracticeSplunk, writer: Writer) -> None:
    server.answer(503, b'{"text":"Server is busy","code":9}', {"Retry-After": "17"})
    assert all_later(writer.write(batch(1)), 1).retry_after == 17.0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 522, 524, 530, 598, 599])
def test_a_proxys_page_is_later(server: PracticeSplunk, writer: Writer, status: int) -> None:
    server.answer(status, b"<html>Bad Gateway</html>", {"Retry-After": "3"})
    outcome = all_later(writer.write(batch(1)), 1)
    assert not outcome.blocked
    assert outcome.unknown == (status not in (408, 429, 500, 503))  # a gateway's: HEC may have taken it
    assert outcome.retry_after == 3.0


def test_413_is_too_large() -> None:
    with PracticeSplunk(max_body=100) as server:
        writer = Splunk(server.url, LiteralSecret(server.token)).open()
        assert all_later(writer.write(batch(2)), 2).too_large
        writer.close()


RECEIPTS = [
    b"",
    b"\r\n",
    b'{"text":"Success","code":0}',
    b'{"text":"Success","code":0,"ackId":7}',
    b'{"text":"Queues are approaching capacity","code":24}',
    b"OK",
    b'"OK"',
    b"{",
    b'{"te',
    b'{"text":"Suc',
    b'{"text":"Success","co',
    b'{"text":"Success","code":',
    b'{"text":"Success","code":0',
    b'{"text":"Queues are approaching capacity","code":2',
    b'{"text":"Success","code":0,"ackI',
    b'{"text": "Success", "code": 0, "ackId": 1',
]
LOGIN = b'<!doctype html><title>Sign in</title><form action="/login">Sign in</form>'
NO_RECEIPTS = [
    LOGIN,
    b"\xef\xbb\xbf" + LOGIN,
    b"<?xml version='1.0'?><html/>",
    b"<html>",
    b"Please sign in",
    b"{}",
    b"[]",
    b"null",
    b"0",
    b'{"code":"0"}',
    b'{"code":false}',
    b'{"code":null}',
    b'{"text":"Success"}',
    b'{"text":"Server is busy","code":9}',
    b'{"text":"Incorrect index","code":7,"invalid-event-number":1}',
    b'{"text":"Server is busy","code":9,"ack',
    b'{"text":"Server is busy","code":9',
    b'{"code":6',
    b'{"text":"Success","code":0,"success":false}',
    b'{"code":0,"errors":["sign in"]}',
    b'{"error":"sign in"}',
    b'{"error":"sign in","code":0}',
    b'{"success":false}',
    b'{"error":"sig',
    b'{"x":' + b"[" * 100_000,
    b'{"text":' + b"[" * 100_000,
    b'{"code":' + b"9" * 10_000,
    b'{"code":' + b"9" * 10_000 + b"}",
    b'{"text":"\xff","code":0}',
    b"\xff",
    b"\x00",
]


@pytest.mark.parametrize("body", RECEIPTS)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_what_hec_says_delivers(server: PracticeSplunk, writer: Writer, status: int, body: bytes) -> None:
    server.answer(status, body)
    assert writer.write(batch(2)) is None


@pytest.mark.parametrize("body", NO_RECEIPTS)
@pytest.mark.parametrize("status", [200, 202, 206])
def test_what_hec_does_not_say_delivers_nothing_and_names_what_stands_between(
    server: PracticeSplunk, writer: Writer, status: int, body: bytes
) -> None:
    server.answer(status, body)
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.unknown
    assert outcome.blocked
    assert "proxy, firewall or sign-in page" in outcome.cause
    assert writer.write(batch(2)) is None


@pytest.mark.parametrize("body", NO_RECEIPTS)
@pytest.mark.parametrize("status", [300, 302, 400, 401, 403, 404, 418, 429, 500, 502, 503, 511, 599])
def test_no_body_raises_or_rejects_an_event(
    server: PracticeSplunk, writer: Writer, status: int, body: bytes
) -> None:
    server.answer(status, body)
    all_later(writer.write(batch(2)), 2)


@pytest.mark.parametrize(
    ("status", "code", "unknown"),
    [
        (502, 7, True),
        (504, 9, True),
        (520, 3, True),
        (401, 7, False),
        (403, 6, False),
        (404, 4, False),
        (200, 7, True),
    ],
)
def test_a_code_that_hec_never_sends_with_this_status_is_not_believed(
    server: PracticeSplunk, writer: Writer, status: int, code: int, unknown: bool
) -> None:
    server.answer(status, b'{"text":"odd","code":%d,"invalid-event-number":1}' % code)
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.unknown == unknown
    assert "index 'main'" not in outcome.cause
    assert "refused the HEC token" not in outcome.cause


def test_a_page_that_refuses_is_not_hec_refusing_the_token(server: PracticeSplunk, writer: Writer) -> None:
    server.answer(403, b"<html><h1>Blocked by web filter</h1></html> ", {"content-type": "text/html"})
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "refused the HEC token" not in outcome.cause
    assert 'a page "Blocked by web filter"' in outcome.cause


def test_a_cut_behind_a_2xx_status_line_is_delivered(server: PracticeSplunk, writer: Writer) -> None:
    server.cut_answer()
    assert writer.write(batch(2)) is None
    assert writer.write(batch(1)) is None
    assert server.count == 3


def test_2xx_with_a_code_of_refusal_is_not_delivered(server: PracticeSplunk, writer: Writer) -> None:
    server.answer(200, b'{"text":"Server is busy","code":9}')
    all_later(writer.write(batch(2)), 2)
