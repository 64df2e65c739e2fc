"""Splunk: requests as HEC wants them, and its token."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest

from pipelines.practice.splunk import PracticeSplunk
from tests.transforms.write.encodings import CREATED_AT, batch, event
from tests.transforms.write.rotating_secret import RotatingSecret
from tests.transforms.write.splunk.server import all_later
from transforms.event import Batch, Event
from transforms.secret import SecretError
from transforms.write.contract import Writer
from transforms.write.splunk.destination import TIME_SIZE, Splunk

# The request


def test_request_is_what_hec_expects(server: PracticeSplunk, writer: Writer) -> None:
    assert writer.write(batch(3)) is None
    (request,) = server.requests
    assert request.path == "/services/collector/event"
    assert request.headers["authorization"] == f"Splunk {server.token}"
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["content-length"] == str(len(request.body))
    assert request.headers["host"] == server.url.removeprefix("http://")
    assert request.headers["user-agent"].startswith("grantex-beam/")
    assert server.ids == [one.id for one in batch(3).events]
    assert [bytes(one.event) for one in server.events] == [one.raw for one in batch(3).events]
    first = server.events[0]
    assert (first.time, first.index, first.source, first.sourcetype) == (
        1772366400.123,
        "main",
        "grantex",
        "_json",
    )
    assert not first.host


def test_metadata_is_escaped_once_and_host_is_optional(server: PracticeSplunk, settings: Splunk) -> None:
    odd = replace(settings, source='a"b\\c\n', sourcetype="é", host="h")
    assert odd.open().write(batch(1)) is None
    first = server.events[0]
    assert (first.source, first.sourcetype, first.host) == ('a"b\\c\n', "é", "h")


def test_raw_is_spliced_and_time_keeps_its_digits(settings: Splunk) -> None:
    raw = b'{ "id":"a",\n"n":1.0000000000000000001}'
    body = settings.encode([Event("a", "", "2026-03-01T12:00:00.123456Z", raw), event(1, "never")])
    assert body.startswith(b'{"event":' + raw + b',"time":1772366400.123456,"source":"grantex",')
    assert b'"time"' not in body.removeprefix(b'{"event":' + raw).split(b"\n", 1)[1]


def test_raw_with_line_ends_and_odd_ids_arrives(server: PracticeSplunk, writer: Writer) -> None:
    ids = ['quo"te', "back\\slash", "new\nline", "ümläut", "", "\u2028"]
    raws = [json.dumps({"id": one}, indent=1).encode() for one in ids]
    assert writer.write(Batch([Event(one, "", "", raw) for one, raw in zip(ids, raws, strict=True)])) is None
    assert server.ids == ids


@pytest.mark.parametrize("host", [None, "h"])
def test_a_body_is_no_larger_than_its_sizes_and_close_to_them(settings: Splunk, host: str | None) -> None:
    odd = replace(settings, host=host, source='"')
    times = [CREATED_AT, "", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00.1234567+01:00", "x", "1960-01-01T0"]
    events = [event(number, time) for number, time in enumerate(times)] + [event(9, event_id='"\n\\é')]
    for one in events:
        assert 0 <= odd.size(one) - len(odd.encode([one])) <= TIME_SIZE
    assert len(odd.encode(events)) == sum(len(odd.encode([one])) for one in events)


@pytest.mark.parametrize(
    "ids", [["evt_1", "evt_2"], ["evt_1", "evt_22"], ["evt_1", "evt\\n", "a"], ["é", "e"], []]
)
def test_the_sizes_of_many_are_those_of_each(settings: Splunk, ids: list[str]) -> None:
    some = [Event(one, "", "", b"1" * number) for number, one in enumerate(ids)]
    assert list(settings.sizes(some)) == [settings.size(one) for one in some]


def test_without_compression_the_body_is_plain(server: PracticeSplunk, settings: Splunk) -> None:
    plain = replace(settings, compression="none")
    assert plain.open().write(batch(3)) is None
    assert "content-encoding" not in server.requests[0].headers
    assert server.requests[0].body == plain.encode(batch(3).events)


@pytest.mark.parametrize("pasted", ["", "/", *(f"/services/collector{rest}" for rest in ("", "/", "/event"))])
def test_pasted_urls_are_understood(server: PracticeSplunk, settings: Splunk, pasted: str) -> None:
    assert replace(settings, url=server.url + pasted).open().write(batch(1)) is None
    assert server.requests[0].path == "/services/collector/event"


def test_one_connection_is_kept_alive(server: PracticeSplunk, writer: Writer) -> None:
    for _ in range(3):
        assert writer.write(batch(1)) is None
    assert server.connection_count == 1


def test_settings_pickle_without_the_token(settings: Splunk) -> None:
    pickled = pickle.dumps(settings)
    assert b"practice-hec-token" not in pickled
    assert "practice-hec-token" not in repr(settings)
    assert pickle.loads(pickled).encode(batch(2).events) == settings.encode(batch(2).events)


# Credentials


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_codes_1_to_4_block(server: PracticeSplunk, writer: Writer, code: int) -> None:
    server.answer_code(code)
    outcome = all_later(writer.write(batch(3)), 3)
    assert outcome.blocked
    assert "token" in outcome.cause
    assert server.token not in outcome.cause
    assert server.url in outcome.cause


def test_a_replaced_token_is_read_again_and_used_at_once(server: PracticeSplunk, settings: Splunk) -> None:
    secret = RotatingSecret([server.token, "new-token"])
    writer = replace(settings, token=secret).open()
    assert writer.write(batch(1)) is None
    server.rotate("new-token")
    assert writer.write(batch(2)) is None
    assert (secret.reads, server.count) == (2, 3)


def test_an_unchanged_token_is_not_tried_twice(server: PracticeSplunk, settings: Splunk) -> None:
    secret = RotatingSecret(["wrong-token"])
    outcome = all_later(replace(settings, token=secret).open().write(batch(2)), 2)
    assert outcome.blocked
    assert (secret.reads, server.request_count) == (2, 1)


@pytest.mark.parametrize("bad", ["", "with\nline-end", "ümläut-token"])
def test_a_token_no_header_can_carry_blocks_and_is_not_shown(settings: Splunk, bad: str) -> None:
    outcome = all_later(replace(settings, token=RotatingSecret([bad])).open().write(batch(1)), 1)
    assert outcome.blocked
    assert not bad or bad not in outcome.cause


def test_a_secret_that_cannot_be_read_blocks(settings: Splunk) -> None:
    class Unreadable:
        def read(self) -> str:
            raise SecretError("env:TOKEN is not set")

    outcome = all_later(replace(settings, token=Unreadable()).open().write(batch(1)), 1)
    assert outcome.blocked
    assert "env:TOKEN is not set" in outcome.cause
