"""A practice Splunk: HEC over plain or TLS HTTP/1.1 on loopback, faithful in its answers, faulty on command.

As a program of its own: `python -m pipelines.local.practice.splunk --port P [--token T] [--ids FILE]`.
"""

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
from collections.abc import Sequence
from types import TracebackType

from pipelines.local.practice.hec import Answer, Indexed, judge, judge_token, unpack
from pipelines.local.practice.splunk_faults import Fault, FaultCommands
from pipelines.local.practice.splunk_http import Request, read_head, read_request, response
from pipelines.local.practice.splunk_http import Reset as ResetNow

TOKEN = "practice-hec-token"  # noqa: S105 (of a practice server on loopback)
MAX_BODY = 800 * 1024 * 1024  # Splunk Enterprise's default `max_content_length`
EVENT_PATHS = ("/services/collector/event", "/services/collector", "/services/collector/event/1.0")


class PracticeSplunk(FaultCommands):
    """A context manager that serves HEC on `url` until it is left.

    keep_events: keep what was indexed in `events`; keep_ids: keep ids in order in `ids` (without either,
    memory stays flat and only `count` is known). ids_file: append each indexed id, one a line, before the
    reply is sent.
    """

    def __init__(
        self,
        port: int = 0,
        token: str = TOKEN,
        indexes: Sequence[str] = ("main",),
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        ids_file: str | None = None,
        max_body: int = MAX_BODY,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        self.token = token
        self.disabled = False
        self.indexes = set(indexes)
        self.max_body = max_body
        self.events: list[Indexed] = []
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

    # Life

    def __enter__(self) -> PracticeSplunk:
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
        """HEC's root, the same after `down` and `up`."""
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

    def rotate(self, token: str) -> None:
        """From now on only `token` is good."""
        self.token = token

    # What arrived

    @property
    def repeats(self) -> int:
        """How many ids were indexed more than once."""
        with self._changed:
            return sum(1 for times in Counter(self.ids).values() if times > 1)

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` events are indexed."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` requests have been read completely."""
        with self._changed:
            return self._changed.wait_for(lambda: self.request_count >= count, timeout)

    # Serving

    def _start(self, target: object, argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), daemon=True, name="practice-splunk")  # type: ignore[arg-type]
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
        fault = self.next_fault()
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
        status, body = self._judge(request, fault)
        if self.seconds_late:
            time.sleep(self.seconds_late)
        if fault.reset == "after":
            cut(connection)
        answer = response(status, body, fault.headers)
        connection.sendall(answer[: -len(body) // 2] if fault.cut_answer else answer)
        return None if fault.cut_answer else rest

    def _judge(self, request: Request, fault: Fault) -> tuple[int, bytes]:
        if fault.status:
            return fault.status, fault.body
        if request.path.startswith("/services/collector/health"):
            healthy = Answer(18 if self.busy_code else 17)  # never looks at the token
            return healthy.status, healthy.body
        if request.path not in EVENT_PATHS or request.method != "POST":
            return 404, b'{"text":"The requested URL was not found on this server.","code":404}'
        answer = judge_token(request.headers.get("authorization"), self.token, self.disabled)
        if answer is None and self.busy_code:
            answer = Answer(self.busy_code)
        if answer is not None:
            return answer.status, answer.body
        if len(request.body) > self.max_body:
            return 413, b"Content-Length of %d too large" % len(request.body)
        body = unpack(request.body, request.headers.get("content-encoding", ""))
        if body is None:
            return 415, b"Unsupported Media Type"
        if len(body) > self.max_body:
            return 413, b"Content-Length of %d too large" % len(body)
        indexed, answer = judge(body, self.indexes)
        self._index(indexed)
        return answer.status, fault.garbage or answer.body

    def _index(self, indexed: Sequence[Indexed]) -> None:
        ids = [one.event_id for one in indexed]
        with self._changed:
            if self._ids_file is not None and ids:
                os.write(self._ids_file, "".join(f"{event_id}\n" for event_id in ids).encode())
            self.count += len(ids)
            if self._keep_ids:
                self.ids += ids
            if self._keep_events:
                self.events += indexed
            self._changed.notify_all()


def cut(connection: socket.socket) -> None:
    """Reset instead of an orderly end: lingering for 0 s is how TCP is told so."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
    raise ResetNow


def interrupt(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; one JSON line with the url says that it is ready."""
    parser = argparse.ArgumentParser(description="A practice Splunk HEC on loopback.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--ids", help="append each indexed event id to this file")
    given = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with PracticeSplunk(
        given.port, given.token, keep_events=False, keep_ids=False, ids_file=given.ids
    ) as server:
        print(json.dumps({"url": server.url}), flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
