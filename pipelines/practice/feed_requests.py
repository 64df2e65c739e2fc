"""Requests to the practice feed and its answers that are no streams."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs

from transforms.clock import Clock


@dataclass
class Request:
    """One request as it came in; `status` is what it was answered."""

    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    status: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def closes(self) -> bool:
        """Whether the client wants no further request on this connection."""
        return self.headers.get("connection", "").lower() == "close"

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass
class Answer:
    """An error, or any other short answer. `times`: how many requests get it."""

    status: int
    code: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    times: int = 1

    @staticmethod
    def json(status: int, value: object) -> Answer:
        return Answer(status, body=json.dumps(value).encode())

    def rendered(self, close: bool) -> bytes:
        """The bytes of the response."""
        body = self.body
        if body is None:
            error = {"message": self.message, "code": self.code, "requestId": "req-1"}
            body = b"" if self.status == 204 else json.dumps(error).encode()
        headers = {"content-type": "application/json; charset=utf-8", **self.headers}
        if self.status != 204:
            headers["content-length"] = str(len(body))
        headers["connection"] = "close" if close else "keep-alive"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n{lines}\r\n".encode() + body


def read_request(sock: socket.socket) -> Request | None:
    """The request's head; None when the client left or it is no HTTP."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = sock.recv(65536)
        if not block or len(data) > 65536:
            return None
        data += block
    first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    pairs = (line.partition(":") for line in lines)
    return Request(method, rest.rpartition(" ")[0], {name.lower(): value.strip() for name, _, value in pairs})


def types_of(query: str) -> frozenset[str] | None:
    """The service's reading of `types`: split at commas, compared exactly and untrimmed; empty is no
    filter. Raises ValueError for a repeated parameter, to which the service answers 500."""
    values = parse_qs(query, keep_blank_values=True).get("types", [""])
    if len(values) > 1:
        raise ValueError("repeated types")
    return frozenset(values[0].split(",")) if values[0] else None


LIMIT = 5
TTL = 300.0  # seconds


class Slots:
    """A counter per developer that lives 300 s from its last touch: every stream's keepalive and every
    refused attempt touches it, so slots of a crashed server linger for as long as anybody asks."""

    def __init__(self, clock: Clock, limit: int = LIMIT, ttl: float = TTL) -> None:
        self._clock = clock
        self._limit = limit
        self._ttl = ttl
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, float]] = {}

    def acquire(self, developer: str) -> bool:
        """Take a slot; False when all are taken."""
        with self._lock:
            taken = self._taken(developer)
            granted = taken < self._limit
            self._counts[developer] = (taken + granted, self._clock.monotonic() + self._ttl)
            return granted

    def touch(self, developer: str) -> None:
        """A live stream's keepalive: everything counted lives on."""
        with self._lock:
            self._counts[developer] = (self._taken(developer), self._clock.monotonic() + self._ttl)

    def release(self, developer: str) -> None:
        """A stream ended while the server was there to notice."""
        with self._lock:
            taken = self._taken(developer)
            self._counts[developer] = (max(0, taken - 1), self._clock.monotonic() + self._ttl)

    def taken(self, developer: str) -> int:
        """Slots counted now, dead ones included."""
        with self._lock:
            return self._taken(developer)

    def _taken(self, developer: str) -> int:
        count, until = self._counts.get(developer, (0, 0.0))
        return count if self._clock.monotonic() < until else 0
