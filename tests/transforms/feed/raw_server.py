"""A server that answers with bytes a test wrote down, whatever they are, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType

Reply = bytes | Callable[[socket.socket], None]


class RawServer:
    """A context manager. `replies` are given to the stream's requests in order, the last one for ever;
    `account` to each `GET /v1/me`. A reply that is a function is called with the socket.

    requests: heads as they came, the stream's only.
    """

    def __init__(self, *replies: Reply, account: Reply = b"HTTP/1.1 404 Not Found\r\n\r\n") -> None:
        self.requests: list[bytes] = []
        self._replies = list(replies)
        self._account = account
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, timeout), self.requests

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            reply = self._account if head.startswith(b"GET /v1/me ") else self._next(head)
            if callable(reply):
                reply(client)
            else:
                client.sendall(reply)
                client.shutdown(socket.SHUT_WR)
                client.recv(65536)

    def _next(self, head: bytes) -> Reply:
        with self._changed:
            self.requests.append(head)
            self._changed.notify_all()
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


def event_stream(body: bytes, *headers: bytes) -> bytes:
    """A whole answer that is an event stream."""
    lines = b"".join(header + b"\r\n" for header in headers or (b"content-type: text/event-stream",))
    return b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n" + body


def received_at(client: socket.socket) -> float:
    """When the newest bytes came, by the clock of `time.monotonic`: the kernel noted it (tcp_info's
    tcpi_last_data_recv, in ms), however late a thread of a busy machine gets to look."""
    if not hasattr(socket, "TCP_INFO"):  # not Linux
        return time.monotonic()
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    ago: int = struct.unpack_from("=I", info, 52)[0]
    return time.monotonic() - ago / 1000
