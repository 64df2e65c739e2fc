"""The HTTP server of all practice services: it listens, reads requests and answers, faulty on command."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType, TracebackType
from typing import NamedTuple, TypeVar

from pipelines.practice.faults import Fault, FaultCommands
from transforms.write.over_http.sockets import interrupt

MAX_HEAD = 64 * 1024
READ = 256 * 1024


class ResetNow(Exception):
    """The connection was reset on purpose."""


@dataclass(slots=True)
class Request:
    """A request as it was sent, header names in lower case; `status`: what it was answered, 0 until then."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""
    status: int = 0

    @property
    def target(self) -> str:
        """Path and query as the request line had them."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


# Has the connection to itself until it returns: None ends the connection, an answer is sent as any other.
TakeOver = Callable[[socket.socket], "Answer | None"]


def read_head(connection: socket.socket, rest: bytes) -> tuple[Request, bytes] | None:
    """The next request without its body, and what was read behind its head; None at the end of the
    connection (or of patience with what is no HTTP)."""
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
    return Request(words[0], path, headers, b"", query), data[end + 4 :]


def read_body(connection: socket.socket, request: Request, rest: bytes, half: bool = False) -> bytes:
    """Complete `request` with its body, or half of it; what was read behind it."""
    length = int(request.headers.get("content-length", "0"))
    wanted = length // 2 if half else length
    if request.headers.get("expect", "").lower() == "100-continue" and not rest:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts, size = [rest], len(rest)
    while size < wanted:
        more = connection.recv(READ)
        if not more:
            raise ResetNow
        parts.append(more)
        size += len(more)
    data = b"".join(parts)
    request.body = data[:length]
    return data[length:]


def response(status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The bytes of an answer. A 204 has no body and does not speak of one (RFC 9110, 8.6)."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    kind = "application/json; charset=UTF-8" if body[:1] == b"{" else "text/html"
    if body.startswith(b"<?xml"):
        kind = "application/xml"
    given = [f"{name}: {value}" for name, value in headers]
    lines = [f"HTTP/1.1 {status} {phrase}", *given]
    if not any(line.lower().startswith("content-type:") for line in given):
        lines.append(f"Content-Type: {kind}")
    if status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


Server = TypeVar("Server", bound="HttpServer")


class HttpServer(FaultCommands):
    """A context manager that serves on `url` until it is left; what it serves says `judge`.

    port: 0 takes a free one, which is then kept. keep_requests: keep what was asked in `requests`, in order.
    """

    def __init__(
        self, port: int = 0, *, tls: ssl.SSLContext | None = None, keep_requests: bool = True
    ) -> None:
        super().__init__()
        self.port = port
        self.requests: list[Request] = []
        self.request_count = 0
        self.connection_count = 0
        self._keep_requests = keep_requests
        self._tls = tls
        self._listener: socket.socket | None = None
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def judge(self, request: Request) -> Answer | TakeOver:
        """Answer a request that has no fault of its own, or say who takes its connection over: a stream, or
        another protocol."""
        raise NotImplementedError

    # Life

    def __enter__(self: Server) -> Server:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self.down()
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        """The service's root, the same after `down` and `up`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    # Faults on command

    def up(self) -> None:
        """Listen (again), on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def refuse_connections(self) -> None:
        """Stop listening; connections that are open go on."""
        if self._listener is not None:
            interrupt(self._listener)
            self._listener = None

    def down(self) -> None:
        """Refuse connections and cut those that are open."""
        self.refuse_connections()
        with self._changed:
            open_now = list(self._connections)
        for connection in open_now:
            interrupt(connection)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` requests have been read completely."""
        with self._changed:
            return self._changed.wait_for(lambda: self.request_count >= count, timeout)

    # Serving

    def _start(self, target: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), daemon=True, name="practice-server")
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    self._connections.add(connection)
                    self.connection_count += 1
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        plain = connection
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._changed:
                    self._connections.add(connection)
            with contextlib.suppress(OSError, ResetNow), connection:
                rest = b""
                while (found := self._answer_one(connection, rest)) is not None:
                    rest = found
        except OSError:
            pass  # a handshake that failed: the client does not trust us
        finally:
            plain.close()
            with self._changed:
                self._connections -= {plain, connection}

    def _answer_one(self, connection: socket.socket, rest: bytes) -> bytes | None:
        """Serve one request; what was read behind it, or None at the end of the connection."""
        found = read_head(connection, rest)
        if found is None:
            return None
        request, rest = found
        fault = self.next_fault(request.path)
        if fault.reset == "before":
            cut(connection)
        rest = read_body(connection, request, rest, half=fault.reset == "during")
        if fault.reset == "during":
            cut(connection)
        with self._changed:
            self.request_count += 1
            if self._keep_requests:
                self.requests.append(request)
            self._changed.notify_all()
        self.hold()
        answer = Answer(fault.status, fault.body, fault.headers) if fault.status else self.judge(request)
        if self.seconds_late:
            time.sleep(self.seconds_late)
        if fault.reset == "after":
            cut(connection)
        if not isinstance(answer, Answer):
            taken_over = answer(connection)
            if taken_over is None:
                return None
            answer = taken_over
        return rest if self._send(connection, request, fault, answer) else None

    def _send(self, connection: socket.socket, request: Request, fault: Fault, answer: Answer) -> bool:
        """Whether the connection may be used again."""
        body = fault.garbage or answer.body
        last = request.headers.get("connection", "").lower() == "close"
        headers = (*answer.headers, ("Connection", "Close")) if last else answer.headers
        sent = response(answer.status, body, headers)
        self._note(request, answer.status)
        connection.sendall(sent[: -len(body) // 2] if fault.cut_answer else sent)
        return not (fault.cut_answer or last)

    def _note(self, request: Request, status: int) -> None:
        """Tell who waits what `request` is answered."""
        with self._changed:
            request.status = status
            self._changed.notify_all()


class PracticeServer(HttpServer):
    """One that takes events.

    keep_events: keep what arrives in `events` and `requests`; keep_ids: keep ids in order in `ids` (without
    either, memory stays flat and only `count` is known). ids_file: append each id taken, one a line, before
    the reply is sent.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        ids_file: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, tls=tls, keep_requests=keep_events)
        self.ids: list[str] = []
        self.count = 0
        self._keep_events, self._keep_ids = keep_events, keep_ids
        self._ids_file = (
            os.open(ids_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if ids_file else None
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._ids_file is not None:
            os.close(self._ids_file)

    @property
    def repeats(self) -> int:
        """How many ids were taken more than once."""
        with self._changed:
            return sum(1 for times in Counter(self.ids).values() if times > 1)

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` events are taken."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, timeout)

    def taken(self, ids: Sequence[str]) -> None:
        """Count and remember what was taken, before the reply says so."""
        with self._changed:
            if self._ids_file is not None and ids:
                os.write(self._ids_file, "".join(f"{event_id}\n" for event_id in ids).encode())
            self.count += len(ids)
            if self._keep_ids:
                self.ids += ids
            self._changed.notify_all()


def cut(connection: socket.socket) -> None:
    """Reset instead of an orderly end: lingering for 0 s is how TCP is told so."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
    raise ResetNow


def command(
    description: str,
    key: str,
    default: str,
    make: Callable[..., PracticeServer],
    arguments: Sequence[str] | None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Serve until SIGTERM or SIGINT; one JSON line with the url says that it is ready.

    key: the name of the option, and of `make`'s argument, with which a request proves itself. options:
    names and meanings of further arguments of `make` that are numbers.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(f"--{key}", dest="key", default=default)
    parser.add_argument("--ids", help="append the id of each event taken to this file")
    for name, meaning in options.items():
        parser.add_argument(f"--{name}", type=float, default=argparse.SUPPRESS, help=meaning)
    given = parser.parse_args(arguments)
    more = {name: vars(given)[name] for name in options if name in given}
    kept = {"keep_events": False, "keep_ids": False, "ids_file": given.ids}
    stop = told_to_stop()
    with make(given.port, given.key, **kept, **more) as server:
        print(json.dumps({"url": server.url}), flush=True)
        stop.wait()
    return 0


def told_to_stop() -> threading.Event:
    """Set at SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
