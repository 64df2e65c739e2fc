"""A connection against the practice feed, by either transport: real sockets, every habit and fault of the
service. What only one of them has is `sse_only` here, or in test_websocket.py."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, STREAM, PracticeFeed, Slots
from pipelines.practice.feed_stream import Finish
from pipelines.practice.feed_websocket import SOCKET
from tests.transforms.feed.memory_intake import HurriedClock, MemoryIntake
from transforms.clock import SystemClock
from transforms.feed import websocket
from transforms.feed.connection import FeedConnection
from transforms.feed.coverage import Coverage
from transforms.feed.request import SSE, WEBSOCKET, FeedSettings
from transforms.feed.status import Phase
from transforms.feed.stream_reader import FINEST
from transforms.secret import SecretError
from transforms.way_out import WayOut

CAPTURE = (Path(__file__).parent / "data" / "stream.sse").read_bytes()
OF_SETTINGS = ("types", "way_out", "read_timeout", "ping_interval", "ping_timeout")
EVENTS = list(islice(generate(seed=1, now=1_800_000_000.0), 50))


class Key:
    """A secret whose value changes; `reads` counts."""

    def __init__(self, *values: str) -> None:
        self.values = list(values) or [PRACTICE_KEY]
        self.reads = 0

    def read(self) -> str:
        self.reads += 1
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        if not value:
            raise SecretError("env:NAME is not set")
        return value


class Feed(PracticeFeed):
    """One that is read by `transport`."""

    def __init__(self, transport: str = SSE, **options: Any) -> None:
        super().__init__(keepalive=None, **options)
        self.transport = transport
        self.path, self.opened = (SOCKET, 101) if transport == WEBSOCKET else (STREAM, 200)

    @property
    def own_slots(self) -> Slots:
        return self.socket_slots if self.transport == WEBSOCKET else self.slots

    def answer_streams(self, *answer: Any, **options: Any) -> None:
        options["path"] = self.path
        super().answer_streams(*answer, **options)


sse_only = pytest.mark.parametrize("feed", [SSE], indirect=True)


@pytest.fixture(autouse=True)
def _hurried(streams_end_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test waits: for a stream to be old enough (test_connection_ending.py has that rule), or to
    be subscribed (test_websocket.py)."""
    monkeypatch.setattr(websocket, "SUBSCRIBED_AFTER", 0.05)


@pytest.fixture(params=[SSE, WEBSOCKET])
def feed(request: pytest.FixtureRequest) -> Iterator[Feed]:
    with Feed(request.param) as feed:
        yield feed


@contextlib.contextmanager
def reading(
    feed: PracticeFeed | None, url: str = "", **options: Any
) -> Iterator[tuple[FeedConnection, MemoryIntake]]:
    """A connection in its thread; ended, and its thread gone, on leaving."""
    settings = FeedSettings(
        url or (feed.url if feed is not None else ""),
        options.pop("key", None) or Key(),
        transport=options.pop("transport", None) or getattr(feed, "transport", SSE),
        **{name: options.pop(name) for name in OF_SETTINGS if name in options},
    )
    intake = options.pop("intake", None) or MemoryIntake()
    options.setdefault("clock", HurriedClock())
    connection = FeedConnection(settings, uniform=lambda low, high: low, **options)
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(connection, intake, stop), daemon=True)
    thread.start()
    try:
        yield connection, intake
    finally:
        stop.set()
        connection.interrupt()
        thread.join(5.0)
        assert not thread.is_alive()
        assert connection.status.phase is Phase.STOPPED


def _run(connection: FeedConnection, intake: MemoryIntake, stop: threading.Event) -> None:
    with contextlib.suppress(Exception):  # `failure` keeps it
        connection.run(intake, stop)


def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "what was waited for never came"
        time.sleep(0.002)


def test_events_arrive_in_order_and_byte_exact(feed: Feed) -> None:
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        feed.publish_many(EVENTS)
        intake.wait_for(lambda: len(intake.events) == 50)
        assert [event.raw for event in intake.events] == EVENTS
        until(lambda: connection.status.last_event_at)
        assert connection.status.phase is Phase.LIVE


@sse_only
@pytest.mark.parametrize("chunk_bytes", [1, 100, 65536])
def test_the_captured_stream_arrives_byte_exact(feed: Feed, chunk_bytes: int) -> None:
    lines = [line[6:] for line in CAPTURE.split(b"\n") if line.startswith(b"data: ")]
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        feed.publish_raw(CAPTURE, chunk_bytes=chunk_bytes)
        intake.wait_for(lambda: len(intake.events) == len(lines))
        assert [event.raw for event in intake.events] == lines


