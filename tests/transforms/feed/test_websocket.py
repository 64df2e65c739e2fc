"""What only a WebSocket has: messages, pings, filters, close codes, the upgrade. The rest is
test_connection.py, for both transports; tests/fuzz/test_websocket.py compares messages with the library's."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpcore
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol
from websockets.sync.server import ServerConnection, serve

from pipelines.practice.feed import PRACTICE_KEY
from pipelines.practice.feed_stream import Close
from pipelines.practice.feed_websocket import SocketStream, frame
from tests.transforms.feed.journal.support import open_journal
from tests.transforms.feed.memory_intake import HurriedClock, MemoryIntake
from tests.transforms.feed.raw_server import RawServer
from tests.transforms.feed.test_connection import EVENTS, Feed, SkippingClock, reading, until
from tests.transforms.write.manual_clock import ManualClock
from transforms.clock import SystemClock
from transforms.feed import request, websocket
from transforms.feed.coverage import Coverage
from transforms.feed.reader import FeedReader
from transforms.feed.reconnect import SLOT_WAIT, Ending, EndingKind, Streak, decide
from transforms.feed.request import BOTH, SSE, WEBSOCKET, FeedSettings
from transforms.feed.status import Phase
from transforms.feed.websocket import MessageReader, WebSocket, ending_of_close
from transforms.parse import Oversized
from transforms.secret import LiteralSecret

SETTINGS = FeedSettings("http://feed.test", LiteralSecret("key"), transport=WEBSOCKET)
EVENT, OTHER = (
    b'{"id":"evt_1","type":"grant.created","createdAt":"2026-03-01T12:00:00Z","data":{}}',
    b'{"id":"evt_2","type":"grant.revoked","createdAt":"2026-03-01T12:00:00Z","data":{}}',
)


@pytest.fixture
def _hurried(streams_end_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "SUBSCRIBED_AFTER", 0.05)


@pytest.fixture
def feed(_hurried: None) -> Iterator[Feed]:
    with Feed(WEBSOCKET) as feed:
        yield feed


def sent(opcode: Opcode, payload: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=False)


# Messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_a_message_of_any_length_is_kept_exact(size: int) -> None:
    message = (b"0123456789" * (size // 10 + 1))[:size]
    assert MessageReader().feed(sent(Opcode.TEXT, message)) == [message]


def test_a_message_in_parts_is_one_and_control_frames_in_between_are_none() -> None:
    reader = MessageReader()
    parts = (
        sent(Opcode.TEXT, b'{"a":', fin=False) + sent(Opcode.PING, b"p") + sent(Opcode.CONT, b"", fin=False)
    )
    assert reader.feed(parts) == []
    assert reader.ping == b"p"
    assert reader.feed(sent(Opcode.PONG) + sent(Opcode.CONT, b"1}") + sent(Opcode.TEXT, b"x")) == [
        b'{"a":1}',
        b"x",
    ]


def test_of_a_message_that_is_too_long_the_beginning_is_kept() -> None:
    reader = MessageReader(max_bytes=1000)
    long = sent(Opcode.TEXT, b"a" * 600, fin=False) + sent(Opcode.CONT, b"b" * 600)
    assert reader.feed(long + sent(Opcode.TEXT, b"next")) == [
        Oversized(b"a" * 600 + b"b" * 400, 1200),
        b"next",
    ]
    assert len(reader._message) == 0


def test_an_endless_message_takes_no_more_memory_than_the_longest() -> None:
    reader = MessageReader(max_bytes=1000)
    reader.feed(struct.pack("!BBQ", 0x81, 127, 1 << 40))
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == []
    assert len(reader._message) == 1000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (b"\x81\x81abcdx", "masked"),
        (b"\xc1\x00", "reserved bits"),
        (b"\x83\x00", "unknown opcode 3"),
        (sent(Opcode.CONT, b"x"), "not begun"),
        (sent(Opcode.TEXT, b"x", fin=False) + sent(Opcode.TEXT, b"x"), "inside another"),
        (b"\x09\x00", "control frame"),
        (b"\x89\x7e\x00\x7e", "length"),
        (b"\x88\x01x", "close frame"),
        (b"\x88\x02\x03\xed", "close frame"),  # 1005 may not be written
        (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "length"),
    ],
)
def test_what_breaks_the_protocol_ends_the_reading_behind_what_came_before(wrong: bytes, words: str) -> None:
    reader = MessageReader()
    assert reader.feed(sent(Opcode.TEXT, b"before") + wrong + sent(Opcode.TEXT, b"after")) == [b"before"]
    assert words in reader.fault
    assert reader.feed(sent(Opcode.TEXT, b"after")) == []


def test_nothing_is_read_behind_a_close_frame() -> None:
    reader = MessageReader()
    assert reader.feed(sent(Opcode.TEXT, b"a") + b"\x88\x00" + sent(Opcode.TEXT, b"b")) == [b"a"]
    assert reader.close == CloseFrame(1005, "")


# What a close means


def decision_after(ending: Ending) -> Any:
    return decide(ending, Streak().after(ending), 0, None, lambda low, high: low)


def test_too_many_connections_is_waited_out_for_as_long_as_a_slot_lives() -> None:
    decision = decision_after(ending_of_close(CloseFrame(1013, "Too many connections"), was_live=False))
    assert decision.wait >= SLOT_WAIT
    assert "five stream slots" in decision.reason
    assert "1013" in decision.reason


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (CloseFrame(1005, ""), "WebSocket closed without a code"),
        (CloseFrame(1000, ""), "with code 1000 (OK)"),
        (CloseFrame(1001, "restart\nnow"), "with code 1001 (going away) restart now"),
        (CloseFrame(1009, ""), "1009 (message too big)"),
        (CloseFrame(1011, "oops"), "1011 (internal error) oops"),
        (CloseFrame(1012, ""), "1012 (service restart)"),
        (CloseFrame(1013, "busy"), "1013 (try again later) busy"),  # of a live stream
        (CloseFrame(4001, "own"), "4001 (private use) own"),
    ],
)
def test_every_other_close_is_an_ordinary_reconnect(close: CloseFrame, words: str) -> None:
    ending = ending_of_close(close, was_live=True)
    assert ending.kind is EndingKind.END
    decision = decision_after(ending)
    assert words in decision.reason
    assert decision.wait < 1.0


# Time


class Silent:
    """The network, on which a wait passes at once. `said`: (seconds, what) that we sent. `comes`: what is to
    be read when, the next one last."""

    def __init__(self, clock: ManualClock, *comes: tuple[float, bytes]) -> None:
        self.clock, self.began = clock, clock.monotonic()
        self.comes = sorted(comes, reverse=True)
        self.said: list[tuple[float, str]] = []
        self._protocol = Protocol(SERVER)

    @property
    def at(self) -> float:
        return self.clock.monotonic() - self.began

    def read(self, most: int, timeout: float) -> bytes:
        if self.comes and self.comes[-1][0] <= self.at + timeout:
            when, data = self.comes.pop()
            self.clock.advance(max(0.0, when - self.at))
            return data
        self.clock.advance(timeout)
        raise httpcore.ReadTimeout

    def write(self, data: bytes, timeout: float) -> None:
        self._protocol.receive_data(data)
        for each in self._protocol.events_received():
            text = bytes(each.data).decode() if each.opcode is Opcode.TEXT else ""  # type: ignore[union-attr]
            self.said.append((round(self.at, 3), text or each.opcode.name))  # type: ignore[union-attr]


Seen = list[tuple[float, bool]]


def run(settings: FeedSettings, *comes: tuple[float, bytes]) -> tuple[Silent, WebSocket, Seen]:
    """Read until the end; also when it was asked, and whether it was live then."""
    clock = ManualClock()
    network, socket = Silent(clock, *comes), WebSocket(settings, clock)
    seen: Seen = []
    response = httpx.Response(101, extensions={"network_stream": network})
    try:
        seen.extend((round(network.at, 3), socket.is_live) for _ in socket.frames(response))
    except httpx.ReadTimeout:
        seen.append((round(network.at, 3), False))
    return network, socket, seen


def test_silence_is_found_within_40_seconds() -> None:
    network, _, seen = run(SETTINGS)
    assert network.said == [(20.0, "PING")]
    assert seen[-1][0] == 40.0


def test_it_is_pinged_every_20_seconds_and_whatever_comes_is_an_answer() -> None:
    comes = [
        (20.1, sent(Opcode.PONG)),
        (50.0, sent(Opcode.PING, b"x")),
        (79.0, sent(Opcode.PONG)),
        (90.0, b""),
    ]
    network, _, seen = run(SETTINGS, *comes)
    assert network.said == [
        (20.0, "PING"),
        (40.0, "PING"),
        (50.0, "PONG"),
        (60.0, "PING"),
        (80.0, "PING"),
        (90.0, "CLOSE"),
    ]
    assert seen[-1][0] < 90.0


def test_the_filter_is_sent_a_second_after_the_101_and_once_more() -> None:
    """Sent at once it is lost, and none is confirmed."""
    network, socket, _ = run(replace(SETTINGS, types=("b", " a ", "b")), (10.0, b""))
    assert network.said == [(1.0, '{"types":["a","b"]}'), (5.0, '{"types":["a","b"]}'), (10.0, "CLOSE")]
    assert socket.types == {"a", "b"}


def test_it_is_live_after_a_second_or_with_the_first_event() -> None:
    _, _, seen = run(SETTINGS, (10.0, b""))
    assert seen == [(1.0, True)]
    _, _, seen = run(SETTINGS, (0.1, sent(Opcode.PING)), (0.2, sent(Opcode.TEXT, EVENT)), (10.0, b""))
    assert seen == [(0.1, False), (0.2, True)]


def test_one_that_is_too_many_is_never_live() -> None:
    closed = sent(Opcode.CLOSE, CloseFrame(1013, "Too many connections").serialize())
    network, socket, seen = run(SETTINGS, (1.5, closed))
    assert [live for at, live in seen if at >= 1.5] == [True] or not socket.is_live
    network, socket, seen = run(SETTINGS, (0.4, closed))
    assert seen == [(0.4, False)]
    assert network.said == [(0.4, "CLOSE")]
    assert (socket.ending.kind, socket.ending.status) == (EndingKind.STATUS, 1013)


# Against the practice feed


def test_types_are_filtered_on_our_side(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "FILTER_AFTER", (0.2, 0.25))
    untyped = b'{"id":"evt_3","data":{}}'
    with reading(feed, types=("grant.created",)) as (_, intake):
        feed.wait_for_streams()
        feed.publish_many([OTHER, untyped, b"no json", EVENT])
        intake.wait_for(lambda: "evt_1" in intake.ids)
        assert intake.ids == ["evt_3", "evt_1"]
        assert [letter.raw for letter in intake.letters] == [b"no json"]
        [stream] = feed.streams
        assert isinstance(stream, SocketStream)
        until(lambda: len(stream.filters) == 2)
        assert stream.types == frozenset({"grant.created"})
        feed.publish(OTHER)
        feed.publish(EVENT)
        until(lambda: len(stream.sent_ids) == 5)
    assert feed.requests[0].target == "/v1/events/ws"


def test_only_filtered_events_are_heard_too(feed: Feed) -> None:
    with reading(feed, types=("none.such",)) as (_, intake):
        feed.wait_for_streams()
        heard = intake.heard_count
        feed.publish(EVENT)
        intake.wait_for(lambda: intake.heard_count > heard)
        assert intake.events == []


def test_what_is_no_event_is_a_dead_letter_with_its_bytes(feed: Feed) -> None:
    odd = [b"not json", b"", b'{"type":"grant.created"}', b"two\nlines\n", b"\xff\xfe", b"data: x"]
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        for each in odd:
            feed.publish(each)
        feed.publish(b'{\n"id":"evt_4"}\n')
        intake.wait_for(lambda: bool(intake.events))
        assert [letter.raw for letter in intake.letters] == odd
        assert intake.events[0].raw == b'{\n"id":"evt_4"}\n'
        assert connection.status.reconnects == 0


@pytest.mark.parametrize("size", [70_000, 5_000_000])
def test_events_have_any_size(feed: Feed, size: int) -> None:
    event = b'{"id":"evt_5","data":{"x":"' + b"y" * size + b'"}}'
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        feed.publish(event)
        intake.wait_for(lambda: bool(intake.events))
        assert intake.events[0].raw == event


def test_an_oversized_event_is_a_dead_letter_and_a_gap_and_no_reconnect(feed: Feed) -> None:
    long = b'{"id":"evt_5","data":{"x":"' + b"y" * 11_000_000 + b'"}}'
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        feed.publish(EVENT)
        feed.publish(long)
        feed.publish(OTHER)
        intake.wait_for(lambda: intake.ids == ["evt_1", "evt_2"])
        [letter] = intake.letters
        assert letter.cause.startswith(f"frame_too_large: {len(long)} bytes")
        assert letter.raw == long[: 10 * 1024 * 1024]
        assert "too large" in intake.gaps[-1]
        assert not intake.gap_is_open
        assert connection.status.phase is Phase.LIVE
    assert len(feed.streams) == 1


def test_messages_in_parts_and_a_slow_drip(feed: Feed) -> None:
    with reading(feed) as (_, intake):
        feed.wait_for_streams()
        half = len(EVENT) // 2
        parts = (
            sent(Opcode.TEXT, EVENT[:half], fin=False)
            + sent(Opcode.PING, b"!")
            + sent(Opcode.CONT, EVENT[half:])
        )
        feed.publish_raw(parts, drip=0.0005)
        feed.publish_raw(frame(OTHER), drip=0.0005)
        intake.wait_for(lambda: len(intake.events) == 2)
        assert [event.raw for event in intake.events] == [EVENT, OTHER]


MASKED = Frame(Opcode.TEXT, OTHER).serialize(mask=True)


@pytest.mark.parametrize(
    "wrong", [MASKED, b"\xf1\x00", b"HTTP/1.1 502 x\r\n"], ids=["masked", "reserved bits", "no WebSocket"]
)
def test_what_breaks_the_protocol_is_a_gap_and_a_reconnect(feed: Feed, wrong: bytes) -> None:
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        feed.publish_raw(frame(EVENT) + wrong)
        feed.wait_for(lambda: len(feed.streams) == 2)
        assert intake.ids == ["evt_1"]
        assert "breaks its protocol" in connection.status.last_problem
        assert "breaks its protocol" in intake.gaps[-1]
        stream = feed.streams[0]
        assert isinstance(stream, SocketStream)
        assert stream.client_close == Close(1002, "")


def test_a_close_is_answered_and_a_gap(feed: Feed) -> None:
    with reading(feed) as (connection, intake):
        feed.wait_for_streams()
        feed.publish(EVENT)
        feed.finish_streams(Close(1001, "bye"))
        feed.wait_for(lambda: len(feed.streams) == 2)
        assert "1001 (going away) bye" in connection.status.last_problem
        assert "1001" in intake.gaps[-1]
        [first, _] = feed.streams
        assert isinstance(first, SocketStream)
        assert first.client_close == Close(1001, "")


def test_it_says_good_bye(feed: Feed) -> None:
    with reading(feed) as (connection, _):
        until(lambda: connection.status.phase is Phase.LIVE)
    feed.wait_for(lambda: not feed.open_streams)
    [stream] = feed.streams
    assert isinstance(stream, SocketStream)
    assert stream.client_close == Close(1000, "")


def test_it_is_held_until_it_is_old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MIN_STREAM_SECONDS", 0.4)
    with Feed(WEBSOCKET) as feed, reading(feed, clock=SystemClock()) as (_, intake):
        feed.wait_for_streams()
        began = SystemClock().monotonic()
        threading.Timer(0.2, feed.publish, [EVENT]).start()
    assert SystemClock().monotonic() - began >= 0.3
    assert intake.ids == ["evt_1"]


def test_it_lets_go_of_the_service_when_the_journal_stays_full(feed: Feed) -> None:
    """The service has no bound for what it keeps for a reader that stalls."""
    intake = MemoryIntake()
    intake.full = 100  # seconds, as one is waited between two tries
    with reading(feed, intake=intake, clock=SkippingClock()) as (connection, _):
        feed.wait_for_streams()
        feed.publish(EVENT)
        feed.publish(OTHER)
        feed.wait_for(lambda: not feed.streams[0].is_open)
        first = feed.streams[0]
        assert isinstance(first, SocketStream)
        assert first.client_close == Close(1000, "")
        feed.wait_for(lambda: len(feed.streams) == 2)
        intake.wait_for(lambda: intake.ids == ["evt_1", "evt_2"])  # what had arrived is taken
        until(lambda: connection.status.phase is Phase.LIVE and not intake.gap_is_open)
        assert intake.gaps[:2] == ["not running", "the journal was full"]


def test_a_short_pause_keeps_the_stream(feed: Feed) -> None:
    intake = MemoryIntake()
    intake.full = 50
    with reading(feed, intake=intake, clock=SkippingClock()) as (_, _intake):
        feed.wait_for_streams()
        feed.publish(EVENT)
        intake.wait_for(lambda: intake.ids == ["evt_1"])
        feed.publish(OTHER)
        intake.wait_for(lambda: intake.ids == ["evt_1", "evt_2"])
    assert len(feed.streams) == 1


# The upgrade

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
SWITCHING = b"101 Switching Protocols\r\n"
ACCEPT = b"Sec-WebSocket-Accept: x\r\n"  # not what belongs to the request's key
UPGRADE_REQUIRED = b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [NOT_FOUND, UPGRADE_REQUIRED])
@pytest.mark.usefixtures("_hurried")
def test_a_proxy_that_drops_the_upgrade_is_said_with_what_to_do(answer: bytes) -> None:
    with (
        RawServer(answer) as server,
        reading(None, server.url, transport=WEBSOCKET) as (connection, _),
    ):
        until(lambda: connection.status.last_problem)
        assert "proxy_set_header Upgrade" in connection.status.last_problem
        assert "--feed_transport=sse" in connection.status.last_problem


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'404 Not Found\r\ncontent-length: 37\r\n\r\n{"message":"No route","code":"NOT_F"}', "No route"),
        (b"200 OK\r\ncontent-type: text/event-stream\r\n\r\n", "where a WebSocket was asked for"),
        (b"200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>", "not the event stream"),
        (SWITCHING + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "no WebSocket"),
        (SWITCHING + b"Upgrade: websocket\r\nConnection: Upgrade\r\n" + ACCEPT + b"\r\n", "no WebSocket"),
        (SWITCHING + b"Connection: Upgrade\r\n\r\n", "no WebSocket"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_hurried")
def test_what_is_no_websocket_is_an_ordinary_retry(answer: bytes, words: str) -> None:
    answer = b"HTTP/1.1 " + answer
    with (
        RawServer(answer) as server,
        reading(None, server.url, transport=WEBSOCKET) as (connection, intake),
    ):
        until(lambda: words in connection.status.last_problem)
        server.wait_for_requests(2)
        assert intake.gaps == ["not running"]
        assert connection.failure is None


# Against the library's own server


@pytest.fixture
def serving(_hurried: None) -> Iterator[Callable[[Callable[[ServerConnection], None]], str]]:
    """Start the library's server with a handler; returns its URL."""
    servers = []

    def start(handler: Callable[[ServerConnection], None], **options: Any) -> str:
        server = serve(handler, "127.0.0.1", 0, **options)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown()


