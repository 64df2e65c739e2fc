"""The HTTP server of status page and webhook receiver: waitress, and the bounds that it does not have.

What its source (3.0.2) shows to be missing, and is closed here (what is one connection's, in `inbound.py`):

- A connection lasts for as long as a byte comes now and then, and past `connection_limit` nobody is let in.
  Here each has its time in all, and one too many ends the oldest that is not being answered.
- Bodies go to a temporary file past 512 KiB, and a read-only root has no place for one. Here they stay in
  memory: `max_body` for each of `connections` is the most that strangers can make us hold.
- Every request takes a thread. Here what costs nothing is answered in the loop.
- A process without free descriptors makes its loop spin, with a line in the log each turn.
- Its ages are the wall clock's.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from pipelines.local.inbound import MAX_FRAMING, MAX_HEAD, RECEIVE, Answer, Channel, Parser, Request
from transforms.reminder import Reminder

log = logging.getLogger("grantex.http")
# What it says of each odd client is counted or answered here; a stranger could fill a disk with it.
logging.getLogger("waitress").setLevel(logging.CRITICAL)

LOOK_SECONDS = 0.5  # how soon a time-out is noticed
# A turn of the loop asks each connection what it waits for, so a thousand strangers a second are cheaper
# together than one by one; 5 ms are nothing to a browser or to the service.
TURN_SECONDS = 0.005
ACCEPTED_A_TURN = 32
ACCEPT_PAUSE = 1.0  # seconds without new connections when the process has no descriptor left
# What only a person mends: another port, another address, more rights.
BAD_ADDRESS = {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
T = TypeVar("T")


class PortTaken(Exception):
    """Nobody may listen on this address; only a person can mend it."""


class ListenFailed(Exception):
    """Listening failed for a reason that passes, such as a process without free descriptors."""


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
        at_once: Callable[[Request], Answer | None] = lambda request: None,
        refused: Callable[[str, str], None] = lambda why, client: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind to `host` and `port` (0: any free one). Raises PortTaken and ListenFailed.

        at_once: asked first, for answers that cost nothing; it must not block. answer: called when that was
        None, in one of `threads` threads. refused: told why a request never got that far ("slow",
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
        self._server = Loop(
            bound,
            settings,
            self._dispatcher,
            answer=answer,
            at_once=at_once,
            refused=refused,
            max_body=max_body,
            connections=connections,
            monotonic=monotonic,
        )
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


class Loop(TcpWSGIServer):
    """The loop: accepts, reads and writes, and ends what has had its time."""

    def __init__(
        self,
        bound: socket.socket,
        settings: Any,
        dispatcher: ThreadedTaskDispatcher,
        *,
        answer: Callable[[Request], Answer],
        at_once: Callable[[Request], Answer | None],
        refused: Callable[[str, str], None],
        max_body: int,
        connections: int,
        monotonic: Callable[[], float],
    ) -> None:
        """max_body, connections: what strangers may take up; the others as for Listener."""
        self.answer, self.at_once, self.refused = answer, at_once, refused
        self.max_body, self.max_dropped = max_body, 16 * max(max_body, RECEIVE)
        self.monotonic = monotonic
        self._connections, self._accept_from = connections, -math.inf
        self._trouble = Reminder()
        self._is_over = self._has_callers = False
        self._whole: list[Channel] = []  # with a request that nobody has looked at yet
        self._loop = 0
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

    def serve(self) -> None:
        """Until `end` is called."""
        self._loop = threading.get_ident()
        while not self._is_over:
            self._turn()

    def _turn(self) -> None:
        """Connections come and go between two polls: what one has collected is told by descriptors, and a new
        connection may get that of one that was cut."""
        now = self.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.ends <= now:
                self._cut(channel)
        wasyncore.poll2(LOOK_SECONDS, self._map)
        if self._has_callers:
            self._has_callers = False
            for _ in range(ACCEPTED_A_TURN):
                if not self._accept_one():
                    break
        whole, self._whole = self._whole, []
        for channel in whole:
            self._begin(channel)
        if self.active_channels:
            time.sleep(TURN_SECONDS)

    def readable(self) -> bool:
        return bool(self.accepting) and self.monotonic() >= self._accept_from

    def handle_accept(self) -> None:
        self._has_callers = True

    def add_task(self, channel: Channel) -> None:
        """Called in the loop: its request is there."""
        self._whole.append(channel)

    def pull_trigger(self) -> None:
        """Wake the loop, unless it is what calls."""
        if threading.get_ident() != self._loop:
            super().pull_trigger()

    def _begin(self, channel: Channel) -> None:
        """Answer what costs nothing, and give the rest to a thread."""
        (request,) = channel.requests
        channel.leaves_rest = request.leaves_rest
        channel.at_once = (
            self._refusal(request, channel) if request.error else self._answer_at_once(request, channel)
        )
        if channel.at_once is None:
            self.task_dispatcher.add_task(channel)
            return
        channel.service()
        if channel.connected:
            channel.handle_write()

    def _accept_one(self) -> bool:
        """False when there is no other to accept."""
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._accept_from = self.monotonic() + ACCEPT_PAUSE
                self.report(f"no connection can be taken now ({error.strerror})")
            return False
        if len(self.active_channels) >= self._connections and not self._make_room():
            self.refused("busy", str(address[0]))
            connection.close()
            return True
        Channel(self, connection, address, self.adj)
        return True

    def _make_room(self) -> bool:
        oldest = next((one for one in self.active_channels.values() if not one.requests), None)
        if oldest is not None:
            self._cut(oldest)
        return oldest is not None

    def _cut(self, channel: Channel) -> None:
        if channel.is_unasked:
            self.refused("slow", channel.client)
        channel.handle_close()

    def _refusal(self, request: Parser, channel: Channel) -> Answer:
        """The answer to what is no request."""
        code, why = int(request.error.code), str(request.error.body)
        self.refused("too_large" if code in (413, 431) else "malformed", channel.client)
        most = {413: self.max_body, 431: MAX_HEAD}.get(code)
        return Answer(code, (f"at most {most} bytes here\n" if most else f"{why}\n").encode())

    def _answer_at_once(self, request: Parser, channel: Channel) -> Answer | None:
        channel.asked = Request(
            method=request.command,
            path=request.path,
            headers=request.headers,
            body=request.get_body_stream().read(),
            client=channel.client,
            began=channel.began,
            host=request.proxy_netloc or request.headers.get("HOST"),
            query=request.query,
        )
        return self._safely(self.at_once, channel.asked)

    def answer_to(self, request: Request) -> Answer:
        """In a thread."""
        return self._safely(self.answer, request)

    def _safely(self, ask: Callable[[Request], T], request: Request) -> T | Answer:
        try:
            return ask(request)
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