@sse_only
def test_headers_are_withheld_until_the_first_event(feed: Feed) -> None:
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        until(lambda: connection.status.phase is Phase.WAITING_FOR_HEADERS)
        assert intake.gap_is_open
        feed.publish(EVENTS[0])
        intake.wait_for(lambda: bool(intake.events) and not intake.gap_is_open)


def test_keepalives_alone_make_it_live_and_are_heard(feed: Feed) -> None:
    feed.keepalive = 0.02
    with reading(feed) as (connection, intake):
        intake.wait_for(lambda: intake.heard_count > 3)
        assert connection.status.phase is Phase.LIVE
        assert intake.events == []


@pytest.mark.parametrize(
    ("how", "words"), [(Finish.CUT, "cut off"), (Finish.RESET, "reset"), (Finish.END, "closed the stream")]
)
def test_a_lost_stream_is_a_gap_and_an_ordinary_reconnect(feed: Feed, how: Finish, words: str) -> None:
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        intake.wait_for(lambda: len(intake.events) == 1)
        feed.finish_streams(how)
        feed.wait_for(lambda: len(feed.streams) == 2)
        feed.publish(EVENTS[1])
        intake.wait_for(lambda: len(intake.events) == 2 and not intake.gap_is_open)
        assert intake.gaps[0] == "not running"
        assert words in intake.gaps[1]
        assert words in connection.status.last_problem
        assert connection.status.reconnects == 1


def test_a_cut_inside_an_event_delivers_no_half_event(feed: Feed) -> None:
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        feed.cut_inside(EVENTS[1])
        feed.wait_for(lambda: len(feed.streams) == 2)
        feed.publish(EVENTS[2])
        intake.wait_for(lambda: len(intake.events) == 2)
        assert [event.raw for event in intake.events] == [EVENTS[0], EVENTS[2]]
        assert intake.letters == []


def test_refused_connections_are_retried_until_it_listens_again(feed: Feed) -> None:
    feed.refuse_connections()
    with reading(feed) as (connection, intake):
        until(lambda: "refused" in connection.status.last_problem)
        feed.up()
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        intake.wait_for(lambda: len(intake.events) == 1)


def test_silence_is_a_lost_connection(feed: Feed) -> None:
    feed.withhold_headers, feed.answers_pings = False, False
    with reading(feed, read_timeout=0.1, ping_interval=0.05, ping_timeout=0.05) as (connection, intake):
        feed.wait_for(lambda: len(feed.streams) >= 2)
        until(lambda: "silent" in connection.status.last_problem)
        intake.wait_for(lambda: "silent" in "".join(intake.gaps))


def test_after_a_key_rotation_the_secret_is_read_again(feed: Feed) -> None:
    feed.api_keys = {"new-key": PRACTICE_DEVELOPER}
    key = Key("old-key", "new-key")
    with reading(feed, key=key) as (connection, _):
        feed.wait_for_streams()
        assert key.reads == 2
        assert [request.status for request in feed.requests] == [401, feed.opened]
        assert "rejected the API key" in connection.status.last_problem


def test_too_many_connections_waits_more_than_300_s(feed: Feed) -> None:
    for _ in range(5):
        assert feed.own_slots.acquire(PRACTICE_DEVELOPER)
    clock = HurriedClock()
    with reading(feed, clock=clock):
        feed.wait_for(lambda: len([one for one in feed.requests if one.status]) >= 3)
    assert {request.status for request in feed.requests[:3]} == {101 if feed.transport == WEBSOCKET else 429}
    assert min(clock.waits) > 300.0


def test_a_second_connection_carries_on_without_a_slot(feed: Feed) -> None:
    intake = MemoryIntake()
    coverage = Coverage(intake, SystemClock())
    with reading(feed, coverage=coverage, intake=intake) as (_, first):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        first.wait_for(lambda: len(first.events) == 1)
        for _ in range(4):
            feed.own_slots.acquire(PRACTICE_DEVELOPER)
        with reading(feed, coverage=coverage, intake=intake) as (second, _):
            until(lambda: "carrying on with 1 open" in second.status.last_problem)


