"""The fault proxy for framed protocols: frames pass whole, and faults hit requests alone."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.servers.kafka_frames import NOT_ENOUGH_REPLICAS, KafkaFrames, refusal
from tests.servers.tcp_proxy import Http2Frames, TcpFaultProxy, frames

PRODUCE, METADATA = 0, 3


def kafka_frame(key: int, number: int, body: bytes = b"records") -> bytes:
    inside = struct.pack(">hhi", key, 8, number) + body
    return struct.pack(">i", len(inside)) + inside


class Broker:
    """Answers each frame with its correlation id, and remembers what it has read whole."""

    def __init__(self) -> None:
        self.read: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            for frame in frames(connection, KafkaFrames()):
                self.read.append(frame)
                connection.sendall(struct.pack(">i", 12) + frame[8:12] + b"answered")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    running = Broker()
    yield running
    running.close()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[TcpFaultProxy]:
    with TcpFaultProxy(broker.port, KafkaFrames()) as running:
        yield running


class Client:
    def __init__(self, proxy: TcpFaultProxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=2.0)

    def ask(self, frame: bytes) -> bytes:
        self.socket.sendall(frame)
        return self.answer()

    def answer(self) -> bytes:
        """The next answer; b"" at the end of the connection. Raises ConnectionResetError, TimeoutError."""
        return next(frames(self.socket, KafkaFrames()), b"")


@pytest.fixture
def client(proxy: TcpFaultProxy) -> Iterator[Client]:
    made = Client(proxy)
    yield made
    made.socket.close()


def test_frames_pass_unchanged_however_they_are_cut(client: Client, broker: Broker) -> None:
    frame = kafka_frame(PRODUCE, 1, bytes(range(256)) * 4000)
    for start in range(0, len(frame), 100_000):
        client.socket.sendall(frame[start : start + 100_000])
    assert client.answer()[4:8] == frame[8:12]
    assert broker.read == [frame]


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_reset_keeps_the_request_from_the_service(
    proxy: TcpFaultProxy, client: Client, broker: Broker, when: str
) -> None:
    proxy.reset(when)  # type: ignore[arg-type]
    assert client.ask(kafka_frame(METADATA, 1)), "only requests with events are hit"
    with pytest.raises(ConnectionResetError):
        client.ask(kafka_frame(PRODUCE, 2))
    assert len(broker.read) == 1
    assert Client(proxy).ask(kafka_frame(PRODUCE, 3))


def test_a_reset_after_the_request_hides_its_answer_only(
    proxy: TcpFaultProxy, client: Client, broker: Broker
) -> None:
    proxy.reset("after")
    client.socket.sendall(kafka_frame(METADATA, 1) + kafka_frame(PRODUCE, 2))
    assert client.answer()[4:8] == struct.pack(">i", 1)
    with pytest.raises(ConnectionResetError):
        client.answer()
    assert len(broker.read) == 2


def test_a_cut_answer_ends_in_its_middle(proxy: TcpFaultProxy, client: Client) -> None:
    proxy.cut_answer()
    client.socket.sendall(kafka_frame(PRODUCE, 1))
    got = b""
    while more := client.socket.recv(100):
        got += more
    assert got == (struct.pack(">i", 12) + struct.pack(">i", 1) + b"answered")[:8]


def test_what_hangs_goes_on_when_it_is_calm(proxy: TcpFaultProxy, client: Client, broker: Broker) -> None:
    proxy.hang()
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.ask(kafka_frame(PRODUCE, 1))
    assert broker.read == []
    proxy.calm()
    client.socket.settimeout(2.0)
    assert client.answer()
    assert len(broker.read) == 1


def test_what_is_swallowed_never_arrives(proxy: TcpFaultProxy, client: Client, broker: Broker) -> None:
    proxy.swallow()
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.ask(kafka_frame(PRODUCE, 1))
    proxy.calm()
    assert Client(proxy).ask(kafka_frame(PRODUCE, 2))
    assert [frame[8:12] for frame in broker.read] == [struct.pack(">i", 2)]


def test_down_cuts_and_refuses_and_up_serves_on_the_same_port(
    proxy: TcpFaultProxy, client: Client, broker: Broker
) -> None:
    assert client.ask(kafka_frame(PRODUCE, 1))
    port = proxy.port
    proxy.down()
    with contextlib.suppress(ConnectionError):
        assert client.ask(kafka_frame(PRODUCE, 2)) == b"", "the end of the connection"
    with pytest.raises(ConnectionRefusedError):
        Client(proxy)
    proxy.up()
    assert proxy.port == port
    assert Client(proxy).ask(kafka_frame(PRODUCE, 3))


def test_a_refusal_in_the_brokers_place(proxy: TcpFaultProxy, client: Client, broker: Broker) -> None:
    proxy.refuse = refusal
    frame = produce_8(topic=b"events", partitions=[0, 2])
    answer = client.ask(frame)
    assert answer[4:8] == frame[8:12]
    topics, size = struct.unpack(">ih", answer[8:14])
    assert (topics, answer[14 : 14 + size]) == (1, b"events")
    assert struct.unpack(">i", answer[20:24]) == (2,)
    each = struct.calcsize(">ihqqqih")
    found = [struct.unpack_from(">ihqqqih", answer, 24 + each * n) for n in range(2)]
    assert [(one[0], one[1], one[2]) for one in found] == [
        (0, NOT_ENOUGH_REPLICAS, -1),
        (2, NOT_ENOUGH_REPLICAS, -1),
    ]
    assert answer[24 + 2 * each :] == struct.pack(">i", 0)
    assert broker.read == []


def produce_8(topic: bytes, partitions: list[int]) -> bytes:
    """A produce request of version 8, before lengths became variable."""
    body = struct.pack(">h4shhi", 4, b"test", -1, -1, 30_000)
    body += struct.pack(">ih", 1, len(topic)) + topic + struct.pack(">i", len(partitions))
    for partition in partitions:
        body += struct.pack(">ii", partition, 5) + b"batch"
    return kafka_frame(PRODUCE, 77, body)


def test_http2_frames_are_told_apart() -> None:
    framing = Http2Frames()
    assert framing.size(Http2Frames.PREFACE + b"more") == 24
    data = (400).to_bytes(3, "big") + b"\0\0" + (5).to_bytes(4, "big") + bytes(400)
    assert framing.size(data[:5]) is None
    assert framing.size(data) == len(data)
    assert framing.is_request(data)
    assert not framing.is_request(Http2Frames.PREFACE)
    assert not framing.is_request((5).to_bytes(3, "big") + b"\0\0" + bytes(9)), "too small for events"
    headers = data[:3] + b"\x01" + data[4:]
    assert not framing.is_request(headers)
    assert framing.answers(data[:20], data)
    assert not framing.answers(headers, data)
