"""One connection to us: its request, its answer, and the bounds that waitress has not for them.

Waitress parses requests, keeps slow clients off the threads that answer, and bounds a head and a body. What
its source (3.0.2) shows to be missing, and is closed here:

- What frames a chunked body (lengths, extensions, trailers) is kept and searched again with each read.
- Two statements about a body's length, a length of 5,000 digits, an IPv6 address that is none: either taken,
  or an exception that ends the connection with a line in the log. Here all of them are 400.
- After `Expect: 100-continue` a body is read although it was refused.
- It closes with unread bytes in the socket, which resets the connection: the client may never see its 413.
- Urgent data (MSG_OOB) is reported again and again, with a line in the log each time.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import Task
from waitress.utilities import BadRequest, RequestEntityTooLarge

if TYPE_CHECKING:
    from pipelines.local.listener import Loop

REQUEST_SECONDS = 10.0  # for a client to send its request and to read the answer, in all
LINGER_SECONDS = 2.0  # for a client to read an answer that came before its request had ended
MAX_HEAD = 32 * 1024  # bytes: a browser sends the cookies of everything that ever ran on localhost
MAX_FRAMING = 64 * 1024  # bytes of a chunked body that are not its content
RECEIVE = 16 * 1024

PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. headers: names in capitals with `_` for `-`, several of one name joined by ", ".

    host: whom it was sent to, None when it does not say. began: when its client connected, monotonic seconds.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: str
    began: float
    host: str | None = None
    query: str = ""


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    content_type: str = PLAIN
    headers: tuple[tuple[str, str], ...] = ()


class Parser(HTTPRequestParser):
    """A request as it comes in; `error` once it is refused."""

    error: Any
    leaves_rest = False  # whether its client may have sent more than was read

    def received(self, data: bytes) -> int:
        taken = len(data)
        try:
            taken = int(super().received(data))
            self.error = self.error or self._fault()
        except Exception:  # noqa: BLE001 - int() of 5,000 digits, urlsplit of "http://[": whatever it is
            self.error = BadRequest("this is no HTTP request")
        if self.error is not None:
            self.completed, self.expect_continue = True, False
        if not self.completed or self.empty:  # behind an empty line comes the request
            return taken
        self.leaves_rest = self.error is not None or taken < len(data)
        return len(data)  # what comes behind a request is nobody's

    def _fault(self) -> Any:
        """What the parser lets pass."""
        if "TRANSFER_ENCODING" in self.headers:  # it takes it out where it counts
            return BadRequest("Transfer-Encoding belongs to HTTP/1.1")
        if self.body_rcv is None:
            return None
        if self.chunked and "CONTENT_LENGTH" in self.headers and not self.completed:
            return BadRequest("Content-Length and Transfer-Encoding contradict each other")
        if max(self.content_length, len(self.body_rcv)) > self.adj.max_request_body_size - MAX_FRAMING:
            return RequestEntityTooLarge("too large")
        if self.body_bytes_received - len(self.body_rcv) > MAX_FRAMING:
            return BadRequest("the body's chunks are too small, or what is around them too large")
        return None


class Answering(Task):
    """Answers one request."""

    def execute(self) -> None:
        channel = self.channel
        answer = channel.at_once or channel.server.answer_to(channel.asked)
        phrase = HTTPStatus(answer.status).phrase
        self.status = f"{answer.status} {phrase}"
        self.response_headers = [("Content-Type", answer.content_type), *answer.headers]
        self.content_length = len(answer.body)
        self.request.headers.pop("CONNECTION", None)
        self.set_close_on_finish()
        head: bytes = self.build_response_header()
        self.wrote_header = True
        is_head = getattr(self.request, "command", "") == "HEAD"
        channel.write_soon(head if is_head else head + answer.body)


class Channel(HTTPChannel):
    """One connection."""

    close_when_flushed: bool
    parser_class = Parser
    task_class = error_task_class = Answering

    def __init__(self, server: Loop, sock: socket.socket, address: Any, settings: Any) -> None:
        self.began = server.monotonic()
        self.ends = self.began + REQUEST_SECONDS
        self.asked: Request | None = None
        self.at_once: Answer | None = None
        self.leaves_rest = False
        self._dropped = 0
        self._lingers = False
        super().__init__(server, sock, address, settings, map=server._map)

    @property
    def client(self) -> str:
        """Whose it is."""
        return str(self.addr[0])

    @property
    def is_unasked(self) -> bool:
        """Whether its request has not come whole, so that nothing was answered."""
        return not (self.requests or self.close_when_flushed or self._lingers or self.total_outbufs_len)

    def readable(self) -> bool:
        return self._lingers or bool(super().readable())

    def handle_read(self) -> None:
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self.request is not None and self.is_unasked:
                self.server.refused("malformed", self.client)
            self.handle_close()
        elif not self._lingers:
            self.received(data)
        else:
            self._dropped += len(data)
            if self._dropped > self.server.max_dropped:
                self.handle_close()

    def handle_write(self) -> None:
        if self.will_close or not self.close_when_flushed or not self.leaves_rest:
            super().handle_write()
            return
        self.close_when_flushed = False  # which would close with unread bytes in the socket
        super().handle_write()
        if self.connected and not self.will_close:
            if self.total_outbufs_len:
                self.close_when_flushed = True
            else:
                self._linger()

    def _linger(self) -> None:
        """The answer is out: say so, and wait for the client to have read it."""
        self._lingers = True
        self.ends = min(self.ends, self.server.monotonic() + LINGER_SECONDS)
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.handle_close()

    def handle_expt(self) -> None:
        """Urgent data, which is no part of HTTP, and would be reported again and again."""
        self.handle_close()

    def handle_error(self) -> None:
        self.server.report("a connection failed")
        self.handle_close()
