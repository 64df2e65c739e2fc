"""A fault proxy for protocols that are not HTTP/1.1: it finds their requests by the frames they come in.

Its faults are those of the practice servers (`pipelines.practice.faults`) that need no words of the
protocol, and refusals that somebody else puts into words (`kafka_frames.py`; for gRPC, `grpc_proxy.py`).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

from pipelines.practice.faults import Fault, FaultCommands
from transforms.write.over_http.sockets import interrupt

READ = 256 * 1024
NO_REQUEST = b""


class Framing(Protocol):
    """How a protocol cuts its bytes, and which of its frames carry events."""

    def size(self, data: bytes) -> int | None:
        """The length of the frame that `data` begins with; None when more is needed to tell."""

    def is_request(self, frame: bytes) -> bool:
        """Whether this frame of the client carries events."""

    def answers(self, frame: bytes, request: bytes) -> bool:
        """Whether this frame of the service is the answer to `request`."""


class Http2Frames:
    """Length, type, flags and stream (RFC 9113, 4.1). Calls without events are told by their size."""

    PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    DATA = 0
    # CreateWriteStream and FinalizeWriteStream stay below, an append of a few events is above.
    SMALLEST = 300

    def size(self, data: bytes) -> int | None:
        if data[:3] == self.PREFACE[:3]:
            return len(self.PREFACE)
        return 9 + int.from_bytes(data[:3], "big") if len(data) >= 9 else None

    def is_request(self, frame: bytes) -> bool:
        return frame[:3] != self.PREFACE[:3] and frame[3] == self.DATA and len(frame) >= self.SMALLEST

    def answers(self, frame: bytes, request: bytes) -> bool:
        return frame[3] == self.DATA and frame[5:9] == request[5:9]


class TcpFaultProxy(FaultCommands):
    """A context manager that serves the service at `upstream` (a port of loopback) on `port`.

    refuse: makes the answer to a request that the service is not to see, until `calm`.
    """

    def __init__(self, upstream: int, framing: Framing, port: int = 0) -> None:
        super().__init__()
        self.port = port
        self._swallowing = False
        self.request_count = 0
        self.refuse: Callable[[bytes], bytes] | None = None
        self._upstream = upstream
        self._framing = framing
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> TcpFaultProxy:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self.release()

    def up(self) -> None:
        """Listen (again), on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        start(self._accept, self._listener)

    def down(self) -> None:
        """Refuse connections and cut those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            interrupt(listener)
        with self._lock:
            open_now = list(self._links)
        for link in open_now:
            link.cut()

    def swallow(self) -> None:
        """Frames in both directions are read and vanish, until `calm`."""
        self._swallowing = True

    def calm(self) -> None:
        """The end of `refuse`, of `hang`, and of `swallow`, which leaves connections that nobody can use."""
        self.refuse = None
        if self._swallowing:
            self.down()
            self._swallowing = False
            self.up()
        self.release()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    service = socket.create_connection(("127.0.0.1", self._upstream))
                except OSError:  # the service itself is down
                    client.close()
                    continue
                link = _Link(client, service)
                with self._lock:
                    self._links.add(link)
                start(self._pump_up, link)
                start(self._pump_down, link)

    def _pump_up(self, link: _Link) -> None:
        with contextlib.suppress(OSError), contextlib.closing(link):
            for frame in frames(link.client, self._framing):
                fault = self._fault_of(frame)
                if fault.reset in ("before", "during"):
                    link.service.sendall(frame[: len(frame) // 2] if fault.reset == "during" else b"")
                    link.cut()
                    return
                if fault.reset or fault.cut_answer:
                    link.fault, link.request = fault, frame
                self.hold()
                link.asked = link.asked or self._framing.is_request(frame)
                if self.refuse and self._framing.is_request(frame):
                    link.answer(self.refuse(frame))
                elif not self._swallowing:
                    link.service.sendall(frame)
        self._forget(link)

    def _pump_down(self, link: _Link) -> None:
        with contextlib.suppress(OSError), contextlib.closing(link):
            for frame in frames(link.service, self._framing):
                self.hold()
                if link.request and self._framing.answers(frame, link.request):
                    link.answer(frame[: len(frame) // 2] if link.fault.cut_answer else b"")
                    link.cut(orderly=link.fault.cut_answer)
                    return
                if self.seconds_late and link.asked:
                    link.asked = False  # an answer has several frames, and others come before it
                    time.sleep(self.seconds_late)
                if not self._swallowing:
                    link.answer(frame)
        self._forget(link)

    def _fault_of(self, frame: bytes) -> Fault:
        if not self._framing.is_request(frame):
            return Fault()
        with self._lock:
            self.request_count += 1
        return self.next_fault("")

    def _forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """A client's connection and ours to the service. `request` is the one whose answer will be spoilt;
    asked: there was a request since the last answer that was late."""

    def __init__(self, client: socket.socket, service: socket.socket) -> None:
        self.client, self.service = client, service
        self.fault, self.request = Fault(), NO_REQUEST
        self.asked = False
        self._answering = threading.Lock()
        for end in (client, service):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def answer(self, frame: bytes) -> None:
        """Send a whole frame to the client, from either thread."""
        with self._answering:
            self.client.sendall(frame)

    def cut(self, orderly: bool = False) -> None:
        """End both; the client sees a reset unless it is `orderly`."""
        if not orderly:
            with contextlib.suppress(OSError):  # lingering for 0 s is how TCP is told so
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        """Wake the other direction's thread, which holds its socket while it reads, and let go."""
        for end in (self.client, self.service):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)
            end.close()


def frames(connection: socket.socket, framing: Framing) -> Iterator[bytes]:
    """Whole frames, until the end of the connection. Raises OSError."""
    data = b""
    while True:
        size = framing.size(data)
        if size is not None and len(data) >= size:
            yield data[:size]
            data = data[size:]
            continue
        more = connection.recv(READ)
        if not more:
            return
        data += more


def start(target: object, argument: object) -> None:
    """A thread that ends with its connection."""
    threading.Thread(target=target, args=(argument,), daemon=True, name="fault-proxy").start()  # type: ignore[arg-type]
