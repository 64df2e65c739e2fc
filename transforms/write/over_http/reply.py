"""A reply of HTTP/1.1, read as RFC 9112 says and within bounds.

http.client was tried for its head and left: it takes 0.06 ms of CPU a reply, four times what all of a reply
takes here, and believes much that a connection which is used again must not: lengths such as "+5" and "1_0",
the first of two that differ, a line without a colon (which hides the headers behind it), endless 1xx replies.
Each line would have to be looked at a second time. tests/.../test_reply_against_h11.py compares with h11.

Errors are httpx's, so that whoever judges them sees one vocabulary.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

# BigQuery's insertAll names every row it refuses, some 300 bytes each of 50,000 at most; cut, such a reply
# would say nothing. All others are a line of JSON.
MAX_REPLY = 16 * 1024 * 1024
# Lines of a head with all 1xx before it, and of a body's chunks and trailers: 16 MiB in chunks of 100 bytes.
MAX_HEAD = 256 * 1024
MAX_KNOWN = 8 * 1024  # of a head that is kept for the next reply
MAX_LINES = 1024 * 1024
# A receiver with full queues may sit on a request for a while before it says "busy", and each time-out is a
# possible repeat: 30 s without a byte is what load balancers in front of such services give it (AWS: 60 s,
# nginx: 60 s). All of a reply has twice that, however it drips.
READ_SECONDS = 30.0
REPLY_SECONDS = 60.0
PART = 64 * 1024
NO_BODY = (204, 304)

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00\r\n]*)?\r?\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)\r?\n")
_FOLDED = re.compile(rb"[ \t]+([^\x00\r\n]*)\r?\n")  # RFC 9112, 5.2: still allowed, from long ago
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered. `body` is cut at MAX_REPLY, and short when the connection broke in it.
    `again` says whether the connection can carry another request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    again: bool = True


Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Head:
    """What the bytes of a head say. length: of the body, None for one that ends with the connection."""

    status: int
    headers: httpx.Headers
    is_chunked: bool
    length: int | None
    may_stay: bool  # as far as the head says, the connection can carry another request


class Incoming:
    """What comes in on a connection.

    seconds: how long a reply may take, whatever comes meanwhile; REPLY_SECONDS unless given.
    """

    def __init__(
        self,
        connection: socket.socket,
        seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self._monotonic = monotonic
        self._buffer = bytearray()
        self._until = 0.0
        self._lines_left = 0
        self._read: list[bytes] | None = None  # lines of a head
        # The head before: most services repeat it to the byte, and to read it takes most of a reply's time.
        self._known: tuple[bytes, _Head] | None = None

    @property
    def rest(self) -> bool:
        """Whether more came than was read."""
        return bool(self._buffer)

    def expect_head(self) -> None:
        """The time and the bytes that one reply may take are counted from here."""
        self._until = self._monotonic() + (self._seconds or REPLY_SECONDS)
        self._lines_left = MAX_HEAD
        self._read = []

    def known_head(self) -> _Head | None:
        """The head of the reply before, when this one begins with the same bytes; they are read then. Raises
        OSError."""
        if self._known is None or not (self._buffer or self._more()):
            return None
        text, head = self._known
        if not self._buffer.startswith(text):
            return None
        del self._buffer[: len(text)]
        return head

    def remember(self, head: _Head) -> None:
        """What has been read since `expect_head` is this head."""
        text = b"".join(self._read or ())
        self._known = (text, head) if len(text) <= MAX_KNOWN else None

    def expect_body(self) -> None:
        """From here on lines belong to the framing of a body."""
        self._lines_left = MAX_LINES
        self._read = None

    def readline(self) -> bytes:
        """A line with its end; less at the end of the connection. Raises httpx.RemoteProtocolError when a
        reply has too many, and OSError."""
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if start >= self._lines_left or not self._more():
                end = start - 1
                break
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if self._read is not None:
            self._read.append(line)
        self._lines_left -= len(line)
        if self._lines_left < 0:
            raise httpx.RemoteProtocolError("the headers or chunks of the answer are too long")
        return line

    def read_into(self, body: bytearray, size: int) -> bool:
        """Read `size` bytes; False when the connection ended before. Raises OSError."""
        while size:
            if not self._buffer and not self._more():
                return False
            part = self._buffer[:size]
            del self._buffer[:size]
            body += part
            size -= len(part)
        return True

    def _more(self) -> bool:
        left = self._until - self._monotonic()
        if left <= 0:
            raise TimeoutError("the answer came too slowly")
        self._connection.settimeout(min(READ_SECONDS, left))
        part = self._connection.recv(PART)
        self._buffer += part
        return bool(part)


def receive(incoming: Incoming, method: str = "POST") -> Reply:
    """Read one reply. Raises httpx.TransportError when no status line and headers came, or no framing that
    can be trusted: what follows them may be missing, as the status has said it all."""
    incoming.expect_head()
    try:
        head = incoming.known_head() or _head(incoming)
    except TimeoutError as error:
        raise httpx.ReadTimeout("no answer in time") from error
    except OSError as error:
        raise httpx.ReadError(str(error)) from error
    chunked, length = head.is_chunked, head.length
    if head.status in NO_BODY or (method == "CONNECT" and head.status < 300):
        chunked, length = False, 0
    body, whole = bytearray(), False
    incoming.expect_body()
    with contextlib.suppress(OSError, httpx.RemoteProtocolError):
        if chunked:
            whole = _chunks(incoming, body)
        elif length is None:  # it ends with the connection
            incoming.read_into(body, MAX_REPLY)
        else:
            whole = incoming.read_into(body, min(length, MAX_REPLY)) and length <= MAX_REPLY
    again = whole and head.may_stay and not incoming.rest
    return Reply(head.status, head.headers, bytes(body), again)


def _head(incoming: Incoming) -> _Head:
    version, status, headers = _final(incoming)
    chunked, length = _framing(headers)
    both = chunked and length is not None  # RFC 9112, 6.1: somebody on the way may have read it otherwise
    asked_to_close = b"close" in [option.lower() for option in _listed(headers, b"connection")]
    may_stay = version == b"1" and not (both or asked_to_close)
    head = _Head(status, httpx.Headers(headers), chunked, length, may_stay)
    incoming.remember(head)
    return head


def _final(incoming: Incoming) -> tuple[bytes, int, Headers]:
    """HTTP/1's minor version, the final status (those of 1xx come before it) and the headers."""
    while True:
        line = incoming.readline()
        if not line:
            raise httpx.RemoteProtocolError("the connection was closed without an answer")
        found = _STATUS.fullmatch(line)
        if found is None:
            raise httpx.RemoteProtocolError("the answer is not HTTP/1.1")
        headers = _headers(incoming)
        status = int(found[2])
        if status == 101:
            raise httpx.RemoteProtocolError("the answer changes to a protocol that nobody asked for")
        if status >= 200:
            return found[1], status, headers


