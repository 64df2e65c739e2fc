"""The practice feed's WebSocket does what feed.md says of the service's; the client is the library's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.feed_stream import Close, Finish
from pipelines.practice.feed_websocket import SOCKET, SocketStream

EVENT = b'{"id":"evt_1","type":"grant.created","data":{}}'
OTHER = b'{"id":"evt_2","type":"grant.revoked","data":{}}'
UNTYPED = b'{"id":"evt_3"}'


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=None) as feed:
        yield feed


def client(feed: PracticeFeed, key: str = PRACTICE_KEY, query: str = "", **options: Any) -> ClientConnection:
    url = feed.url.replace("http", "ws", 1) + SOCKET + query
    headers = {"Authorization": f"Bearer {key}"}
    plain: dict[str, Any] = {"max_size": None, "proxy": None, "ping_interval": None, **options}
    connection: ClientConnection = connect(url, additional_headers=headers, **plain)
    return connection


def received(connection: ClientConnection) -> bytes:
    return connection.recv(timeout=5, decode=False)  # type: ignore[return-value]


def stream_of(feed: PracticeFeed, number: int = 0) -> SocketStream:
    feed.wait_for_streams(number + 1)
    stream = feed.streams[number]
    assert isinstance(stream, SocketStream)
    return stream


def test_an_event_is_a_text_frame_of_its_bytes_whatever_they_are(feed: PracticeFeed) -> None:
    with client(feed) as connection:
        stream_of(feed)
        odd = [EVENT, b"no json", b"", b"two\nlines", b'{"x":"' + b"y" * 5_000_000 + b'"}']
        feed.publish_many(odd)
        assert [received(connection) for _ in odd] == odd
        assert connection.protocol.extensions == []  # the library has offered compression


def test_the_101_does_not_mean_that_it_is_subscribed() -> None:
    with PracticeFeed(keepalive=None, subscribe_seconds=0.2) as feed, client(feed) as connection:
        assert feed.publish(EVENT) == 0
        stream_of(feed)
        feed.publish(OTHER)
        assert received(connection) == OTHER


def test_a_filter_that_is_sent_at_once_is_lost(feed: PracticeFeed) -> None:
    feed.subscribe_seconds = 0.2
    with client(feed) as connection:
        connection.send(json.dumps({"types": ["grant.revoked"]}))
        stream = stream_of(feed)
        feed.publish(EVENT)
        assert received(connection) == EVENT
        assert stream.filters == []


def test_a_filter_that_comes_later_is_heeded_and_never_confirmed(feed: PracticeFeed) -> None:
    with client(feed, query="?types=grant.created") as connection:
        stream = stream_of(feed)
        feed.publish(OTHER)
        assert received(connection) == OTHER, "types in the URL are ignored"
        for asked in ("no json", '{"types":["grant.revoked"]}'):
            connection.send(asked)
        feed.wait_for(lambda: bool(stream.filters))
        feed.publish_many([EVENT, UNTYPED, OTHER])
        assert [received(connection), received(connection)] == [UNTYPED, OTHER]
        connection.send('{"types":[]}')
        feed.wait_for(lambda: len(stream.filters) == 2)
        feed.publish_many([EVENT, OTHER, UNTYPED])
        assert received(connection) == UNTYPED, "an empty list blocks every type"


def test_the_sixth_gets_101_and_then_1013_and_sse_has_slots_of_its_own(feed: PracticeFeed) -> None:
    for _ in range(5):
        assert feed.socket_slots.acquire(PRACTICE_DEVELOPER)
    with client(feed) as connection, pytest.raises(ConnectionClosedError) as closed:
        connection.recv(timeout=5)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "Too many connections")
    assert feed.slots.taken(PRACTICE_DEVELOPER) == 0
    assert feed.slots.acquire(PRACTICE_DEVELOPER)
    assert feed.streams == []


def test_a_slot_is_given_back(feed: PracticeFeed) -> None:
    with client(feed):
        stream_of(feed)
        assert feed.socket_slots.taken(PRACTICE_DEVELOPER) == 1
    feed.wait_for(lambda: feed.socket_slots.taken(PRACTICE_DEVELOPER) == 0)


@pytest.mark.parametrize("status", [401, 429, 503])
def test_refusals_come_before_the_upgrade(feed: PracticeFeed, status: int) -> None:
    if status != 401:
        feed.answer_streams(status, "SOME_CODE", "Later", {"retry-after": "3"}, path=SOCKET)
    with pytest.raises(InvalidStatus) as refused:
        client(feed, key="wrong" if status == 401 else PRACTICE_KEY)
    assert refused.value.response.status_code == status


def test_without_upgrade_it_is_404_with_nothing(feed: PracticeFeed) -> None:
    answer = httpx.get(feed.url + SOCKET, headers={"Authorization": f"Bearer {PRACTICE_KEY}"})
    assert (answer.status_code, answer.content) == (404, b"")
    assert httpx.get(feed.url + SOCKET).status_code == 401


def test_it_pings_and_never_looks_for_the_answer(feed: PracticeFeed) -> None:
    feed.keepalive = 0.02
    with client(feed) as connection:
        assert stream_of(feed).is_open
        assert connection.ping().wait(5), "it answers ours at once"
        assert stream_of(feed).received_pings == 1
        feed.publish(EVENT)
        assert received(connection) == EVENT


@pytest.mark.parametrize(("how", "code"), [(Finish.END, 1005), (Close(1012, "x"), 1012), (Finish.CUT, None)])
def test_its_ends(feed: PracticeFeed, how: Finish | Close, code: int | None) -> None:
    with client(feed) as connection:
        stream_of(feed)
        feed.publish(EVENT)
        feed.finish_streams(how)
        assert received(connection) == EVENT
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=5)
        closed = connection.protocol.close_rcvd
        assert (closed and closed.code) == code


def test_at_its_end_it_closes_websockets_without_a_code() -> None:
    with PracticeFeed(keepalive=None) as feed:
        connection = client(feed)
        stream_of(feed)
    with connection, pytest.raises(ConnectionClosed):
        connection.recv(timeout=5)
    assert connection.protocol.close_rcvd is not None
    assert connection.protocol.close_rcvd.code == 1005


def test_a_dead_one_answers_no_ping(feed: PracticeFeed) -> None:
    feed.answers_pings = False
    with client(feed, close_timeout=0.1) as connection:
        stream_of(feed)
        assert not connection.ping().wait(0.1)