def test_the_library_s_server_and_we_understand_each_other(serving: Any) -> None:
    """It offers compression, sends messages whole and in parts, pings, and checks what we send."""
    seen: dict[str, Any] = {}

    def handler(connection: ServerConnection) -> None:
        seen["headers"] = connection.request.headers if connection.request else None
        seen["extensions"] = connection.protocol.extensions
        for event in EVENTS:
            connection.send(event, text=True)
        connection.send([OTHER.decode()[:20], OTHER.decode()[20:]])
        seen["pong"] = connection.ping(b"there?").wait(5)
        seen["heard"] = connection.recv(timeout=5)
        try:
            connection.recv()
        except ConnectionClosed as closed:
            seen["closed"] = closed.rcvd

    url = serving(handler)
    with reading(None, url, transport=WEBSOCKET, types=("grant.revoked",)) as (_, intake):
        until(lambda: "heard" in seen)
        intake.wait_for(lambda: "evt_2" in intake.ids)
    until(lambda: "closed" in seen)
    assert seen["headers"]["Authorization"] == f"Bearer {PRACTICE_KEY}"
    assert "Sec-WebSocket-Extensions" not in seen["headers"]
    assert seen["extensions"] == []
    assert seen["pong"]
    assert json.loads(seen["heard"]) == {"types": ["grant.revoked"]}
    assert seen["closed"].code == 1000
    assert {event.type for event in intake.events} == {"grant.revoked"}


