"""The HTTP server of status page and webhook receiver: waitress, and the bounds that it does not have.

Waitress parses requests, keeps slow clients off the threads that answer, and bounds a head and a body. What
its source (3.0.2) shows to be missing, and is closed here:

- A connection lasts for as long as a byte comes now and then, and past `connection_limit` nobody is let in.
  Here each has its time in all, and one too many ends the oldest that is not being answered.
- Bodies go to a temporary file past 512 KiB, and a read-only root has no place for one. Here they stay in
  memory: `max_body` for each of `connections` is the most that strangers can make us hold.
- What frames a chunked body (lengths, extensions, trailers) is kept and searched again with each read.
- Two statements about a body's length, a length of 5,000 digits, an IPv6 address that is none: either taken,
  or an exception that ends the connection with a line in the log. Here all of them are 400.
- After `Expect: 100-continue` a body is read although it was refused. Urgent data (MSG_OOB), and a process
  without free descriptors, make its loop spin, with a line in the log each turn.
- It closes with unread bytes in the socket, which resets the connection: the client may never see its 413.
- Its ages are the wall clock's.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import Task, ThreadedTaskDispatcher
from waitress.utilities import BadRequest, RequestEntityTooLarge

from transforms.reminder import Reminder

log = logging.getLogger("grantex.http")
# What it says of each odd client is counted or answered here; a stranger could fill a disk with it.
logging.getLogger("waitress").setLevel(logging.CRITICAL)

REQUEST_SECONDS = 10.0  # for a client to send its request and to read the answer, in all
LINGER_SECONDS = 2.0  # for a client to read an answer that came before its request had ended
MAX_HEAD = 32 * 1024  # bytes: a browser sends the cookies of everything that ever ran on localhost
MAX_FRAMING = 64 * 1024  # bytes of a chunked body that are not its content
LOOK_SECONDS = 0.5  # how soon a time-out is noticed
ACCEPT_PAUSE = 1.0  # seconds without new connections when the process has no descriptor left
RECEIVE = 64 * 1024
# What only a person mends: another port, another address, more rights.
BAD_ADDRESS = {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

PLAIN = "text/plain; charset=utf-8"


class PortTaken(Exception):
    """Nobody may listen on this address; only a person can mend it."""


class ListenFailed(Exception):
    """Listening failed for a reason that passes, such as a process without free descriptors."""


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


class Listener:
    """Answers each connection's one request, in threads of its own, until it is closed."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[Request], Answer],
        *,
        name: str,
        max_body: int,
        connections: int,
        threads: int,
        refused: Callable[[str, str], None] = lambda why, client: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind to `host` and `port` (0: any free one). Raises PortTaken and ListenFailed.

        answer: called in one of `threads` threads. refused: told why a request never got that far ("slow",
        "too_large", "malformed", "busy"), and by whom; it must not block.
        """
        bound = _bound(host, port)
        self._dispatcher = ThreadedTaskDispatcher()
        # One request a connection: nothing hides behind it, and no idle connection is closed by us while a
        # sender is using it again.
        settings = Adjustments(
            sockets=[bound],
            ident="grantex-beam",
            max_request_header_size=MAX_HEAD,
            max_request_body_size=max_body + MAX_FRAMING,
            inbuf_overflow=2 * (max_body + MAX_FRAMING),
            outbuf_overflow=2**30,
        )
        self._server = _Server(bound, settings, self._dispatcher)
        self._server.limits(max_body, connections, monotonic)
        self._server.answer, self._server.refused = answer, refused
        self._threads = threads
        self._is_closed = False
        self._thread = threading.Thread(target=self._server.serve, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.effective_port)

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return str(self._server.effective_host)

    def start(self) -> None:
        """Begin to answer; until then connections wait."""
        self._dispatcher.set_thread_count(self._threads)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections, finish the answers under way, and cut the rest."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._thread.ident is None:
            self._server.release()
            return
        self._server.trigger.pull_trigger(self._server.stop_accepting)
        self._dispatcher.shutdown()
        self._server.trigger.pull_trigger(self._server.end)
        self._thread.join()
        if not self._dispatcher.threads:  # else one may still write to the pipe that wakes the loop
            self._server.release()


def _bound(host: str, port: int) -> socket.socket:
    """Raises PortTaken and ListenFailed."""
    bound = None
    try:
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)
    except (OSError, OverflowError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        why = _why_not(host, port, error)
        if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
            raise (PortTaken if error.errno in BAD_ADDRESS else ListenFailed)(why) from error
        raise PortTaken(why) from error
    return bound


def _why_not(host: str, port: int, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {port} is taken on {host}: another process listens there"
    return f"{host}:{port} cannot be listened on ({getattr(error, 'strerror', None) or error})"


class _Parser(HTTPRequestParser):
    """A request as it comes in; `error` once it is refused."""

    error: Any

    def received(self, data: bytes) -> int:
        taken = len(data)
        try:
            taken = int(super().received(data))
            self.error = self.error or self._fault()
        except Exception:  # noqa: BLE001 - int() of 5,000 digits, urlsplit of "http://[": whatever it is
            self.error = BadRequest("this is no HTTP request")
        if self.error is not None:
            self.completed, self.expect_continue = True, False
        # What comes behind a request is nobody's; behind an empty line comes the request.
        return len(data) if self.completed and not self.empty else taken

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


class _Task(Task):
    """Answers one request."""

    def execute(self) -> None:
        answer = self.channel.server.judge(self.request, self.channel)
        phrase = HTTPStatus(answer.status).phrase
        self.status = f"{answer.status} {phrase}"
        self.response_headers = [("Content-Type", answer.content_type), *answer.headers]
        self.content_length = len(answer.body)
        self.request.headers.pop("CONNECTION", None)
        self.set_close_on_finish()
        head: bytes = self.build_response_header()
        self.wrote_header = True
        is_head = getattr(self.request, "command", "") == "HEAD"
        self.channel.write_soon(head if is_head else head + answer.body)


class _Channel(HTTPChannel):
    """One connection."""

    close_when_flushed: bool
    parser_class = _Parser
    task_class = error_task_class = _Task

    def __init__(self, server: _Server, sock: socket.socket, address: Any, settings: Any) -> None:
        self.began = server.monotonic()
        self.ends = self.began + REQUEST_SECONDS
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
        if self.will_close or not self.close_when_flushed:
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


class _Server(TcpWSGIServer):
    """The loop: accepts, reads and writes, and ends what has had its time."""

    answer: Callable[[Request], Answer]
    refused: Callable[[str, str], None]

    def __init__(self, bound: socket.socket, settings: Any, dispatcher: ThreadedTaskDispatcher) -> None:
        self.limits(0, 0, time.monotonic)
        self._trouble = Reminder()
        self._is_over = False
        where = (bound.family, bound.type, bound.proto, bound.getsockname())
        super().__init__(
            None,  # no WSGI application: requests go to `answer`
            map={},
            _sock=bound,
            dispatcher=dispatcher,
            adj=settings,
            sockinfo=where,
            bind_socket=False,
        )

    def limits(self, max_body: int, connections: int, monotonic: Callable[[], float]) -> None:
        """What strangers may take up."""
        self.monotonic = monotonic
        self._connections = connections
        self.max_body = max_body
        self.max_dropped = 16 * max(max_body, RECEIVE)
        self._accept_from = -math.inf

    def serve(self) -> None:
        """Until `end` is called."""
        while not self._is_over:
            # Not while the loop collects descriptors: a new connection may get the number of one that is cut,
            # and with it what is reported of that one.
            now = self.monotonic()
            for channel in list(self.active_channels.values()):
                if channel.ends <= now:
                    self._cut(channel)
            wasyncore.poll2(LOOK_SECONDS, self._map)

    def readable(self) -> bool:
        return bool(self.accepting) and self.monotonic() >= self._accept_from

    def handle_accept(self) -> None:
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._accept_from = self.monotonic() + ACCEPT_PAUSE
                self.report(f"no connection can be taken now ({error.strerror})")
            return
        if len(self.active_channels) >= self._connections and not self._make_room():
            self.refused("busy", str(address[0]))
            connection.close()
            return
        with contextlib.suppress(OSError):  # the client has left
            self.set_socket_options(connection)
        _Channel(self, connection, address, self.adj)

    def _make_room(self) -> bool:
        oldest = next((one for one in self.active_channels.values() if not one.requests), None)
        if oldest is not None:
            self._cut(oldest)
        return oldest is not None

    def _cut(self, channel: _Channel) -> None:
        if channel.is_unasked:
            self.refused("slow", channel.client)
        channel.handle_close()

    def judge(self, request: Any, channel: _Channel) -> Answer:
        """The answer to what was received, well or badly."""
        if request.error is not None:
            code, why = int(request.error.code), str(request.error.body)
            self.refused("too_large" if code in (413, 431) else "malformed", channel.client)
            most = {413: self.max_body, 431: MAX_HEAD}.get(code)
            return Answer(code, (f"at most {most} bytes here\n" if most else f"{why}\n").encode())
        whole = Request(
            method=request.command,
            path=request.path,
            headers=request.headers,
            body=request.get_body_stream().read(),
            client=channel.client,
            began=channel.began,
            host=request.proxy_netloc or request.headers.get("HOST"),
            query=request.query,
        )
        try:
            return self.answer(whole)
        except Exception:  # noqa: BLE001 - whatever it was, the next request is answered
            self.report("a request could not be answered")
            return Answer(500, b"this failed here; the log says why\n")

    def report(self, what: str) -> None:
        """Log a trouble of ours, but not at each request."""
        if self._trouble.is_due(what, self.monotonic()):
            log.warning("%s", what, exc_info=True)

    def stop_accepting(self) -> None:
        """In the loop's thread: others may have the port from now on."""
        wasyncore.dispatcher.close(self)

    def end(self) -> None:
        """In the loop's thread: cut whoever is left."""
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        self._is_over = True

    def release(self) -> None:
        """Close what is left open; nobody uses it any more."""
        self.trigger.close()
        if self.socket is not None:
            wasyncore.dispatcher.close(self)
