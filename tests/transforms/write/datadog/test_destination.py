"""Datadog: requests as its intake wants them, its limits held by construction, its key and its replies."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pipelines.practice.datadog import PracticeDatadog
from tests.transforms.write.encodings import CREATED_AT, batch, event
from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.rotating_secret import RotatingSecret
from tests.transforms.write.splunk.server import all_later
from transforms.batch import BatchPolicy, OpenBatches
from transforms.event import Batch, Event
from transforms.secret import LiteralSecret, SecretError
from transforms.write.contract import Outcome
from transforms.write.datadog.destination import Datadog, DatadogWriter
from transforms.write.datadog.reply import outcome_of

NOW = 1_772_366_400.0 + 60  # a minute after CREATED_AT
HOUR = 3600


@pytest.fixture
def server() -> Iterator[PracticeDatadog]:
    with PracticeDatadog(now=lambda: NOW) as running:
        yield running


@pytest.fixture
def settings(server: PracticeDatadog) -> Datadog:
    return Datadog(LiteralSecret(server.key), endpoint=server.url)


@pytest.fixture
def writer(settings: Datadog) -> Iterator[DatadogWriter]:
    opened = opened_at(settings, NOW)
    yield opened
    opened.close()


def opened_at(settings: Datadog, now: float) -> DatadogWriter:
    return DatadogWriter(settings, ManualClock(now=now))


def logs(settings: Datadog, *events: Event) -> list[dict[str, Any]]:
    found = json.loads(settings.encode(events, NOW))
    assert isinstance(found, list)
    return found


# The request


def test_request_is_what_the_intake_expects(server: PracticeDatadog, writer: DatadogWriter) -> None:
    assert writer.write(batch(3)) is None
    (request,) = server.requests
    assert request.path == "/api/v2/logs"
    assert request.headers["dd-api-key"] == server.key
    assert request.headers["dd-evp-origin"] == "grantex-beam"
    assert request.headers["dd-evp-origin-version"]
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["content-type"] == "application/json"
    assert server.ids == [one.id for one in batch(3).events]
    assert [one.message.encode() for one in server.events] == [one.raw for one in batch(3).events]


def test_shape_is_the_peers_with_timestamp_and_id(settings: Datadog) -> None:
    (log,) = logs(settings, event(7))
    assert log == {
        "ddsource": "grantex",
        "ddtags": "type:grant.created",
        "hostname": "grantex-auth-service",
        "service": "grantex",
        "id": event(7).id,
        "timestamp": 1_772_366_400_123,
        "message": event(7).raw.decode(),
    }


def test_service_and_tags_are_the_users(settings: Datadog) -> None:
    (log,) = logs(replace(settings, service='pay"ments', tags=("env:prod", "team:x")), event(1))
    assert log["service"] == 'pay"ments'
    assert log["ddtags"] == "type:grant.created,env:prod,team:x"


def test_source_and_host_are_the_users_and_count_in_its_size(settings: Datadog) -> None:
    own = replace(settings, source='iam "eu"', host="edge-1" * 50)
    (log,) = logs(own, event(1))
    assert (log["ddsource"], log["hostname"]) == ('iam "eu"', "edge-1" * 50)
    assert log == {**logs(settings, event(1))[0], "ddsource": log["ddsource"], "hostname": log["hostname"]}
    longer = len(own.encode([event(1)], NOW)) - len(settings.encode([event(1)], NOW))
    assert own.size(event(1)) - settings.size(event(1)) == longer > 250


@pytest.mark.parametrize(
    ("event_type", "tag"),
    [
        ("grant.created", "type:grant.created"),
        ("a,env:prod", "type:a_env:prod"),
        ('a"\\\n b', "type:a____b"),
        ("x" * 300, "type:" + "x" * 195),
        ("", "type:none"),
    ],
)
def test_a_type_is_one_tag_whatever_its_text(settings: Datadog, event_type: str, tag: str) -> None:
    (log,) = logs(settings, Event("a", event_type, CREATED_AT, b"{}"))
    assert log["ddtags"] == tag


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"quo\\"te \\\\ \\u0000 \\n"}',
        b'{\n\t"a": 1\r\n}',
        '{"a":"ümläut 🎉 \u2028"}'.encode(),
        b"",
    ],
)
def test_any_json_arrives_as_it_is(server: PracticeDatadog, writer: DatadogWriter, raw: bytes) -> None:
    assert writer.write(Batch([Event('i"d\\', "t", CREATED_AT, raw)])) is None
    assert server.events[0].message.encode() == raw
    assert server.ids == ['i"d\\']


def test_what_is_not_utf_8_is_replaced(settings: Datadog) -> None:
    (log,) = logs(settings, Event("a", "t", CREATED_AT, b'{"a":"\xff"}'))
    assert log["message"] == '{"a":"�"}'


@pytest.mark.parametrize("created_at", ["", "never", "2026-03-01", "1960-01-01T00:00:00Z"])
def test_without_a_valid_created_at_there_is_no_timestamp(settings: Datadog, created_at: str) -> None:
    (log,) = logs(settings, event(1, created_at))
    assert "timestamp" not in log
    assert log["ddtags"] == "type:grant.created"


@pytest.mark.parametrize(
    ("hours_later", "tag", "stamped"),
    [
        (0, "", True),
        (17.9, "", True),
        (18.1, ",grantex_late:true", False),
        (24 * 400, ",grantex_late:true", False),
        (-1.9, "", True),
        (-2.1, ",grantex_early:true", False),
    ],
)
def test_what_datadog_would_drop_is_tagged_and_stamped_on_arrival(
    server: PracticeDatadog, settings: Datadog, hours_later: float, tag: str, stamped: bool
) -> None:
    server.now = lambda: NOW + hours_later * HOUR
    assert opened_at(settings, NOW + hours_later * HOUR).write(batch(2)) is None
    assert server.ids == [one.id for one in batch(2).events]
    assert server.dropped == 0
    assert server.events[0].ddtags == f"type:grant.created{tag}"
    assert (server.events[0].timestamp is not None) == stamped


def old(*numbers: int) -> list[Event]:
    return [event(number, "2026-02-28T12:00:00Z") for number in numbers]


def test_what_is_too_old_may_be_rejected_instead(server: PracticeDatadog, settings: Datadog) -> None:
    writer = opened_at(replace(settings, too_old="dead_letter"), NOW)
    mixed = Batch([*old(0), event(1), *old(2, 3), event(4)])
    outcome = writer.write(mixed)
    assert outcome is not None
    assert sorted(outcome.rejected) == [0, 2, 3]
    assert outcome.rejected[0].startswith("too_old: ")
    assert not list(outcome.later)
    assert server.ids == [event(1).id, event(4).id]
    assert writer.write(Batch([event(5)])) is None


def test_a_batch_of_nothing_but_old_events_sends_nothing(server: PracticeDatadog, settings: Datadog) -> None:
    writer = opened_at(replace(settings, too_old="dead_letter"), NOW)
    outcome = writer.write(Batch(old(0, 1)))
    assert outcome is not None
    assert sorted(outcome.rejected) == [0, 1]
    assert server.request_count == 0


def test_what_is_left_beside_the_old_is_judged_by_its_own_indexes(
    server: PracticeDatadog, settings: Datadog
) -> None:
    writer = opened_at(replace(settings, too_old="dead_letter"), NOW)
    server.answer(503)
    outcome = writer.write(Batch([*old(0), event(1), *old(2), event(3)]))
    assert outcome is not None
    assert sorted(outcome.rejected) == [0, 2]
    assert list(outcome.later) == [1, 3]
    server.answer(400, b'{"errors":[{"title":"Bad Request"}]}')
    outcome = writer.write(Batch([*old(0), event(1)]))
    assert outcome is not None
    assert sorted(outcome.rejected) == [0, 1]


def test_the_guard_looks_at_the_clock_of_each_attempt(server: PracticeDatadog, settings: Datadog) -> None:
    clock = ManualClock(now=NOW)
    writer = DatadogWriter(replace(settings, too_old="dead_letter"), clock)
    server.answer(503)
    all_later(writer.write(batch(2)), 2)
    clock.advance(18 * HOUR)
    outcome = writer.write(batch(2))
    assert outcome is not None
    assert sorted(outcome.rejected) == [0, 1]


def test_without_compression_the_body_is_plain(server: PracticeDatadog, settings: Datadog) -> None:
    plain = replace(settings, compression="none")
    assert opened_at(plain, NOW).write(batch(3)) is None
    assert "content-encoding" not in server.requests[0].headers
    assert server.requests[0].body == plain.encode(batch(3).events, NOW)


@pytest.mark.parametrize("pasted", ["", "/", "/api/v2/logs"])
def test_pasted_endpoints_are_understood(server: PracticeDatadog, settings: Datadog, pasted: str) -> None:
    assert opened_at(replace(settings, endpoint=server.url + pasted), NOW).write(batch(1)) is None
    assert server.requests[0].path == "/api/v2/logs"


def test_settings_pickle_without_the_key(settings: Datadog) -> None:
    pickled = pickle.dumps(settings)
    assert b"practice-datadog-key" not in pickled
    assert "practice-datadog-key" not in repr(settings)
    again = pickle.loads(pickled)
    assert again.encode(batch(2).events, NOW) == settings.encode(batch(2).events, NOW)


# Limits


@pytest.mark.parametrize("policy", [BatchPolicy(1001, 1000, 1), BatchPolicy(1, 5_000_001, 1)])
def test_a_policy_beyond_the_limits_is_refused(settings: Datadog, policy: BatchPolicy) -> None:
    with pytest.raises(ValueError, match="at most"):
        replace(settings, policy=policy)


@pytest.mark.parametrize("filler", ["a", '"', "\\", "é", "🎉", "\n"])
@pytest.mark.parametrize("length", [0, 1, 600, 690, 700, 800, 100_000, 499_000, 900_000, 3_000_000])
def test_a_size_is_never_too_small_and_no_log_too_long(settings: Datadog, filler: str, length: int) -> None:
    settings = replace(settings, tags=("env:prod",), service="é")
    raw = msgspec.json.encode({"x": filler * (length // len(filler.encode()))})
    for hours in (0, 20, -20):
        one = Event('i"d', "grant.created", CREATED_AT, raw)
        body = settings.encode([one], NOW + hours * HOUR)
        assert len(body) - 2 <= settings.size(one) <= 1_000_000
        (log,) = json.loads(body)
        assert log["message"] == raw.decode() or "grantex_cut:true" in log["ddtags"]


@pytest.mark.parametrize("odd", [b"\xff", b"\x00", b"\x1f", b"\x7f", b"\xed\xa0\x80", b"\xf0\x9f"])
@pytest.mark.parametrize("length", [1, 500, 699, 700, 701, 100_000, 400_000])
def test_a_size_bounds_even_what_is_no_json(settings: Datadog, odd: bytes, length: int) -> None:
    one = Event("a", "t", CREATED_AT, (odd * length)[:length])
    body = settings.encode([one], NOW)
    assert len(body) - 2 <= settings.size(one) <= 1_000_000
    json.loads(body)


def test_a_full_batch_by_events_and_one_by_bytes_fit_exactly(
    server: PracticeDatadog, settings: Datadog
) -> None:
    most = replace(settings, policy=BatchPolicy(1000, 5_000_000, 1))
    for raw in (b"{}", b'{"x":"' + b"a" * 9_000 + b'"}', b'{"x":"' + b"\\" * 450_000 + b'"}'):
        open_batches = OpenBatches(most.policy, most.sizes)
        events = [
            Event(f"evt_{number}", "t", CREATED_AT, raw) for number in range(1200 if len(raw) < 9 else 600)
        ]
        batches = [
            *open_batches.add_chunk(events[: 12 if len(raw) > 99_999 else None], 0, 0.0),
            *open_batches.flush(),
        ]
        assert len(batches) > 1
        writer = opened_at(most, NOW)
        for one in batches:
            assert writer.write(one) is None  # the intake answers 413 above 1000 logs or 5 MB
    assert server.repeats > 0  # the same ids thrice, none of them lost
    assert server.cut == 0


def test_sizes_of_a_batch_bound_its_body(settings: Datadog) -> None:
    events = [
        event(number, time) for number, time in enumerate(["", CREATED_AT, "x", "2020-01-01T00:00:00Z"])
    ]
    assert len(settings.encode(events, NOW)) <= sum(settings.size(one) for one in events)


def test_a_long_event_is_cut_with_a_mark_and_counted(
    server: PracticeDatadog, writer: DatadogWriter, caplog: pytest.LogCaptureFixture
) -> None:
    raw = b'{"x":"' + "é".encode() * 700_000 + b'"}'
    long = Event("evt_long", "t", CREATED_AT, raw)
    with caplog.at_level(logging.WARNING):
        assert writer.write(Batch([event(1), long, event(2)])) is None
    assert server.cut == 0  # by Datadog: nothing was left for it to cut
    assert server.ids == [event(1).id, "evt_long", event(2).id]
    taken = server.events[1]
    assert taken.ddtags == "type:t,grantex_cut:true"
    assert taken.message.startswith('{"x":"ééé')
    assert taken.message.endswith("… [cut by grantex-beam: the event has 1400008 bytes]")
    assert len(taken.message.encode()) > 990_000
    assert writer.cut == 1
    assert "evt_long" in caplog.text


def test_an_event_just_below_the_limit_is_whole(server: PracticeDatadog, writer: DatadogWriter) -> None:
    raw = b'{"x":"' + b"a" * 999_000 + b'"}'
    assert writer.write(Batch([Event("a", "t", CREATED_AT, raw)])) is None
    assert server.events[0].message.encode() == raw
    assert (server.cut, writer.cut) == (0, 0)


# Replies


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 522, 524, 598, 599])
def test_busy_is_later(server: PracticeDatadog, writer: DatadogWriter, status: int) -> None:
    server.answer(status, headers={"Retry-After": "7"})
    outcome = all_later(writer.write(batch(3)), 3)
    assert not outcome.blocked
    assert outcome.unknown == (status not in (408, 429, 500, 503))  # a gateway's: Datadog may have taken it
    assert outcome.retry_after == 7.0
    assert str(status) in outcome.cause
    assert writer.write(batch(3)) is None


def test_413_is_sent_again_in_halves(server: PracticeDatadog, writer: DatadogWriter) -> None:
    server.answer(413)
    assert all_later(writer.write(batch(3)), 3).too_large


def test_400_halves_until_the_bad_event_stands_alone(server: PracticeDatadog, writer: DatadogWriter) -> None:
    server.answer(400, b'{"errors":[{"status":"400","title":"Bad Request","detail":"odd"}]}', times=2)
    outcome = all_later(writer.write(batch(4)), 4)
    assert outcome.too_large
    assert not outcome.unknown
    alone = writer.write(batch(1))
    assert alone == Outcome(rejected={0: "datadog_400: Bad Request: odd"}, cause=alone.cause if alone else "")


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"message":"Bad Request"}', b"[]"])
def test_a_400_of_a_proxy_blocks_and_rejects_nothing(
    server: PracticeDatadog, writer: DatadogWriter, body: bytes
) -> None:
    server.answer(400, body)
    outcome = writer.write(batch(1))
    assert outcome is not None
    assert not outcome.rejected
    assert list(outcome.later) == [0]
    assert outcome.blocked


def test_a_400_in_datadog_s_older_words_is_datadog_s(server: PracticeDatadog, writer: DatadogWriter) -> None:
    server.answer(400, b'{"errors":["odd"]}')
    outcome = writer.write(batch(1))
    assert outcome is not None
    assert outcome.rejected == {0: "datadog_400: odd"}


@pytest.mark.parametrize("status", [302, 404, 415])
def test_what_no_retry_can_mend_blocks_and_rejects_nothing(
    server: PracticeDatadog, writer: DatadogWriter, status: int
) -> None:
    server.answer(status)
    assert all_later(writer.write(batch(2)), 2).blocked


def test_a_2xx_whose_body_is_cut_is_delivered(server: PracticeDatadog, writer: DatadogWriter) -> None:
    server.cut_answer()
    assert writer.write(batch(1)) is None
    assert server.count == 1


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b"{ }\n", b'{"errors":[]}', b'{"status":"ok"}', b"{"])
@pytest.mark.parametrize("status", [200, 202])
def test_what_datadog_says_delivers(
    server: PracticeDatadog, writer: DatadogWriter, status: int, body: bytes
) -> None:
    server.answer(status, body)
    assert writer.write(batch(1)) is None


LOGIN = b'<!doctype html><title>Sign in</title><form action="/login">Sign in</form>'


@pytest.mark.parametrize(
    "body",
    [
        LOGIN,
        b"\xef\xbb\xbf" + LOGIN,
        b"<?xml version='1.0'?><html/>",
        b'{"errors":["odd"]}',
        b'{"errors":[{"title":"odd"}]}',
        b'{"errors":{"a":1}}',
        b'{"error":"odd"}',
        b'{"success":false}',
        b'{"status":"error"}',
        b'{"message":"please sign in"}',
        b'{"x":' + b"[" * 100_000,
        b'{"errors":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"status":' + b"9" * 10_000 + b"}",
        b"[]",
        b"null",
        b"1e999",
        b"garbage",
        b"\xff\xfe<\x00h\x00",
        b"\x00",
    ],
)
@pytest.mark.parametrize("status", [200, 202, 206])
def test_what_datadog_does_not_say_delivers_nothing_and_names_what_stands_between(
    server: PracticeDatadog, writer: DatadogWriter, status: int, body: bytes
) -> None:
    server.answer(status, body)
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.unknown
    assert outcome.blocked
    assert "proxy, firewall or sign-in page" in outcome.cause
    assert writer.write(batch(2)) is None


def test_a_page_that_refuses_is_not_datadog_refusing_the_key(
    server: PracticeDatadog, writer: DatadogWriter
) -> None:
    server.answer(403, b"<html><h1>Blocked by web filter</h1></html> ", {"content-type": "text/html"})
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "refused the API key" not in outcome.cause
    assert 'a page "Blocked by web filter"' in outcome.cause


def test_an_outage_is_later_and_then_over(server: PracticeDatadog, writer: DatadogWriter) -> None:
    server.down()
    assert not all_later(writer.write(batch(2)), 2).unknown
    server.up()
    assert writer.write(batch(2)) is None
    server.reset("after")
    assert all_later(writer.write(batch(2)), 2).unknown


# The key


def test_a_wrong_key_blocks_and_is_not_shown(settings: Datadog) -> None:
    outcome = all_later(replace(settings, api_key=LiteralSecret("wrong-key")).open().write(batch(2)), 2)
    assert outcome.blocked
    assert "--datadog_api_key" in outcome.cause
    assert "wrong-key" not in outcome.cause


def test_a_key_of_another_site_names_the_others() -> None:
    said = outcome_of("Datadog", "datadoghq.eu", 403, {}, b'{"errors":["Forbidden"]}', 2, NOW)
    assert said is not None
    assert said.blocked
    assert "--datadog_site" in said.cause
    assert "us5.datadoghq.com" in said.cause
    assert "datadoghq.eu," not in said.cause


def test_a_replaced_key_is_read_again_and_used_at_once(server: PracticeDatadog, settings: Datadog) -> None:
    secret = RotatingSecret([server.key, "new-key"])
    writer = opened_at(replace(settings, api_key=secret), NOW)
    assert writer.write(batch(1)) is None
    server.rotate("new-key")
    assert writer.write(batch(2)) is None
    assert (secret.reads, server.count) == (2, 3)


def test_an_unchanged_key_is_not_tried_twice(server: PracticeDatadog, settings: Datadog) -> None:
    secret = RotatingSecret(["wrong-key"])
    assert all_later(replace(settings, api_key=secret).open().write(batch(2)), 2).blocked
    assert (secret.reads, server.request_count) == (2, 1)


def test_a_secret_that_cannot_be_read_blocks(settings: Datadog) -> None:
    class Unreadable:
        def read(self) -> str:
            raise SecretError("env:KEY is not set")

    outcome = all_later(replace(settings, api_key=Unreadable()).open().write(batch(1)), 1)
    assert outcome.blocked
    assert "env:KEY is not set" in outcome.cause


# Sizes without a bound


def test_an_id_for_which_no_log_has_room_is_a_dead_letter_and_its_neighbours_arrive(
    server: PracticeDatadog, writer: DatadogWriter
) -> None:
    long = "evt_" + "X" * 1_000_100
    raw = b'{"id":"' + long.encode() + b'","type":"t","createdAt":"","data":{}}'
    outcome = writer.write(Batch([event(0), Event(long, "t", "", raw), event(1)]))
    assert outcome is not None
    assert list(outcome.rejected) == [1]
    assert outcome.rejected[1].startswith("too_large: ")
    assert list(outcome.unsent) == [1]
    assert not outcome.later
    assert server.count == 2


@pytest.mark.parametrize("length", [1, 99_999, 100_000])
def test_the_longest_id_and_whatever_json_makes_of_it_fit_into_a_log(
    server: PracticeDatadog, writer: DatadogWriter, length: int
) -> None:
    for letter in ("x", "\x01", "\U0001f600"):
        one = Event(letter * length, "t", "", b'"' + b"\xff" * 2_000_000 + b'"')
        assert writer.write(Batch([one])) is None
    assert server.count == 3


def test_a_huge_type_does_not_live_on_in_a_cache() -> None:
    from transforms.write.datadog.log import short_type_tag, type_tag

    before = short_type_tag.cache_info().currsize
    tags = {type_tag("x" * 195 + str(number) * 100_000) for number in range(200)}
    assert len(tags) == 1
    assert short_type_tag.cache_info().currsize <= before + 1
