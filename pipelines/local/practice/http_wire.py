"""As much of HTTP/1.1 as practice servers need, on raw sockets: kept alive, bodies of a known length."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

MAX_HEAD = 64 * 1024
READ = 256 * 1024


class Reset(Exception):
    """The connection was reset on purpose."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's first lines, header names in lower case; `rest` is what was read behind them."""

    method: str
    path: str
    headers: Mapping[str, str]
    rest: bytes
    query: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def read_head(connection: socket.socket, rest: bytes) -> Head | None:
    """The next request's head; None at the end of the connection (or of patience with what is no HTTP)."""
    data = rest
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = connection.recv(READ) if len(data) < MAX_HEAD else b""
        if not more:
            return None
        data += more
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    path, _, query = words[1].partition("?")
    return Head(words[0], path, headers, data[end + 4 :], query)


def read_request(connection: socket.socket, head: Head, half: bool = False) -> tuple[Request, bytes]:
    """The whole request and what was read behind it; only half of its body when `half`."""
    length = int(head.headers.get("content-length", "0"))
    wanted = length // 2 if half else length
    if head.headers.get("expect", "").lower() == "100-continue" and not head.rest:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts, size = [head.rest], len(head.rest)
    while size < wanted:
        more = connection.recv(READ)
        if not more:
            raise Reset
        parts.append(more)
        size += len(more)
    data = b"".join(parts)
    return Request(head.method, head.path, head.headers, data[:length], head.query), data[length:]


def response(status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The bytes of an answer."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    kind = "application/json; charset=UTF-8" if body[:1] == b"{" else "text/html"
    if body.startswith(b"<?xml"):
        kind = "application/xml"
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body
