"""One open stream of the practice feed: frames and the HTTP chunks they are sent in, at a rate, to an end."""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec


class _Head(msgspec.Struct, gc=False):
    id: str = ""
    type: str = ""


_decode = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True)
class Prepared:
    """Events with (id, type) read and their bytes rendered, to be published at full speed."""

    heads: list[tuple[str, str]]
    events: list[bytes]
    data: bytes


def prepare(events: Iterable[bytes], events_per_chunk: int = 1) -> Prepared:
    """Render `events` as frames in HTTP chunks; the real service writes one event per chunk."""
    kept = list(events)
    return Prepared([_head(event) for event in kept], kept, render(kept, events_per_chunk))


def render(events: Sequence[bytes], per_chunk: int) -> bytes:
    """Frames of `events`, `per_chunk` of them in an HTTP chunk."""
    if per_chunk == 1:
        return b"".join([b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event) for event in events])
    groups = (events[start : start + per_chunk] for start in range(0, len(events), per_chunk))
    return b"".join([chunk(b"data: " + b"\n\ndata: ".join(group) + b"\n\n") for group in groups])


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(event: bytes) -> tuple[str, str]:
    try:
        head = _decode(event)
    except (msgspec.MsgspecError, RecursionError):
        return "", ""
    return head.id, head.type


TICK = 0.01  # seconds; a hundred small bursts a second are steady enough


def at_rate(
    publish: Callable[[Prepared], object],
    rate: float,
    events: Iterator[bytes],
    stop: threading.Event,
    count: int | None = None,
    events_per_chunk: int = 1,
) -> None:
    """Publish `rate` events a second until `stop` is set or `count` events are out."""
    started, done = time.monotonic(), 0
    while (count is None or done < count) and not stop.wait(TICK):
        due = int((time.monotonic() - started) * rate) - done
        if count is not None:
            due = min(due, count - done)
        if due > 0:
            publish(prepare(islice(events, due), events_per_chunk))
            done += due


HEADERS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n"
)
KEEPALIVE = b"d\r\n: keepalive\n\n\r\n"
CONNECTED = b"d\r\n: connected\n\n\r\n"


class Finish(enum.Enum):
    """How the server ends a stream."""

    END = "the terminating chunk, then EOF"
    CUT = "EOF without the terminating chunk, as after SIGKILL or a proxy's cut"
    RESET = "TCP reset"


@dataclass(frozen=True)
class Close:
    """A WebSocket's close frame; without a code, as at the service's end."""

    code: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Piece:
    """Bytes for the socket, already in HTTP chunks or WebSocket frames, and the event ids that are in them.

    drip: seconds between the bytes when they are to be sent one by one; 0 sends them together.
    """

    data: bytes
    ids: Sequence[str] = ()
    drip: float = 0.0


@dataclass(eq=False)
class Stream:
    """An open stream. `sent_ids` are the events whose bytes went into its socket, in order."""

    developer: str
    types: frozenset[str] | None
    headers: Mapping[str, str]
    sock: socket.socket = field(repr=False)
    sent_ids: list[str] = field(default_factory=list, repr=False)
    has_sent_headers: bool = False
    is_open: bool = True
    leaks_slot: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: list[Piece | Finish | Close] = []
        self._wake_out, self._wake_in = socket.socketpair()

    def put(self, item: Piece | Finish | Close) -> None:
        """Send `item` after everything put before it."""
        with self._lock:
            self._queue.append(item)
            if len(self._queue) == 1 and self.is_open:
                self._wake_in.send(b"w")

    keepalive = KEEPALIVE

    def rendered(self, events: Sequence[bytes], prepared: Prepared, per_chunk: int) -> bytes:
        """`events`, all or some of the prepared ones, as they go out here."""
        return prepared.data if len(events) == len(prepared.events) else render(events, per_chunk)

    def framed(self, event: bytes) -> bytes:
        """One event as it comes out of HTTP at the other side."""
        return b"data: " + event + b"\n\n"

    def raw(self, data: bytes) -> bytes:
        """Any bytes, for the other side to read."""
        return chunk(data)

    def received(self, data: bytes) -> bool:
        """The client has sent something; False when it is gone."""
        return bool(data)

    def wants(self, event_type: str) -> bool:
        """Whether the filter lets this type through; a message without a type always passes."""
        return self.types is None or not event_type or event_type in self.types

    def run(self, keepalive: Callable[[], float | None], on_keepalive: Callable[[], None]) -> None:
        """Send until the client leaves or a Finish was put.

        keepalive: seconds between keepalives as they are now, None for silence.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        poll.register(self._wake_out, select.POLLIN)
        last = time.monotonic()
        try:
            while True:
                interval = keepalive()
                left = 0.05 if interval is None else max(0.0, last + interval - time.monotonic())
                ready = {fd for fd, _ in poll.poll(min(left, 0.25) * 1000 + 1)}
                if not self._send_queue():
                    return
                if self.sock.fileno() in ready and not self.received(self.sock.recv(4096)):
                    return
                if interval is not None and time.monotonic() >= last + interval:
                    last = time.monotonic()
                    on_keepalive()
                    self._send(Piece(self.keepalive))
        except OSError:
            return  # the client is gone
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket; what is still queued is gone."""
        with self._lock:
            self.is_open = False
            for one in (self.sock, self._wake_in, self._wake_out):
                with contextlib.suppress(OSError):
                    one.close()

    def _send_queue(self) -> bool:
        """Send what is queued; False once the stream is finished."""
        with self._lock:
            if not self._queue:
                return True
            items, self._queue = self._queue, []
            self._wake_out.recv(1)
        for item in items:
            if not isinstance(item, Piece):
                self.finish(item)
                return False
            self._send(item)
        return True

    def _send(self, piece: Piece) -> None:
        if not self.has_sent_headers:
            self.has_sent_headers = True
            self.sock.sendall(HEADERS)
        if piece.drip:
            for byte in piece.data:
                self.sock.sendall(bytes([byte]))
                time.sleep(piece.drip)
        else:
            self.sock.sendall(piece.data)
        self.sent_ids += piece.ids

    def finish(self, how: Finish | Close) -> None:
        """Send what the end begins with; the socket is closed afterwards."""
        if how is Finish.END:
            self._send(Piece(b"0\r\n\r\n"))
        elif how is Finish.RESET:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