def test_rate_limit_and_errors_are_waited_out(feed: Feed) -> None:
    feed.answer_streams(429, "RATE_LIMIT_EXCEEDED", "Slow down", {"retry-after": "17"})
    feed.answer_streams(503, headers={"retry-after": "9"})
    feed.answer_streams(500, "INTERNAL_ERROR", "Internal Server Error", times=2)
    clock = HurriedClock()
    with reading(feed, clock=clock) as (connection, _):
        feed.wait_for_streams()
        assert clock.waits == [17.0, 9.0, 0.0, 0.0]
        assert "Internal Server Error" in connection.status.last_problem


def test_204_is_the_end_of_input(feed: Feed) -> None:
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        feed.end_input()
        until(lambda: connection.status.end_of_input)
        until(lambda: connection.status.phase is Phase.STOPPED)
        assert len(intake.events) == 1
        assert not intake.gap_is_open
        assert connection.failure is None


@sse_only
@pytest.mark.parametrize("withheld", [True, False])
def test_stop_ends_a_blocked_read_at_once(feed: Feed, withheld: bool) -> None:
    feed.withhold_headers = withheld
    with reading(feed, check_account=lambda developer: None) as (connection, _):
        feed.wait_for_streams()
        phase = Phase.WAITING_FOR_HEADERS if withheld else Phase.LIVE
        until(lambda: connection.status.phase is phase)
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    feed.wait_for(lambda: not feed.open_streams, timeout=2.0)


