"""One HTTP/1.1 request and its reply on an open socket: what httpx costs most for is left out.

A reply is read as RFC 9112 says (sections 4 to 7). Errors are httpx's, so that whoever judges them sees one
vocabulary: WriteTimeout means that the request was not sent in full, everything else that it may have been.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import httpx

# BigQuery's insertAll names every row it refuses, some 300 bytes each of 50,000 at most; cut, such a reply
# would say nothing. All others are a line of JSON.
MAX_REPLY = 16 * 1024 * 1024
MAX_LINE = 16 * 1024
MAX_HEADERS = 200
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)\b")
_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered. `body` is cut at MAX_REPLY, and short when the connection broke in it.
    `again` says whether the connection can carry another request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    again: bool = True


def send(connection: socket.socket, request: bytes) -> None:
    """Send a whole request; the connection's time-out is for each part that makes no progress.

    A peer that has closed its end is no error yet: its reply may be waiting (a 413 comes like that).
    Raises httpx.WriteTimeout, WriteError.
    """
    left = memoryview(request)
    try:
        while left:
            left = left[connection.send(left) :]
    except TimeoutError as error:
        raise httpx.WriteTimeout("the request could not be sent in time") from error
    except (BrokenPipeError, ConnectionResetError):
        return
    except OSError as error:
        raise httpx.WriteError(str(error)) from error


def receive(stream: BinaryIO) -> Reply:
    """Read one reply. Raises httpx.TransportError when no status line and headers came: what follows
    them may be missing, as the status has said it all."""
    try:
        version, status, headers = _head(stream)
    except TimeoutError as error:
        raise httpx.ReadTimeout("no answer in time") from error
    except OSError as error:
        raise httpx.ReadError(str(error)) from error
    body, whole = bytearray(), False
    with contextlib.suppress(OSError, ValueError):
        whole = _body(stream, status, headers, body)
    asked_to_close = "close" in headers.get("connection", "").lower()
    again = whole and version == b"1" and not asked_to_close and len(body) <= MAX_REPLY
    return Reply(status, headers, bytes(body[:MAX_REPLY]), again)


def _head(stream: BinaryIO) -> tuple[bytes, int, httpx.Headers]:
    """HTTP/1's minor version, the final status (those of 1xx come before it) and the headers."""
    while True:
        line = stream.readline(MAX_LINE)
        if not line:
            raise httpx.RemoteProtocolError("the connection was closed without an answer")
        found = _STATUS.match(line)
        if found is None:
            raise httpx.RemoteProtocolError("the answer is not HTTP/1.1")
        headers = _headers(stream)
        status = int(found[2])
        if status >= 200:
            return found[1], status, headers


def _headers(stream: BinaryIO) -> httpx.Headers:
    pairs: list[tuple[bytes, bytes]] = []
    while (line := stream.readline(MAX_LINE)) not in (b"\r\n", b"\n"):
        if not line.endswith(b"\n") or len(pairs) >= MAX_HEADERS:
            raise httpx.RemoteProtocolError("the headers of the answer are cut or too long")
        name, _, value = line.partition(b":")
        pairs.append((name.strip(), value.strip()))
    return httpx.Headers(pairs)


def _body(stream: BinaryIO, status: int, headers: httpx.Headers, into: bytearray) -> bool:
    """Read the body into `into`, at most a little more than MAX_REPLY; True when all of it was read.

    Raises OSError, and ValueError for chunks that are none.
    """
    if status in _NO_BODY:
        return True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _chunks(stream, into)
    length = headers.get("content-length")
    if length is None:  # it ends with the connection
        into += stream.read(MAX_REPLY + 1)
        return False
    wanted = int(length)
    into += stream.read(min(wanted, MAX_REPLY + 1))
    return len(into) == wanted


def _chunks(stream: BinaryIO, into: bytearray) -> bool:
    while len(into) <= MAX_REPLY:
        size = int(stream.readline(MAX_LINE).partition(b";")[0], 16)
        if size == 0:
            while (line := stream.readline(MAX_LINE)).strip():  # trailers
                pass
            return bool(line)
        into += stream.read(min(size, MAX_REPLY + 1))
        if stream.readline(MAX_LINE).strip():
            return False  # the chunk was longer than is read here
    return False
