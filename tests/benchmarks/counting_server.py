"""Destinations in a process of their own: they count the events of HEC-like requests and do little else.

Prints its ports as the first line, one a destination. Any `GET` answers the figures of all of them as JSON
(`stats`), times in CLOCK_MONOTONIC, which is the same for every process of a machine. With --record, when
each event arrived at that port: when its request had been read whole.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO, cast

from isal import igzip

SUCCESS = b'{"text":"Success","code":0}'
# Once in every HEC object, whatever order its keys have and whether newlines part the objects or nothing
# does; a search for it costs less than a parse.
EVENT = b'"event":{"id":"'
EVENT_ID = re.compile(rb'"event":\{"id":"([^"]+)"')


class Destination:
    """The figures of one port."""

    def __init__(self, record: bool) -> None:
        self.record = record
        self.lock = threading.Lock()
        self.events = self.requests = self.bytes = 0
        self.first = self.last = 0.0
        self.arrived: dict[str, float] = {}

    def count(self, body: bytes, gzipped: bool) -> None:
        """Take one request's body into the figures."""
        now = time.monotonic()
        plain = igzip.decompress(body) if gzipped else body
        found = plain.count(EVENT)
        with self.lock:
            self.requests += 1
            self.bytes += len(body)
            if not found:  # a preflight posts an empty body
                return
            self.events += found
            self.first = self.first or now
            self.last = now
            if self.record:
                for event_id in EVENT_ID.findall(plain):
                    self.arrived.setdefault(event_id.decode(), now)

    def stats(self, everyone: Sequence[Destination]) -> bytes:
        """JSON: `events` and `most` that a destination has had, the one that had fewest and the one that had
        most; `requests` and `bytes` of all; when all had their `first`, and the `last` event of any."""
        events = [each.events for each in everyone]
        figures: dict[str, object] = {
            "events": min(events),
            "most": max(events),
            "requests": sum(each.requests for each in everyone),
            "bytes": sum(each.bytes for each in everyone),
            "first": max(each.first for each in everyone),
            "last": max(each.last for each in everyone),
        }
        with self.lock:
            return json.dumps({**figures, "arrived": self.arrived}).encode()

    def serve(self, connection: socket.socket, everyone: Sequence[Destination]) -> None:
        """Answer the requests of one connection."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb", buffering=262_144) as stream:
            try:
                while request := read_request(cast(BinaryIO, stream)):
                    method, body, gzipped = request
                    if method == b"POST":
                        self.count(body, gzipped)
                    connection.sendall(answer(SUCCESS if method == b"POST" else self.stats(everyone)))
            except (BrokenPipeError, ConnectionResetError):
                return


def read_request(stream: BinaryIO) -> tuple[bytes, bytes, bool] | None:
    """Method, body and whether it is gzip; None at the end of the connection."""
    method = stream.readline().partition(b" ")[0]
    if not method:
        return None
    length, gzipped = 0, False
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"content-encoding":
            gzipped = value.strip() == b"gzip"
    return method, stream.read(length), gzipped


def answer(body: bytes) -> bytes:
    """A whole 200 with JSON."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def listen(listener: socket.socket, destination: Destination, everyone: Sequence[Destination]) -> None:
    """Accept for one destination until the process is ended."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=destination.serve, args=(connection, everyone), daemon=True).start()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--destinations", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="remember when each event arrived")
    arguments = parser.parse_args()
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(arguments.destinations)]
    everyone = [Destination(arguments.record) for _ in listeners]
    threads = [
        threading.Thread(target=listen, args=(listener, destination, everyone))
        for listener, destination in zip(listeners, everyone, strict=True)
    ]
    for thread in threads:
        thread.start()
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)


if __name__ == "__main__":
    main()
