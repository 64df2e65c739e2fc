"""Whatever a server answers, to the stream or to /v1/me: the connection comes back and asks rightly."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from tests.transforms.feed.memory_intake import HurriedClock
from tests.transforms.feed.raw_server import RawServer, event_stream
from tests.transforms.feed.test_connection import Key, reading, until
from transforms.feed import account
from transforms.feed.account import try_key
from transforms.feed.reconnect import decide
from transforms.feed.request import FeedSettings, stream_headers

pytestmark = pytest.mark.usefixtures("streams_end_at_once")
EVENT = b'data: {"id":"evt_01TEST1","type":"grant.created","createdAt":"2026-11-26T03:00:00Z","data":{}}\n\n'
HEADER = "last-event-id: "


def sent_id(head: bytes) -> bytes | None:
    """The Last-Event-ID of a request, as its bytes."""
    found = [line for line in head.split(b"\r\n") if line.lower().startswith(HEADER.encode())]
    return found[0][len(HEADER) :] if found else None


def first_and_second(first: bytes, second: bytes = EVENT) -> list[bytes | None]:
    """The ids that the second and third requests carried, after streams that began with these bytes."""
    with RawServer(event_stream(first), event_stream(second), event_stream(EVENT)) as server:
        with reading(None, server.url) as (connection, intake):
            server.wait_for_requests(3)
            assert intake.ids[:1] == ["evt_01TEST1"]
            assert connection.failure is None
        return [sent_id(head) for head in server.requests[1:3]]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (b"42", b"42"),
        ("grüße-1".encode(), "grüße-1".encode()),  # UTF-8 in, the same bytes out
        ("日本 語".encode(), "日本 語".encode()),
        (b"a\tb", None),
        (b"abc ", None),  # HTTP takes the blank off: another id than the server gave
        (b" lead", None),
        (b" ", None),
        (b"\xff\xfe", None),  # not UTF-8
        (b"a\x01b", None),
        (b"a\x7fb", None),
        (b"x" * 5000, None),
    ],
)
def test_an_id_goes_back_as_it_came_or_not_at_all(value: bytes, sent: bytes | None) -> None:
    assert first_and_second(b"id: " + value + b"\n" + EVENT)[0] == sent


def test_an_id_that_was_taken_back_is_not_sent_again() -> None:
    second = b'id:\ndata: {"id":"evt_01TEST2","type":"t","createdAt":"","data":{}}\n\n'
    assert first_and_second(b"id: five\n" + EVENT, second) == [b"five", None]


def test_an_id_stays_in_force_over_a_stream_that_gives_none() -> None:
    assert first_and_second(b"id: five\n" + EVENT) == [b"five", b"five"]


def test_no_nul_is_ever_in_an_id() -> None:
    assert first_and_second(b"id: one\nid: t\0wo\n" + EVENT)[0] == b"one"


def test_retry_0_ends_an_old_retry() -> None:
    clock = HurriedClock()
    replies = [
        event_stream(b"retry: 3000\n" + EVENT),
        event_stream(b"retry: 0\n" + EVENT),
        event_stream(EVENT),
    ]
    with RawServer(*replies) as server, reading(None, server.url, clock=clock):
        server.wait_for_requests(4)
    assert clock.waits[:3] == [3.0, 0.0, 0.0]


ODD = {
    "location that is no URL": b"HTTP/1.1 302 Found\r\nlocation: login.example.com:8443/sso\r\n\r\n",
    "location with a user": b"HTTP/1.1 302 Found\r\nlocation: mailto:a@b\r\n\r\n",
    "location that is no host": b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://xn--a/\r\n\r\n",
    "location with an odd port": b"HTTP/1.1 301 Moved\r\nlocation: http://h:99999999/\r\n\r\n",
    "location not ASCII": b"HTTP/1.1 308 Moved\r\nlocation: http://\xff\xfe/\r\n\r\n",
    "location twice": b"HTTP/1.1 303 Other\r\nlocation: ::\r\nlocation: //[\r\n\r\n",
    "cookie not ASCII": b"HTTP/1.1 500 No\r\nset-cookie: lb=knoten-\xc4; Path=/\r\n\r\n",
    "status 999": b"HTTP/1.1 999 \xff\r\n\r\n",
    "retry-after not ASCII": b"HTTP/1.1 503 No\r\nretry-after: \xd9\xa3\r\n\r\n",
    "body is deep JSON": b"HTTP/1.1 500 No\r\n\r\n" + b"[" * 60_000,
    "body with half a surrogate": b'HTTP/1.1 500 No\r\n\r\n{"code":"\\ud800","message":"\\udfff"}',
    "length that is no number": b"HTTP/1.1 500 No\r\ncontent-length: 0x5\r\n\r\nabcde",
    "chunk without a size": b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000,
}


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD.keys())
def test_an_odd_answer_is_an_ordinary_retry(reply: bytes) -> None:
    with RawServer(reply, event_stream(EVENT)) as server:
        with reading(None, server.url) as (connection, intake):
            intake.wait_for(lambda: "evt_01TEST1" in intake.ids)
            assert connection.failure is None
        assert b"cookie" not in server.requests[1].lower()


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD.keys())
def test_an_odd_answer_to_the_key_s_trial_is_a_finding(reply: bytes) -> None:
    with RawServer(b"", account=reply) as server:
        [finding] = try_key(FeedSettings(server.url, Key()))
    assert finding.passed is None


def test_a_key_s_trial_ends_though_the_answer_does_not() -> None:
    def drip(client: socket.socket) -> None:
        while True:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    with RawServer(b"", account=drip) as server:
        [finding] = try_key(FeedSettings(server.url, Key(), account_timeout=0.2))
    assert finding.passed is None


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("reply", ODD.values(), ids=ODD.keys())
def test_an_odd_answer_to_me_is_no_answer(reply: bytes) -> None:
    told: list[str] = []
    with (
        RawServer(event_stream(EVENT), account=reply) as server,
        reading(None, server.url, check_account=told.append) as (connection, intake),
    ):
        intake.wait_for(lambda: "evt_01TEST1" in intake.ids)
        assert connection.failure is None
    assert told == []


def test_a_cookie_that_no_header_can_carry_is_not_kept() -> None:
    cookie = b"set-cookie: lb=knoten-\xc4; Path=/"
    stream = event_stream(EVENT, b"content-type: text/event-stream", cookie)
    with RawServer(stream) as server:
        with reading(None, server.url) as (connection, intake):
            server.wait_for_requests(3)
            assert len(intake.events) >= 2
            assert connection.failure is None
        assert not [head for head in server.requests if b"cookie" in head.lower()]


def test_whatever_is_raised_while_an_answer_is_read_is_an_ordinary_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also by a kind of answer that nobody thought of."""
    seen: list[object] = []

    def break_once(response: Any, now: float) -> None:
        seen.append(response)
        if len(seen) < 3:
            raise UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range")

    monkeypatch.setattr("transforms.feed.transport.refusal", break_once)
    with RawServer(event_stream(EVENT)) as server, reading(None, server.url) as (connection, intake):
        intake.wait_for(lambda: bool(intake.events))
        assert connection.failure is None