def _headers(incoming: Incoming) -> Headers:
    headers: Headers = []
    while (line := incoming.readline()) not in (b"\r\n", b"\n"):
        if found := _HEADER.fullmatch(line):
            headers.append((found[1], found[2].rstrip(b" \t")))
        elif headers and (found := _FOLDED.fullmatch(line)):
            name, value = headers[-1]
            headers[-1] = (name, value + b" " + found[1].rstrip(b" \t"))
        else:
            raise httpx.RemoteProtocolError("the headers of the answer are cut or malformed")
    return headers


def _framing(headers: Headers) -> tuple[bool, int | None]:
    """Whether the body is in chunks, and its length if that is said (RFC 9112, 6). Raises
    httpx.RemoteProtocolError for what could be read in two ways, or not at all."""
    codings = _listed(headers, b"transfer-encoding")
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise httpx.RemoteProtocolError("the answer has a transfer coding that nobody asked for")
    lengths = set(_listed(headers, b"content-length"))
    if not lengths:
        return bool(codings), None
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise httpx.RemoteProtocolError("the answer has a length that is none, or two")
    return bool(codings), int(length)


def _listed(headers: Headers, name: bytes) -> list[bytes]:
    """The parts between the commas of a header, or of several."""
    values = [value for each, value in headers if each.lower() == name]
    return [part.strip(b" \t") for value in values for part in value.split(b",")]


def _chunks(incoming: Incoming, body: bytearray) -> bool:
    """Read a body in chunks; False when it is cut, malformed or too long."""
    while (found := _CHUNK.fullmatch(incoming.readline())) is not None:
        size = int(found[1], 16)
        if size == 0:
            return _trailers(incoming)
        if not incoming.read_into(body, min(size, MAX_REPLY - len(body))) or len(body) >= MAX_REPLY:
            return False
        if incoming.readline() != b"\r\n":
            return False
    return False


def _trailers(incoming: Incoming) -> bool:
    while (line := incoming.readline()) != b"\r\n":
        if not _HEADER.fullmatch(line):
            return False
    return True
