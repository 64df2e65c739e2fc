"""HTTP destinations that hang, refuse and come back when a test says so, and know when each event arrived."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.failure import as_outcome, is_delivered, refused
from transforms.write.over_http.connection import HttpConnection

POLICY = BatchPolicy(max_events=1000, max_bytes=1_000_000, max_age=0.5)
EVENT = re.compile(rb'"id":"(evt_\d+)"[^\n]*?"at":([\d.]+)')


@dataclass
class Arrival:
    """One event's first arrival: when, and how long after it was made; epoch and seconds."""

    at: float
    lag: float


@dataclass
class Intake:
    """What one destination's server has seen, and what it does: "take", "hang", "refuse" or "forbid"."""

    mood: str = "take"
    arrived: dict[bytes, Arrival] = field(default_factory=dict)
    repeats: int = 0
    requests: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> int:
        """Judge one request; returns its status."""
        self.requests += 1
        if self.mood == "hang":
            self.released.wait(60.0)
        if self.mood != "take":
            return 403 if self.mood == "forbid" else 503
        now = time.time()
        for event_id, made in EVENT.findall(body):
            if event_id in self.arrived:
                self.repeats += 1
            else:
                self.arrived[event_id] = Arrival(now, now - float(made))
        return 200

    def turn(self, mood: str) -> None:
        """Do this from now on, also to those who hang."""
        self.mood = mood
        self.released.set()
        self.released = threading.Event()

    def worst_lag(self, start: float, end: float) -> float:
        """The longest that an event took which arrived between these times (epoch)."""
        return max(
            (one.lag for one in list(self.arrived.values()) if start <= one.at <= end), default=float("inf")
        )


class Server:
    """One loopback server; `POST /<name>` goes to the intake of that name."""

    def __init__(self, names: list[str]) -> None:
        self.intakes: Mapping[str, Intake] = {name: Intake() for name in names}
        intakes = self.intakes

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(intakes[self.path[1:]].take(body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        for intake in self.intakes.values():
            intake.released.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class ToIntake(Destination):
    """NDJSON to one of the intakes."""

    url: str
    name: str  # type: ignore[misc]
    policy: BatchPolicy = POLICY
    concurrency: int = 2

    def open(self) -> Writer:
        return _ToIntake(f"{self.url}/{self.name}")


class _ToIntake(Writer):
    def __init__(self, url: str) -> None:
        self._connection = HttpConnection(url, {})

    def write(self, batch: Batch) -> Outcome | None:
        try:
            reply = self._connection.post(b"\n".join([event.raw for event in batch.events]))
        except httpx.TransportError as error:
            return as_outcome(error, len(batch.events), "intake")
        if is_delivered(reply.status):
            return None
        return refused("intake", reply.status, reply.headers, len(batch.events), time.time())

    def close(self) -> None:
        self._connection.close()