@pytest.mark.parametrize(
    "headers",
    [
        [b"content-type: text/event-stream", b"content-type: text/event-stream"],
        [b"Content-Type: text/event-stream;charset=utf-8"],
        [b"content-type: TEXT/Event-Stream ;"],
        [b"content-type: text/event-stream", b"content-encoding: identity, identity"],
    ],
)
def test_what_is_an_event_stream_is_read(headers: list[bytes]) -> None:
    with RawServer(event_stream(EVENT, *headers)) as server, reading(None, server.url) as (_, intake):
        intake.wait_for(lambda: bool(intake.events))


@pytest.mark.parametrize(
    "headers",
    [
        [b"content-type: text/event-stream-x"],
        [b"content-type: text/html", b"content-type: text/event-stream"],
        [b"content-type: text / event-stream"],
        [b"x-nothing: here"],
    ],
)
def test_what_is_none_is_not_read(headers: list[bytes]) -> None:
    with (
        RawServer(event_stream(EVENT, *headers)) as server,
        reading(None, server.url) as (connection, intake),
    ):
        server.wait_for_requests(2)
        until(lambda: "not the event stream" in connection.status.last_problem)
        assert intake.events == []


@pytest.mark.parametrize(("status", "redirects"), [(301, True), (308, True), (304, False), (300, False)])
def test_only_a_redirect_is_called_one(status: int, redirects: bool) -> None:
    with (
        RawServer(b"HTTP/1.1 %d What\r\n\r\n" % status) as server,
        reading(None, server.url) as (connection, _),
    ):
        until(lambda: str(status) in connection.status.last_problem)
        assert ("redirects" in connection.status.last_problem) is redirects


