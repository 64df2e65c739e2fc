"""A feed in a process of its own: sends pre-rendered events as fast as they are read, or at a pace.

Prints its port as the first line. `GET /stats` answers JSON: when the stream was asked for (`asked`,
CLOCK_MONOTONIC, the same for every process of a machine), how much was sent, and with --record when each
event left.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import threading
import time

from websockets.utils import accept_key

from pipelines.practice.feed_websocket import PING, frame
from tests.benchmarks.events import events

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n"
)
SOCKET_HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n\r\n"
)
KEEPALIVE = b": keepalive\n\n"
KEEPALIVE_EVERY = 30.0  # seconds, as the service does
SEND_AT_ONCE = 262_144  # bytes handed to the kernel in one call


class Feed:
    """What is sent, at which pace, and what became of it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.asked = 0.0
        self.sent = 0
        self.left: dict[str, float] = {}
        # Rendered before anybody connects; a paced feed may be endless and renders as it goes.
        self.wire = b""
        if not arguments.spacing:
            given = (arguments.events, arguments.chunk_bytes, arguments.transport, arguments.event_bytes)
            self.wire = render(*given)

    def stats(self) -> bytes:
        """The figures as JSON."""
        return json.dumps({"asked": self.asked, "sent": self.sent, "left": self.left}).encode()

    def stream(self, connection: socket.socket, head: bytes, keepalive: bytes) -> None:
        """Serve one stream until the reader goes."""
        connection.sendall(head)
        self.asked = time.monotonic()
        if self.arguments.spacing:
            self.paced(connection)
        else:
            view = memoryview(self.wire)
            for start in range(0, len(view), SEND_AT_ONCE):
                connection.sendall(view[start : start + SEND_AT_ONCE])
            self.sent = self.arguments.events
        while True:
            time.sleep(KEEPALIVE_EVERY)
            connection.sendall(keepalive)

    def paced(self, connection: socket.socket) -> None:
        """One event at a time, `spacing` seconds apart on average."""
        chance = random.Random(7)
        due = time.monotonic() + self.arguments.delay
        for raw in events(self.arguments.events):
            time.sleep(max(0.0, due - time.monotonic()))
            if self.arguments.record:
                self.left[raw[7:37].decode()] = time.monotonic()  # {"id":"evt_<26 characters>"
            connection.sendall(chunk(b"data: " + raw + b"\n\n"))
            self.sent += 1
            spacing = self.arguments.spacing
            due += chance.uniform(0, 2 * spacing) if self.arguments.random else spacing

    def serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as lines:
            try:
                while request := lines.readline():
                    key = b""
                    while (line := lines.readline()) not in (b"\r\n", b""):
                        if line.lower().startswith(b"sec-websocket-key:"):
                            key = line.split()[1]
                    path = request.split()[1].partition(b"?")[0]
                    if path == b"/v1/events/stream":
                        self.stream(connection, STREAM_HEAD, chunk(KEEPALIVE))
                    if path == b"/v1/events/ws":
                        head = SOCKET_HEAD % accept_key(key.decode()).encode()
                        self.stream(connection, head, PING)
                    body = self.stats() if path == b"/stats" else b'{"developerId":"dev_bench"}'
                    connection.sendall(answer(body))
            except (BrokenPipeError, ConnectionResetError):
                return


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP's chunked encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body: bytes) -> bytes:
    """A whole 200 with JSON."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def render(count: int, chunk_bytes: int, transport: str = "sse", size: int = 0) -> bytes:
    """The events as they go over the wire: as messages of a WebSocket, or in HTTP chunks of `chunk_bytes`
    that end anywhere.

    With `chunk_bytes` 0 each event is a chunk, as the service itself writes; anything between it and a
    reader (a proxy, a load balancer) makes bigger ones.
    """
    if transport == "websocket":
        return b"".join(frame(raw) for raw in events(count, size))
    frames = [b"data: " + raw + b"\n\n" for raw in events(count, size)]
    if not chunk_bytes:
        return b"".join(chunk(frame) for frame in frames)
    whole = b"".join(frames)
    return b"".join(chunk(whole[at : at + chunk_bytes]) for at in range(0, len(whole), chunk_bytes))


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--chunk_bytes", type=int, default=65_536, help="0: one event a chunk")
    parser.add_argument("--event_bytes", type=int, default=0, help="0: as they usually are")
    parser.add_argument("--transport", choices=("sse", "websocket"), default="sse", help="what is rendered")
    parser.add_argument("--spacing", type=float, default=0.0, help="seconds between events; 0: no pause")
    parser.add_argument("--random", action="store_true", help="spacing varies between 0 and twice as much")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the first paced event")
    parser.add_argument("--record", action="store_true", help="remember when each event left")
    feed = Feed(parser.parse_args())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=feed.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
