"""The practice feed over a WebSocket, as the service has it: nothing says that it has subscribed."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from websockets.exceptions import InvalidState
from websockets.frames import Opcode
from websockets.protocol import SERVER, Protocol
from websockets.utils import accept_key

from pipelines.practice.feed_stream import Close, Finish, Prepared, Stream
from pipelines.practice.http_server import Answer, Request

SOCKET = "/v1/events/ws"
PING = b"\x89\0"
CLOSING_SECONDS = 1.0  # for the client to answer a close frame


class _Filter(msgspec.Struct):
    types: list[str]


_filter = msgspec.json.Decoder(_Filter).decode


def upgraded(request: Request) -> bytes | Answer:
    """The 101; or the 404 with nothing in it that a request without `Upgrade` gets."""
    key = request.headers.get("sec-websocket-key", "")
    if request.method != "GET" or request.headers.get("upgrade", "").lower() != "websocket" or not key:
        return Answer(404, b"")
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    return "\r\n".join((*lines, f"Sec-WebSocket-Accept: {accept_key(key)}", "", "")).encode()


def frame(event: bytes) -> bytes:
    """One text frame, of any size, as a server sends it."""
    size = len(event)
    if size < 126:
        return struct.pack("!BB", 0x81, size) + event
    if size < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, size) + event
    return struct.pack("!BBQ", 0x81, 127, size) + event


class SocketStream(Stream):
    """An open WebSocket. `received_pings`: how many pings of the client were answered; `filters`: what it
    has asked for and was heard, in order."""

    keepalive = PING

    def __init__(
        self,
        developer: str,
        headers: Mapping[str, str],
        sock: socket.socket,
        changed: threading.Condition,
        answers: Callable[[], bool],
    ) -> None:
        super().__init__(developer, None, headers, sock, has_sent_headers=True)
        self.received_pings = 0
        self.filters: list[frozenset[str]] = []
        self.client_close: Close | None = None
        self._protocol = Protocol(SERVER, max_size=None)
        self._listens = False
        self._changed, self._answers = changed, answers

    def subscribe(self, seconds: float) -> None:
        """Take so long over it. What is published meanwhile does not come, and a filter that is sent
        meanwhile is lost."""
        time.sleep(seconds)
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        while poll.poll(0) and self.received(self.sock.recv(4096)):
            pass
        self._listens = True

    def rendered(self, events: Sequence[bytes], prepared: Prepared, per_chunk: int) -> bytes:
        return b"".join([frame(event) for event in events])

    def framed(self, event: bytes) -> bytes:
        return frame(event)

    def raw(self, data: bytes) -> bytes:
        return data

    def received(self, data: bytes) -> bool:
        """Pings are answered at once, filters heeded unless they came too early; all else is ignored."""
        if not data:
            return False
        self._protocol.receive_data(data)
        for each in self._protocol.events_received():
            kind = getattr(each, "opcode", None)
            self.received_pings += kind is Opcode.PING
            if kind is Opcode.TEXT and self._listens:
                with contextlib.suppress(msgspec.MsgspecError):
                    self.types = frozenset(_filter(bytes(each.data)).types)  # type: ignore[union-attr]
                    self.filters.append(self.types)
        self._flush()
        with self._changed:
            self._changed.notify_all()
        closed = self._protocol.close_rcvd
        if closed is not None:
            self.client_close = Close(closed.code, closed.reason)
        return closed is None

    def finish(self, how: Finish | Close) -> None:
        """END is a close frame without a code."""
        if how is Finish.END:
            how = Close()
        if isinstance(how, Close):
            self._close(how)
        else:
            super().finish(how)

    def _close(self, how: Close) -> None:
        with contextlib.suppress(InvalidState):  # the client was first
            self._protocol.send_close(how.code, how.reason)
        self._flush()
        self.sock.settimeout(CLOSING_SECONDS)
        with contextlib.suppress(OSError):
            while self.received(self.sock.recv(4096)):
                pass

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and self._answers():
                self.sock.sendall(data)