def test_data_without_a_byte_is_a_dead_letter_and_not_nothing() -> None:
    with (
        RawServer(event_stream(b"data\n\ndata: \n\n" + EVENT)) as server,
        reading(None, server.url) as (_, intake),
    ):
        intake.wait_for(lambda: bool(intake.events))
        assert [letter.raw for letter in intake.letters[:2]] == [b"", b""]
        assert all(letter.cause.startswith("not_json") for letter in intake.letters)


@pytest.mark.parametrize("drip", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x"], ids=["100 Continue", "a header"])
def test_bytes_that_never_become_headers_are_given_up_like_silence(
    drip: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def for_ever(client: socket.socket) -> None:
        client.sendall(b"" if drip.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            client.sendall(drip)
            time.sleep(0.01)

    with (
        RawServer(for_ever, event_stream(EVENT)) as server,
        reading(None, server.url, read_timeout=0.3) as (_, intake),
    ):
        intake.wait_for(lambda: bool(intake.events))
        assert "fell silent" in caplog.text


def test_a_large_frame_is_an_event_and_a_larger_one_a_dead_letter() -> None:
    large = b'data: {"id":"evt_large","data":"' + b"x" * 9_000_000 + b'"}\n\n'
    larger = b'data: {"id":"evt_larger","data":"' + b"x" * 11_000_000 + b'"}\n\n'
    with RawServer(event_stream(large + larger + EVENT)) as server, reading(None, server.url) as (_, intake):
        intake.wait_for(lambda: "evt_01TEST1" in intake.ids)
        assert intake.ids[:2] == ["evt_large", "evt_01TEST1"]
        assert intake.letters[0].cause.startswith("frame_too_large: 11000029 bytes")


def test_me_that_hangs_does_not_delay_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "PATIENCE", 0.0)
    hanging = threading.Event()

    def hang(client: socket.socket) -> None:
        hanging.set()
        client.recv(1)

    def refuse(developer_id: str) -> None:
        raise AssertionError("it never answered")

    with (
        RawServer(event_stream(EVENT), account=hang) as server,
        reading(None, server.url, check_account=refuse) as (connection, intake),
    ):
        intake.wait_for(lambda: len(intake.events) >= 3)  # reconnects included
        assert hanging.is_set()
        assert connection.failure is None


def test_a_gateway_s_504_after_a_long_wait_is_nothing_to_back_off_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The subscription was live all the while; and the same answer at once is backed off from."""

    def waits(seconds: float) -> list[float]:
        clock = Slow(seconds)
        reply = b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 8\r\n\r\ntoo late"
        with RawServer(reply) as server, reading(None, server.url, clock=clock):
            server.wait_for_requests(8)
        return clock.waits[:7]

    monkeypatch.setattr("transforms.feed.connection.decide", lambda a, b, c, d, e: decide(a, b, c, d, max))
    assert waits(30.0) == [0.5] * 7
    assert waits(0.1) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]


class Slow(HurriedClock):
    """Each attempt takes so long: time goes on when it is asked for in between."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds, self._at = seconds, 0.0

    def monotonic(self) -> float:
        self._at += self._seconds
        return self._at


def test_headers_are_bytes_that_h11_sends_unchanged() -> None:
    assert (b"Last-Event-ID", b"1") in stream_headers("key", b"1")
    assert b"Last-Event-ID" not in dict(stream_headers("key", b""))