def test_stop_ends_a_hanging_connect_at_once(feed: Feed) -> None:
    feed.hang()
    with reading(feed) as (connection, _):
        until(lambda: connection.status.phase is Phase.WAITING_FOR_HEADERS)
        started = time.monotonic()
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize("transport", [SSE, WEBSOCKET])
def test_over_tls_with_a_private_authority(tmp_path: Path, transport: str) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout"
    )
    subprocess.run([*command.split(), str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Feed(transport, tls=context) as feed:
        with reading(feed, way_out=WayOut(ca_file=str(certificate))) as (_, intake):
            feed.wait_for_streams()
            feed.publish_many(EVENTS)
            intake.wait_for(lambda: len(intake.events) == 50)
            feed.finish_streams(Finish.CUT)
            feed.wait_for(lambda: len(feed.streams) == 2)
            started = time.monotonic()
        assert time.monotonic() - started < 1.0
        with reading(feed) as (connection, _):
            until(lambda: "TLS" in connection.status.last_problem)


def test_events_that_arrive_together_are_appended_together(feed: Feed) -> None:
    events = list(islice(generate(seed=2), 20_000))
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        feed.publish_many(events)  # an HTTP chunk each, as the service writes them
        intake.wait_for(lambda: len(intake.events) == 20_000)
        assert [event.raw for event in intake.events] == events
        # Without looking at the socket before a read it would be 20,000 commits.
        assert len(intake.appends) < 1000
        assert max(intake.appends) < 2000


def test_an_event_alone_does_not_wait_for_others(feed: Feed) -> None:
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        for count, event in enumerate(EVENTS[:5], 1):
            feed.publish(event)
            intake.wait_for(lambda count=count: len(intake.events) == count, timeout=2.0)  # type: ignore[misc]


def test_a_full_journal_pauses_reading_and_loses_nothing(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    intake, clock = MemoryIntake(), HurriedClock()
    intake.full = 5
    with (
        caplog.at_level(logging.INFO, "grantex.feed"),
        reading(feed, intake=intake, clock=clock) as (connection, _),
    ):
        feed.wait_for_streams()
        feed.publish_many(EVENTS)
        intake.wait_for(lambda: len(intake.events) == 50)
        until(lambda: connection.status.phase is Phase.LIVE)
        assert [event.raw for event in intake.events] == EVENTS
    assert clock.waits == [1.0] * 5
    assert intake.gaps == ["not running", "the journal was full"]
    assert not intake.gap_is_open
    said = [record.getMessage() for record in caplog.records if "journal" in record.getMessage()]
    assert ["pauses" in said[0], "goes on" in said[1]] == [True, True]
    assert len(said) == 2


def test_stop_ends_the_wait_for_a_full_journal(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    intake = MemoryIntake()
    intake.full = 10**9
    with reading(feed, intake=intake) as (connection, _):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        until(lambda: connection.status.phase is Phase.PAUSED)
    assert intake.gap_is_open
    assert "1 received events were not kept" in caplog.text


@pytest.mark.parametrize(
    "failure", [OSError("disk"), ValueError("bug"), ConnectionResetError("not the feed's")]
)
def test_the_intakes_own_failures_end_the_run(feed: Feed, failure: Exception) -> None:
    intake = MemoryIntake()
    intake.failure = failure
    with reading(feed, intake=intake) as (connection, _):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        until(lambda: connection.status.phase is Phase.STOPPED)
        assert connection.failure is failure


@sse_only
def test_what_is_no_event_is_a_dead_letter_with_its_bytes(feed: Feed) -> None:
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        feed.publish(b"not json")
        feed.publish(b'{"type":"grant.created"}')
        feed.publish_raw(b"\x00\xff garbage\nmore: garbage\n\n")
        feed.publish(EVENTS[0])
        intake.wait_for(lambda: len(intake.events) == 1)
        assert [letter.raw for letter in intake.letters] == [b"not json", b'{"type":"grant.created"}']


@sse_only
def test_a_slow_drip_of_bytes_is_put_together(feed: Feed) -> None:
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        feed.publish_raw(b'data: {"id":"a"}\r\n\r\n', drip=0.001)
        intake.wait_for(lambda: intake.ids == ["a"])


@sse_only
def test_types_are_one_percent_encoded_parameter(feed: Feed) -> None:
    with reading(feed, types=("grant.created", " odd type&x=1/\u00e9 ", "grant.created")):
        feed.wait_for_streams()
        [request] = feed.requests
        assert request.query == "types=grant.created%2Codd%20type%26x%3D1%2F%C3%A9"
        assert feed.streams[0].types == frozenset({"grant.created", "odd type&x=1/\u00e9"})


@sse_only
def test_the_request_says_what_it_should(feed: Feed) -> None:
    with reading(feed):
        feed.wait_for_streams()
        [request] = feed.requests
        assert (request.method, request.target) == ("GET", "/v1/events/stream")
        assert request.headers["authorization"] == f"Bearer {PRACTICE_KEY}"
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["cache-control"] == "no-cache"
        assert request.headers["accept-encoding"] == "identity"
        assert "last-event-id" not in request.headers


@sse_only
def test_last_event_id_and_retry_are_honoured_when_they_come(feed: Feed) -> None:
    clock = HurriedClock()
    with reading(feed, clock=clock) as (_, intake):
        feed.wait_for_streams()
        feed.publish_raw(b'id: 42\nretry: 3000\ndata: {"id":"a"}\n\nid: 43\ndata: {"id":')
        intake.wait_for(lambda: intake.ids == ["a"])
        feed.finish_streams(Finish.CUT)
        feed.wait_for(lambda: len(feed.streams) == 2)
        assert feed.streams[1].headers["last-event-id"] == "42"
        assert clock.waits == [3.0]


def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(feed: Feed) -> None:
    with PracticeFeed() as elsewhere:
        feed.answer_streams(302, headers={"location": f"{elsewhere.url}{feed.path}"})
        with reading(feed) as (connection, _):
            feed.wait_for_streams()
            assert "redirects" in connection.status.last_problem
        assert elsewhere.requests == []


@sse_only
@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/html"}, {"content-type": "text/event-stream", "content-encoding": "gzip"}],
)
def test_what_is_no_plain_event_stream_is_not_read(feed: Feed, headers: dict[str, str]) -> None:
    feed.answer(200, b'data: {"id":"a"}\n\n', headers)
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        assert "not the event stream" in connection.status.last_problem
        assert intake.events == []


def test_bytes_that_are_no_http_are_an_ordinary_retry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            client.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with reading(PracticeFeed(), url=url) as (connection, _):
            until(lambda: "not valid HTTP" in connection.status.last_problem)


def test_user_password_and_query_of_the_url_go_nowhere(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    url = feed.url.replace("//", "//user:hidden@") + "/?token=hidden"
    with caplog.at_level(logging.DEBUG), reading(feed, url=url) as (_, intake):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        intake.wait_for(lambda: len(intake.events) == 1)
        assert feed.requests[0].target == feed.path
        assert feed.requests[0].headers["authorization"] == f"Bearer {PRACTICE_KEY}"
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("key", ["sk-secret\nx", "sk-secret x", "sk-secret-\u00e9", ""])
def test_a_key_that_no_header_can_carry_is_said_without_its_value(
    feed: Feed, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), reading(feed, key=Key(key, PRACTICE_KEY)) as (connection, _):
        feed.wait_for_streams()
        assert "the API key cannot be read" in connection.status.last_problem
        assert "sk-secret" not in caplog.text + repr(connection.status)


class SkippingClock(HurriedClock):
    """Whoever waits finds that the time has passed."""

    def monotonic(self) -> float:
        return super().monotonic() + sum(self.waits)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self.waits.append(timeout or 0.0)
        return event.wait(0.001)


def test_an_outage_of_an_hour_is_said_every_five_minutes(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SkippingClock()
    with reading(feed, key=Key("wrong"), clock=clock):
        until(lambda: sum(clock.waits) > 3600.0)
        said = [record.getMessage() for record in caplog.records]
    assert {line.partition(";")[0] for line in said} == {said[0].partition(";")[0]}
    assert "the service rejected the API key (401): check --feed_api_key" in said[0]
    assert 11 <= len(said) <= 14


def test_a_journal_that_stays_full_is_said_every_five_minutes(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    intake, clock = MemoryIntake(), SkippingClock()
    intake.full = 900  # seconds, as one is waited between two tries
    with reading(feed, intake=intake, clock=clock):
        feed.wait_for_streams()
        feed.publish_many(EVENTS)
        intake.wait_for(lambda: len(intake.events) == 50)
        until(lambda: "goes on" in caplog.text)
    assert caplog.text.count("reading the feed pauses with") == 3


def test_the_key_is_in_no_log_line(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    feed.answer_streams(401, "UNAUTHORIZED", "Invalid API key")
    with caplog.at_level(logging.DEBUG, "grantex.feed"), reading(feed, check_account=lambda developer: None):
        feed.wait_for_streams()
        feed.finish_streams(Finish.RESET)
        feed.wait_for(lambda: len(feed.streams) == 2)
    assert "rejected" in caplog.text
    assert PRACTICE_KEY not in caplog.text


def test_the_account_is_told_once_and_asked_for_until_it_is_known(feed: Feed) -> None:
    told: list[str] = []
    feed.api_keys = {"other": PRACTICE_DEVELOPER}
    with reading(feed, key=Key("bad", "other"), check_account=told.append):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        until(lambda: told)
        feed.finish_streams(Finish.END)
        feed.wait_for(lambda: len(feed.streams) == 2)
    assert told == [PRACTICE_DEVELOPER]
    paths = [(request.path, request.status) for request in feed.requests]
    opened = (feed.path, feed.opened)
    asked = [("/v1/me", 200), ("/v1/me", 401), opened, opened, (feed.path, 401)]
    assert sorted(paths) == sorted(asked)  # beside each other


def test_the_wrong_account_ends_the_run_before_any_event_is_kept(feed: Feed) -> None:
    def refuse(developer: str) -> None:
        raise RuntimeError(f"this journal is not {developer}'s")

    feed.withhold_headers = False
    with reading(feed, check_account=refuse) as (connection, intake):
        feed.wait_for_streams()
        feed.publish(EVENTS[0])
        until(lambda: connection.failure is not None)
        assert "dev_practice" in str(connection.failure)
        assert intake.events == []


def both_are_live(coverage: Coverage) -> None:
    """So that what is published next counts as heard by both: it must be younger than they are."""
    until(lambda: coverage.open == 2)
    since = time.monotonic()
    until(lambda: time.monotonic() > since + 10 * FINEST)


def test_losing_one_of_two_streams_is_no_gap(feed: Feed) -> None:
    intake = MemoryIntake()
    coverage = Coverage(intake, SystemClock())
    with reading(feed, coverage=coverage, intake=intake), reading(feed, coverage=coverage, intake=intake):
        feed.wait_for_streams(2)
        feed.publish(EVENTS[0])
        both_are_live(coverage)
        feed.publish(EVENTS[3])
        intake.wait_for(lambda: len(intake.events) == 4)  # both were heard since both are live
        feed.streams[0].put(Finish.CUT)
        feed.wait_for(lambda: len(feed.streams) == 3)
        assert intake.gaps == ["not running"]
        assert not intake.gap_is_open
        feed.publish(EVENTS[1])
        both_are_live(coverage)
        feed.publish(EVENTS[2])
        intake.wait_for(lambda: len(intake.events) == 8)
        feed.refuse_connections()
        feed.finish_streams(Finish.CUT)
        intake.wait_for(lambda: intake.gap_is_open)
        assert len(intake.gaps) == 2
