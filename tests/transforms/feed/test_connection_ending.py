"""How reading ends: what has arrived is taken, no stream is closed too young, a 204 ends one connection."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_KEY, PracticeFeed
from tests.transforms.feed.journal.support import open_journal
from tests.transforms.feed.memory_intake import HurriedClock, MemoryIntake
from tests.transforms.feed.raw_server import RawServer, received_at
from tests.transforms.feed.test_connection import reading, until
from transforms.clock import SystemClock
from transforms.feed import request
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings, Wire
from transforms.secret import LiteralSecret

EVENTS = list(islice(generate(seed=1), 500))
HELD = 0.4  # seconds, in place of two


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=None) as feed:
        yield feed


@pytest.fixture
def _held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MIN_STREAM_SECONDS", HELD)


@pytest.mark.usefixtures("_held")
@pytest.mark.parametrize("withheld", [True, False])
def test_a_stream_that_was_just_opened_is_not_closed_yet(feed: PracticeFeed, withheld: bool) -> None:
    feed.withhold_headers = withheld
    began = time.monotonic()
    with reading(feed, clock=SystemClock()) as (_, intake):
        feed.wait_for_streams()
        threading.Timer(HELD / 2, feed.publish, [EVENTS[0]]).start()
    assert time.monotonic() - began >= HELD
    assert [event.raw for event in intake.events] == [EVENTS[0]]  # it reads on meanwhile


@pytest.mark.usefixtures("_held")
def test_a_stream_that_is_old_enough_is_closed_at_once(feed: PracticeFeed) -> None:
    with reading(feed, clock=SystemClock()) as (_, _intake):
        feed.wait_for_streams()
        opened = time.monotonic()
        until(lambda: time.monotonic() > opened + HELD)
        began = time.monotonic()
    assert time.monotonic() - began < HELD


@pytest.mark.usefixtures("_held")
def test_it_is_held_too_when_the_intake_fails(feed: PracticeFeed) -> None:
    intake = MemoryIntake()
    intake.failure = OSError("disk")
    began = time.monotonic()
    with reading(feed, clock=SystemClock(), intake=intake) as (connection, _):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        feed.wait_for(lambda: not feed.open_streams)
        assert time.monotonic() - began >= HELD
        until(lambda: connection.failure is intake.failure)


@pytest.mark.usefixtures("_held")
def test_no_stream_is_too_short_whenever_a_stop_comes_during_the_start() -> None:
    """As the server sees it: requests that came, and how long until the client was gone."""
    lived: list[float] = []

    def hold(client: socket.socket) -> None:
        opened = received_at(client)
        while client.recv(1024):
            pass
        lived.append(time.monotonic() - opened)

    def start_and_stop(after: float) -> None:
        with reading(None, server.url, clock=SystemClock()):
            time.sleep(after)

    with RawServer(hold) as server:
        starts = [threading.Thread(target=start_and_stop, args=(step / 400,)) for step in range(24)]
        for each in starts:
            each.start()
        for each in starts:
            each.join()
        until(lambda: len(lived) == len(server.requests))
    assert len(lived) > 5
    assert min(lived) >= HELD * 0.75  # the server sees a request a little after it was sent


def test_two_seconds_are_by_the_service_s_count() -> None:
    """Which begins when it gets to see the request."""
    assert request.MIN_STREAM_SECONDS > 2.0


CHUNKED = b"\r\ntransfer-encoding: chunked\r\n\r\n"
NO_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/html" + CHUNKED
BROKEN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream" + CHUNKED + b"no number\r\n"


@pytest.mark.usefixtures("_held")
@pytest.mark.parametrize("answer", [NO_STREAM, BROKEN], ids=["no stream", "broken"])
@pytest.mark.parametrize("stays", [True, False])
def test_what_we_end_ourselves_is_held_unless_the_other_side_has_ended_it(answer: bytes, stays: bool) -> None:
    """Something in between may have spoilt a stream that is open in the service."""

    asked: list[float] = []

    def spoil(client: socket.socket) -> None:
        asked.append(received_at(client))
        client.sendall(answer)
        while stays and client.recv(1024):
            pass

    with RawServer(spoil) as server, reading(None, server.url, clock=SystemClock()):
        until(lambda: len(asked) >= 2)
        assert (asked[1] - asked[0] >= HELD * 0.75) == stays


def test_an_attempt_that_is_ended_before_its_request_sends_none() -> None:
    wire = Wire(SystemClock())
    assert wire.cut() == 0
    asking = SimpleNamespace(method=b"GET")
    with pytest.raises(httpx.TransportError):
        wire.trace("http11.send_request_headers.started", {"request": asking})


@pytest.mark.usefixtures("streams_end_at_once")
def test_what_had_arrived_before_the_stop_is_taken(feed: PracticeFeed) -> None:
    """As after a stall: the events wait in the socket while reading is held up."""

    class Stalled(MemoryIntake):
        stalled, goes_on = threading.Event(), threading.Event()

        def append(self, *given: Any, **named: Any) -> None:
            self.stalled.set()
            self.goes_on.wait(10)
            super().append(*given, **named)

    intake = Stalled()
    with reading(feed, intake=intake) as (_, _intake):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        assert intake.stalled.wait(10)
        feed.publish_many(EVENTS[1:])
        until(lambda: len(feed.streams[0].sent_ids) == len(EVENTS))
        threading.Timer(0.2, intake.goes_on.set).start()  # after `reading` has stopped and interrupted it
    assert [event.raw for event in intake.events] == EVENTS


@pytest.mark.usefixtures("streams_end_at_once")
def test_a_204_ends_its_own_connection_and_the_input_when_all_were_told(
    feed: PracticeFeed, tmp_path: Path
) -> None:
    feed.withhold_headers = False
    journal, over = open_journal(tmp_path), threading.Event()
    settings = FeedSettings(feed.url, LiteralSecret(PRACTICE_KEY))
    reader = FeedReader(settings, journal, connections=2, clock=HurriedClock(), on_end=over.set)
    reader.start()
    feed.wait_for_streams()
    feed.answer_streams(204)
    until(lambda: any(status.end_of_input for status in reader.statuses))
    feed.publish_many(EVENTS)
    until(lambda: journal.end == len(EVENTS))
    assert not reader.ended
    assert not over.is_set()
    feed.end_input()
    assert over.wait(10)
    assert reader.ended
    assert not journal.gap_open
    reader.stop()
    journal.close()


@pytest.mark.usefixtures("streams_end_at_once")
def test_a_204_to_the_only_connection_ends_the_input(feed: PracticeFeed, tmp_path: Path) -> None:
    journal, over = open_journal(tmp_path), threading.Event()
    feed.end_input()
    settings = FeedSettings(feed.url, LiteralSecret(PRACTICE_KEY))
    reader = FeedReader(settings, journal, connections=2, clock=HurriedClock(), on_end=over.set)
    reader.start()
    assert over.wait(10)
    assert reader.ended
    reader.stop()
    journal.close()