def test_it_takes_all_that_the_library_s_server_sends_at_once_before_it_closes(serving: Any) -> None:
    many = [b'{"id":"evt_%d"}' % number for number in range(20_000)]

    def handler(connection: ServerConnection) -> None:
        for each in many:
            connection.send(each, text=True)
        connection.close(1012, "restart")

    with reading(None, serving(handler), transport=WEBSOCKET) as (connection, intake):
        until(lambda: "1012 (service restart) restart" in connection.status.last_problem)
        assert [event.raw for event in intake.events[:20_000]] == many


# Both


@pytest.mark.usefixtures("_hurried")
def test_both_is_one_of_each_with_slots_of_their_own(tmp_path: Any) -> None:
    with Feed(SSE) as feed:
        feed.withhold_headers = False
        journal = open_journal(tmp_path)
        settings = FeedSettings(feed.url, LiteralSecret(PRACTICE_KEY), transport=BOTH)
        reader = FeedReader(settings, journal, connections=settings.connections(1), clock=HurriedClock())
        reader.start()
        feed.wait_for_streams(2)
        until(lambda: all(status.phase is Phase.LIVE for status in reader.statuses))
        feed.publish_many(EVENTS)
        until(lambda: journal.end == len(EVENTS))
        assert [isinstance(stream, SocketStream) for stream in feed.streams] == [False, True]
        assert (feed.slots.taken("dev_practice"), feed.socket_slots.taken("dev_practice")) == (1, 1)
        reader.stop()
        journal.close()


def test_both_take_turns() -> None:
    both = FeedSettings("http://feed.test", LiteralSecret("key"), transport=BOTH)
    assert [both.of(number).transport for number in range(4)] == [SSE, WEBSOCKET, SSE, WEBSOCKET]
    assert [both.connections(asked) for asked in (1, 2, 5)] == [2, 2, 5]
    assert SETTINGS.of(1) is SETTINGS
    assert SETTINGS.connections(1) == 1


def test_a_lost_websocket_is_no_gap_while_the_other_transport_hears(feed: Feed) -> None:
    intake = MemoryIntake()
    coverage = Coverage(intake, SystemClock())
    shared: dict[str, Any] = {"coverage": coverage, "intake": intake}
    with Feed(SSE) as other, reading(other, **shared), reading(feed, **shared):
        other.wait_for_streams()
        other.publish(EVENT)
        until(lambda: coverage.open == 2)
        feed.finish_streams(Close())
        feed.wait_for(lambda: len(feed.streams) == 2)
        assert intake.gaps == ["not running"]
