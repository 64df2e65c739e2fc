"""What practice servers that take events over HTTP share: listening, faults, counting, a command line."""

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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType, TracebackType
from typing import Literal, NamedTuple, TypeVar

from transforms.write.over_http.connection import interrupt

Reset = Literal["", "before", "during", "after"]


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    reset: the connection is reset "before" the request is read, "during" its body, or "after" it was
        taken and before the answer.
    status, body, headers: answered instead of judging the request; nothing is taken.
    garbage: taken as usual and answered with this instead of the service's own words.
    cut_answer: taken, and the connection ends behind the status line and half of the body.
    path: only a request whose path ends like this has it; the others pass by.
    """

    reset: Reset = ""
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    garbage: bytes = b""
    cut_answer: bool = False
    path: str = ""


class FaultCommands:
    """The commands that make a practice server faulty; faults of one request queue up.

    With `path`, the fault is for the next requests whose path ends like this, whatever comes in between.
    """

    def __init__(self) -> None:
        self.seconds_late = 0.0
        self._faults: deque[Fault] = deque()
        self._choosing = threading.Lock()
        self._released = threading.Event()
        self._released.set()
        self._hang_seconds: float | None = None

    def next_fault(self, path: str) -> Fault:
        """The fault of the request for `path` that has just begun."""
        with self._choosing:
            for fault in self._faults:
                if path.endswith(fault.path):
                    self._faults.remove(fault)
                    return fault
        return Fault()

    def hold(self) -> None:
        """Block a request while the server hangs."""
        self._released.wait(self._hang_seconds)

    def hang(self, seconds: float | None = None) -> None:
        """Requests are read and then wait, each `seconds` or until `release`."""
        self._hang_seconds = seconds
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def slow(self, seconds: float) -> None:
        """Each answer comes `seconds` late."""
        self.seconds_late = seconds

    def reset(self, when: Reset, times: int = 1, path: str = "") -> None:
        """Reset the next connections "before" reading the request, "during" or "after" taking it."""
        self._add(Fault(reset=when, path=path), times)

    def answer(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        times: int = 1,
        path: str = "",
    ) -> None:
        """Answer the next requests with this and take nothing."""
        self._add(Fault(status=status, body=body, headers=tuple((headers or {}).items()), path=path), times)

    def garbage(self, body: bytes = b"<html>", times: int = 1, path: str = "") -> None:
        """Take the next requests, but answer with this body."""
        self._add(Fault(garbage=body, path=path), times)

    def cut_answer(self, times: int = 1, path: str = "") -> None:
        """Take the next requests and end the connection in the middle of the answer's body."""
        self._add(Fault(cut_answer=True, path=path), times)

    def _add(self, fault: Fault, times: int) -> None:
        with self._choosing:
            self._faults.extend([fault] * times)


MAX_HEAD = 64 * 1024
READ = 256 * 1024


class ResetNow(Exception):
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
            raise ResetNow
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


Server = TypeVar("Server", bound="PracticeServer")


class PracticeServer(FaultCommands):
    """A context manager that serves on `url` until it is left; what it serves says `judge`.

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
        super().__init__()
        self.ids: list[str] = []
        self.count = 0
        self.requests: list[Request] = []
        self.request_count = 0
        self.connection_count = 0
        self._keep_events, self._keep_ids = keep_events, keep_ids
        self._ids_file = (
            os.open(ids_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if ids_file else None
        )
        self._tls = tls
        self._port = port
        self._listener: socket.socket | None = None
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def judge(self, request: Request) -> Answer:
        """Take a request that has no fault of its own, or refuse it."""
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
        if self._ids_file is not None:
            os.close(self._ids_file)

    @property
    def url(self) -> str:
        """The service's root, the same after `down` and `up`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    # Faults on command

    def up(self) -> None:
        """Listen (again), on the same port."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def down(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._listener is not None:
            interrupt(self._listener)
            self._listener = None
        with self._changed:
            open_now = list(self._connections)
        for connection in open_now:
            interrupt(connection)

    # What arrived

    @property
    def repeats(self) -> int:
        """How many ids were taken more than once."""
        with self._changed:
            return sum(1 for times in Counter(self.ids).values() if times > 1)

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` events are taken."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` requests have been read completely."""
        with self._changed:
            return self._changed.wait_for(lambda: self.request_count >= count, timeout)

    # Serving

    def _start(self, target: object, argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), daemon=True, name="practice-server")  # type: ignore[arg-type]
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
        head = read_head(connection, rest)
        if head is None:
            return None
        fault = self.next_fault(head.path)
        if fault.reset == "before":
            cut(connection)
        request, rest = read_request(connection, head, half=fault.reset == "during")
        if fault.reset == "during":
            cut(connection)
        with self._changed:
            self.request_count += 1
            if self._keep_events:
                self.requests.append(request)
            self._changed.notify_all()
        self.hold()
        answer = Answer(fault.status, fault.body, fault.headers) if fault.status else self.judge(request)
        if self.seconds_late:
            time.sleep(self.seconds_late)
        if fault.reset == "after":
            cut(connection)
        body = fault.garbage or answer.body
        last = request.headers.get("connection", "").lower() == "close"
        headers = (*answer.headers, ("Connection", "Close")) if last else answer.headers
        sent = response(answer.status, body, headers)
        connection.sendall(sent[: -len(body) // 2] if fault.cut_answer else sent)
        return None if fault.cut_answer or last else rest

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
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    kept = {"keep_events": False, "keep_ids": False, "ids_file": given.ids}
    with make(given.port, given.key, **kept, **more) as server:
        print(json.dumps({"url": server.url}), flush=True)
        stop.wait()
    return 0
