"""What the benchmark's own servers sustain, so that nobody mistakes their limit for a side's."""

from __future__ import annotations

import socket
import time

from tests.benchmarks.events import events
from tests.benchmarks.feed_server import render
from tests.benchmarks.processes import server, stats


def feed_capacity(count: int, chunk_bytes: int) -> float:
    """Events a second that a reader gets that only reads."""
    missing = len(render(count, chunk_bytes))
    with (
        server("feed_server", f"--events={count}", f"--chunk_bytes={chunk_bytes}") as (port,),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.sendall(b"GET /v1/events/stream HTTP/1.1\r\nhost: feed\r\n\r\n")
        started = time.monotonic()
        while missing > 0:
            missing -= len(connection.recv(1 << 20))
        return count / (time.monotonic() - started)


def counting_capacity(count: int, max_events: int) -> float:
    """Events a second that one connection can hand over, a request after the other."""
    envelopes = [b'{"event":' + raw + b',"source":"grantex"}' for raw in events(max_events)]
    body = b"\n".join(envelopes)
    request = b"POST / HTTP/1.1\r\nhost: hec\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with (
        server("counting_server") as (port,),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        started = time.monotonic()
        for _ in range(count // max_events):
            connection.sendall(request)
            connection.recv(65_536)
        return float(stats(port)["most"]) / (time.monotonic() - started)
