"""Splunk with indexer acknowledgement: delivered means acknowledged, whatever is lost on the way."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import pytest

from pipelines.practice.splunk import PracticeSplunk, Stickiness
from tests.transforms.write.encodings import event
from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.rotating_secret import RotatingSecret
from tests.transforms.write.splunk.server import all_later
from transforms.event import Batch
from transforms.secret import LiteralSecret
from transforms.write.contract import Outcome, Writer
from transforms.write.splunk.destination import Splunk

ACK = "/ack"
EVENT = "/event"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Iterator[PracticeSplunk]:
    with PracticeSplunk(ack_seconds=2, monotonic=clock.monotonic) as running:
        yield running


@pytest.fixture
def settings(server: PracticeSplunk) -> Splunk:
    return Splunk(server.url, LiteralSecret(server.token), acknowledge=True)


@pytest.fixture
def writer(settings: Splunk, clock: ManualClock) -> Iterator[Writer]:
    opened = settings.open(clock)
    yield opened
    opened.close()


class Attempt:
    """An attempt in a thread of its own; time passes only while somebody waits for its end, and every attempt
    that is under way waits for time."""

    under_way: ClassVar[WeakKeyDictionary[ManualClock, list[threading.Thread]]] = WeakKeyDictionary()

    def __init__(self, writer: Writer, batch: Batch, clock: ManualClock) -> None:
        self._clock = clock
        self._outcome: list[Outcome | None] = []
        self._thread = threading.Thread(target=lambda: self._outcome.append(writer.write(batch)))
        self.under_way.setdefault(clock, []).append(self._thread)
        self._thread.start()

    def ended(self) -> bool:
        self._thread.join(0.003)
        return not self._thread.is_alive()

    def outcome(self) -> Outcome | None:
        """Let time pass until it has ended."""
        give_up = time.monotonic() + 20
        while not self.ended():
            self._clock.advance_for(self.under_way[self._clock], 0.5)
            assert time.monotonic() < give_up
        return self._outcome[0]


def batch(count: int, start: int = 0) -> Batch:
    """A batch of the events `start` to `start + count - 1`."""
    return Batch([event(start + number) for number in range(count)])


def written(writer: Writer, one: Batch, clock: ManualClock) -> Outcome | None:
    return Attempt(writer, one, clock).outcome()


def events_in(server: PracticeSplunk) -> list[bytes]:
    """The bodies of requests that carried events."""
    return [request.body for request in server.requests if request.path.endswith(EVENT)]


# Delivered


def test_delivered_is_acknowledged(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    began = clock.monotonic()
    assert written(writer, batch(3), clock) is None
    assert clock.monotonic() - began >= 2
    assert server.ids == [one.id for one in batch(3).events]
    posted = [request for request in server.requests if request.path.endswith(EVENT)]
    asked = [request for request in server.requests if request.path.endswith(ACK)]
    assert len({request.headers["x-splunk-request-channel"] for request in [*posted, *asked]}) == 1
    assert asked[-1].body == b'{"acks":[0]}'
    assert "content-encoding" not in asked[-1].headers
    assert server.connection_count == 1  # a balancer without cookies keeps to a connection


def test_an_attempt_waits_no_longer_than_it_may(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    server.ack_seconds = math.inf
    began = clock.monotonic()
    outcome = all_later(written(writer, batch(3), clock), 3)
    assert clock.monotonic() - began == pytest.approx(30, abs=1)
    assert not outcome.unknown  # it is not sent again yet
    assert "3 events taken and not acknowledged for 30 s" in outcome.cause
    assert "sent again after 300 s" in outcome.cause
    assert "indexers" in outcome.cause


def test_what_comes_again_is_asked_for_and_not_sent(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    server.ack_seconds = 40
    all_later(written(writer, batch(3), clock), 3)
    assert written(writer, batch(3), clock) is None
    assert len(events_in(server)) == 1
    assert server.repeats == 0


def test_an_acknowledgement_seen_by_anothers_poll_is_remembered(
    server: PracticeSplunk, settings: Splunk, clock: ManualClock
) -> None:
    writers = [settings.open(clock) for _ in range(5)]  # the fifth shares the channel of the first
    server.ack_seconds = 40
    all_later(written(writers[0], batch(3), clock), 3)
    server.ack_seconds = 15
    assert written(writers[4], batch(2, start=10), clock) is None  # its polls see the first one's id true
    asked = len(server.requests)
    assert written(writers[0], batch(3), clock) is None
    assert len(server.requests) == asked  # nobody had to ask: Splunk would say false from now on


def test_what_is_never_acknowledged_is_sent_again_in_the_end_and_counted(
    server: PracticeSplunk, settings: Splunk, clock: ManualClock
) -> None:
    writer = replace(settings, acknowledge_timeout=70.0).open(clock)
    server.ack_seconds = math.inf
    outcomes = [all_later(written(writer, batch(3), clock), 3) for _ in range(3)]
    assert [one.unknown for one in outcomes] == [False, False, True]
    assert "may then be there twice" in outcomes[-1].cause
    assert len(events_in(server)) == 1
    server.ack_seconds = 0
    assert written(writer, batch(3), clock) is None
    assert len(events_in(server)) == 2
    assert server.repeats == 3


def test_many_batches_wait_at_once(server: PracticeSplunk, settings: Splunk, clock: ManualClock) -> None:
    writers = [settings.open(clock) for _ in range(settings.concurrency)]
    assert len(writers) == 64
    attempts = [Attempt(one, batch(2, start=10 * number), clock) for number, one in enumerate(writers)]
    assert server.wait_for(128)
    began = clock.monotonic()
    assert [one.outcome() for one in attempts] == [None] * 64
    assert clock.monotonic() - began < 5
    assert server.connection_count == 4
    assert server.repeats == 0


# Answers that are lost


def test_a_lost_answer_to_a_poll_leaves_it_unknown(
    server: PracticeSplunk, settings: Splunk, clock: ManualClock
) -> None:
    server.ack_seconds = 0
    writer = replace(settings, acknowledge_timeout=10.0).open(clock)
    assert written(writer, batch(1, start=50), clock) is None
    server.reset("after", path=ACK)  # the indexer has said true, and says false ever after
    outcome = all_later(written(writer, batch(3), clock), 3)
    assert outcome.unknown
    assert written(writer, batch(3), clock) is None
    assert server.repeats == 3


def test_a_poll_that_fails_is_asked_again(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.reset("before", path=ACK)
    server.answer(503, path=ACK)
    server.answer(200, b"<html>", path=ACK)
    server.answer(200, b'{"acks":{}}', path=ACK)
    assert written(writer, batch(3), clock) is None
    assert server.repeats == 0


def test_what_polls_fail_with_is_said(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.answer_code(19, times=1000, path=ACK)
    cause = all_later(written(writer, batch(3), clock), 3).cause
    assert "the last poll was answered 503: HEC is unhealthy, ack service unavailable" in cause


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_lost_answer_to_events_is_unknown(
    server: PracticeSplunk, writer: Writer, clock: ManualClock, when: Any
) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.reset(when, path=EVENT)
    assert all_later(written(writer, batch(3), clock), 3).unknown
    assert written(writer, batch(3), clock) is None


def test_a_gateways_time_out_is_unknown(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.answer(504, b"<html>", path=EVENT)
    assert all_later(written(writer, batch(3), clock), 3).unknown
    assert written(writer, batch(3), clock) is None


def test_a_page_under_a_2xx_is_not_delivered(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    server.answer(200, b"<html>", path=EVENT)
    outcome = all_later(written(writer, batch(3), clock), 3)
    assert outcome.unknown
    assert "sign-in page" in outcome.cause
    assert written(writer, batch(3), clock) is None


@pytest.mark.parametrize("body", [b"", b"{", b'{"text":"Success","code":0}'])
def test_a_2xx_without_an_ack_id_is_not_delivered(
    server: PracticeSplunk, writer: Writer, clock: ManualClock, body: bytes
) -> None:
    server.answer(200, body, path=EVENT)
    outcome = all_later(written(writer, batch(3), clock), 3)
    assert outcome.unknown
    assert "without an ack id" in outcome.cause
    assert written(writer, batch(3), clock) is None


def test_a_cut_answer_is_not_delivered(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.cut_answer(path=EVENT)
    assert all_later(written(writer, batch(3), clock), 3).unknown


# Indexers that crash and change


def test_a_crash_before_the_acknowledgement_loses_nothing(
    server: PracticeSplunk, settings: Splunk, clock: ManualClock
) -> None:
    writers = [settings.open(clock) for _ in range(5)]
    assert written(writers[0], batch(1, start=50), clock) is None  # so that ids have begun to count
    server.ack_seconds = 20
    first = Attempt(writers[0], batch(3), clock)
    assert server.wait_for(4)
    server.crash()
    assert server.count == 1
    second = written(writers[4], batch(2, start=10), clock)  # counts from 0 again, which gives it away
    assert all_later(second, 2).unknown
    assert "sticky sessions" in all_later(second, 2).cause
    assert all_later(first.outcome(), 3).unknown
    assert written(writers[0], batch(3), clock) is None
    assert written(writers[4], batch(2, start=10), clock) is None
    wanted = {one.id for each in (batch(1, start=50), batch(3), batch(2, start=10)) for one in each.events}
    assert set(server.ids) == wanted


@pytest.mark.parametrize("stickiness", ["steady", "renewed"])
def test_sticky_sessions_keep_to_an_indexer(clock: ManualClock, stickiness: Stickiness) -> None:
    with PracticeSplunk(
        ack_seconds=2, indexers=2, stickiness=stickiness, monotonic=clock.monotonic
    ) as server:
        writer = Splunk(server.url, LiteralSecret(server.token), acknowledge=True).open(clock)
        for number in range(4):
            assert written(writer, batch(2, start=10 * number), clock) is None
        assert server.repeats == 0
        assert len(events_in(server)) == 4


def test_a_new_cookie_begins_a_new_channel_and_sends_again_what_was_not_acknowledged(
    clock: ManualClock,
) -> None:
    with PracticeSplunk(ack_seconds=5, indexers=2, monotonic=clock.monotonic) as server:
        writer = Splunk(server.url, LiteralSecret(server.token), acknowledge=True).open(clock)
        attempt = Attempt(writer, batch(3), clock)
        assert server.wait_for(3)
        server.balancer.forget()
        outcome = all_later(attempt.outcome(), 3)
        assert outcome.unknown
        assert clock.monotonic() < 1005  # at the next poll, long before any time-out
        assert written(writer, batch(3), clock) is None
        channels = {request.headers["x-splunk-request-channel"] for request in server.requests}
        assert len(channels) == 2


def test_a_change_of_indexers_behind_renewed_cookies_shows_in_the_ids(clock: ManualClock) -> None:
    with PracticeSplunk(ack_seconds=5, indexers=2, stickiness="renewed", monotonic=clock.monotonic) as server:
        writer = Splunk(server.url, LiteralSecret(server.token), acknowledge=True).open(clock)
        assert written(writer, batch(1, start=50), clock) is None
        server.balancer.forget()
        assert all_later(written(writer, batch(3), clock), 3).unknown
        assert written(writer, batch(3), clock) is None


def test_without_sticky_sessions_nothing_counts_as_acknowledged_that_is_not(clock: ManualClock) -> None:
    with PracticeSplunk(ack_seconds=1, indexers=2, stickiness="none", monotonic=clock.monotonic) as server:
        settings = Splunk(server.url, LiteralSecret(server.token), acknowledge=True)
        writers = [settings.open(clock) for _ in range(5)]
        for number in range(10):
            attempts = [
                Attempt(writers[index], batch(2, start=100 * number + 10 * index), clock) for index in (0, 4)
            ]
            outcomes = [attempt.outcome() for attempt in attempts]
            safe = {event for event, times in indexed(server).items() if times}
            for index, outcome in zip((0, 4), outcomes, strict=True):
                if outcome is None:
                    ids = {one.id for one in batch(2, start=100 * number + 10 * index).events}
                    assert ids <= safe


def indexed(server: PracticeSplunk) -> dict[str, int]:
    """What would survive if every indexer crashed now."""
    for number in range(len(server.indexers)):
        server.crash(number)
    return {event_id: server.ids.count(event_id) for event_id in server.ids}


def test_a_channel_that_is_not_known_any_more_is_replaced(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.answer_code(11, path=EVENT)
    outcome = all_later(written(writer, batch(3), clock), 3)
    assert not outcome.unknown
    assert not outcome.blocked
    server.answer_code(11, path=ACK)
    assert all_later(written(writer, batch(3), clock), 3).unknown
    assert written(writer, batch(3), clock) is None


# Set-ups that cannot work


def test_a_token_without_acknowledgement_blocks_before_anything_is_sent(clock: ManualClock) -> None:
    with PracticeSplunk() as server:
        writer = Splunk(server.url, LiteralSecret(server.token), acknowledge=True).open(clock)
        for _ in range(2):
            outcome = all_later(writer.write(batch(3)), 3)
            assert outcome.blocked
            assert "--splunk_acknowledge" in outcome.cause
        assert server.count == 0


def test_a_service_without_acknowledgements_blocks_before_anything_is_sent(
    server: PracticeSplunk, writer: Writer
) -> None:
    server.answer(404, path=ACK)
    outcome = all_later(writer.write(batch(3)), 3)
    assert outcome.blocked
    assert "Splunk Cloud has none" in outcome.cause
    assert server.count == 0


def test_an_outage_before_anything_is_sent_is_not_unknown(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    server.reset("after", path=ACK)
    assert not all_later(writer.write(batch(3)), 3).unknown
    server.answer(502, b"<html>", path=ACK)
    assert not all_later(writer.write(batch(3)), 3).unknown
    assert written(writer, batch(3), clock) is None


def test_a_token_that_loses_its_acknowledgement_blocks(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    assert written(writer, batch(1, start=50), clock) is None
    server.tokens[0].acknowledges = False
    assert all_later(written(writer, batch(3), clock), 3).unknown
    assert all_later(written(writer, batch(3), clock), 3).blocked
    assert server.count == 4


def test_a_missing_channel_blocks_with_what_to_do(server: PracticeSplunk) -> None:
    plain = Splunk(server.url, LiteralSecret(server.token)).open()
    outcome = all_later(plain.write(batch(3)), 3)
    assert outcome.blocked
    assert "--splunk_acknowledge=true" in outcome.cause


def test_a_replaced_token_is_read_again(server: PracticeSplunk, settings: Splunk, clock: ManualClock) -> None:
    secret = RotatingSecret([server.token, "new-token"])
    writer = replace(settings, token=secret).open(clock)
    assert written(writer, batch(1), clock) is None
    server.rotate("new-token")
    assert written(writer, batch(2, start=10), clock) is None
    assert server.count == 3


def test_a_refused_event_is_rejected_and_what_stood_before_it_is_sent_again(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    found = batch(4)
    bad = replace(found, events=[*found.events[:2], replace_raw(found, 2, b'""'), found.events[3]])
    outcome = written(writer, bad, clock)
    assert outcome is not None
    assert list(outcome.rejected) == [2]
    assert list(outcome.later) == [0, 1, 3]
    assert outcome.unknown


def replace_raw(found: Batch, index: int, raw: bytes) -> Any:
    event = found.events[index]
    return type(event)(event.id, event.type, event.created_at, raw)


def test_busy_is_later(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    server.busy(27)
    outcome = all_later(written(writer, batch(3), clock), 3)
    assert not outcome.unknown
    assert "at capacity" in outcome.cause


# Life


def test_closing_ends_the_wait(server: PracticeSplunk, writer: Writer, clock: ManualClock) -> None:
    server.ack_seconds = math.inf
    attempt = Attempt(writer, batch(3), clock)
    assert server.wait_for(3)
    time.sleep(0.05)
    writer.close()
    give_up = time.monotonic() + 5
    while not attempt.ended():
        assert time.monotonic() < give_up
    assert all_later(attempt.outcome(), 3).unknown


def test_closing_ends_a_request_that_hangs(
    server: PracticeSplunk, writer: Writer, clock: ManualClock
) -> None:
    assert written(writer, batch(1), clock) is None
    server.hang()
    requests = server.request_count
    attempt = Attempt(writer, batch(3, start=10), clock)
    assert server.wait_for_requests(requests + 1)
    writer.close()
    assert all_later(attempt.outcome(), 3).unknown


def test_the_last_writer_closes_the_channels_and_a_new_one_begins_anew(
    server: PracticeSplunk, settings: Splunk, clock: ManualClock
) -> None:
    for number in range(2):
        writer = settings.open(clock)
        assert written(writer, batch(2, start=10 * number), clock) is None
        writer.close()
    assert server.connection_count == 2


def test_settings_pickle_without_what_is_live(settings: Splunk, clock: ManualClock) -> None:
    writer = settings.open(clock)
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    other = again.open(clock)
    assert written(other, batch(1), clock) is None
    assert written(writer, batch(1, start=5), clock) is None


def test_how_many_wait_follows_from_acknowledgement(settings: Splunk) -> None:
    assert settings.concurrency == 64
    assert Splunk("http://x", settings.token).concurrency == 2
    assert Splunk("http://x", settings.token, acknowledge=True, concurrency=3).concurrency == 3
