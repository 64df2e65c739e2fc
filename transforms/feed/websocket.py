"""The feed over a WebSocket (RFC 6455): bytes in, messages out, and what is said back."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Set
from dataclasses import replace
from typing import Any

import httpcore
import httpx
from websockets.client import ClientProtocol
from websockets.datastructures import Headers as HandshakeHeaders
from websockets.exceptions import InvalidHandshake, ProtocolError
from websockets.frames import Close, Opcode
from websockets.frames import Frame as Sent
from websockets.http11 import Response
from websockets.uri import parse_uri

from transforms.clock import Clock
from transforms.feed import reconnect
from transforms.feed.advice import FEED
from transforms.feed.reconnect import Ending, EndingKind
from transforms.feed.request import FeedSettings, Headers, wanted_types
from transforms.feed.sse import MAX_FRAME_BYTES
from transforms.parse import Frame, Oversized

SOCKET_PATH = "/v1/events/ws"
READ_BYTES = 64 * 1024
# The 101 does not say that the service has subscribed, and nothing else does. It takes milliseconds.
SUBSCRIBED_AFTER = 1.0
# Seconds after the 101: a filter that is sent at once is lost, and none is ever confirmed. It only saves
# bandwidth, so twice is enough.
FILTER_AFTER = (1.0, 5.0)
WRITE_TIMEOUT = 10.0
_LEAST_WAIT = 0.001  # seconds; a socket that is given none raises another error
# FIN and the opcode for text, then the length: each of the service's messages begins like this.
_WHOLE_TEXT = 0x8100
_beginning = struct.Struct("!HH").unpack_from
_SHORT = 1 << 16  # above all lengths that two bytes can say


class MessageReader:
    """Splits one connection's bytes into messages; the bytes of each are kept exact, text or not.

    Only a whole message is handed out. Memory is bounded by a few times `max_bytes`, whatever arrives: of a
    longer message the beginning is kept, and the rest passed over. Text that is no UTF-8 is not refused, as
    RFC 6455 would have it: it would come again and again.

    ping: the payload of the server's last ping, to be answered; None once it was.
    close: the server's close frame, after which nothing is read. Code 1005 when it had none.
    fault: how the server broke the protocol, after which nothing is read; "" when it did not.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.ping: bytes | None = None
        self.close: Close | None = None
        self.fault = ""
        self._max = max_bytes
        self._head = b""  # the beginning of a frame that says too little yet
        self._first = 0  # the first byte of the frame that is being read
        self._left = -1  # how much of its payload is missing; -1 between frames
        self._control = b""  # its payload, when it is a control frame
        self._message = bytearray()  # what came of a message in parts, at most `max_bytes`
        self._size = -1  # how long that is in truth; -1 between messages

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read."""
        return self.close is not None or bool(self.fault)

    def feed(self, block: bytes) -> list[Frame]:
        """The messages that `block` completes, in order."""
        frames: list[Frame] = []
        if self._head:
            block = self._head + block
            self._head = b""
        at = 0
        while at < len(block) and not self.is_over:
            if self._left < 0:
                if self._size < 0 and self._max >= _SHORT:
                    at = _whole_texts(block, at, frames)
                at = self._begin(block, at)
            if self._left >= 0:
                at = self._go_on(block, at, frames)
        return frames

    def _begin(self, block: bytes, at: int) -> int:
        """Read the head of a frame; returns where its payload begins, or the end when there is too little."""
        head = block[at : at + 10]
        if len(head) > 1:
            self.fault = self._fault_of(head[0], head[1])
        wanted = 2 + {126: 2, 127: 8}.get(head[1] & 127, 0) if len(head) > 1 else 2
        if self.fault or len(head) < wanted:
            self._head = head
            return len(block)
        size = head[1] & 127 if wanted == 2 else int.from_bytes(head[2:wanted], "big")
        if size >= 1 << 63 or (head[0] & 8 and size > 125):
            self.fault = "a frame has a length that it cannot have"
            return len(block)
        self._first, self._left = head[0], size
        if head[0] & 15 < 8 and self._size < 0:
            self._size = 0
        return at + wanted

    def _fault_of(self, first: int, second: int) -> str:
        opcode, is_last = first & 15, first & 128
        if first & 0x70:
            return "reserved bits are set"
        if opcode not in (0, 1, 2, 8, 9, 10):
            return f"a frame has the unknown opcode {opcode}"
        if second & 128:
            return "a frame of the server is masked"
        if opcode >= 8:
            return "" if is_last else "a control frame is in parts"
        if (opcode == 0) != (self._size >= 0):
            return "a message begins inside another" if opcode else "a message goes on that has not begun"
        return ""

    def _go_on(self, block: bytes, at: int, frames: list[Frame]) -> int:
        """Read as much of the frame's payload as there is; returns where it ends."""
        piece = block[at : at + self._left]
        self._left -= len(piece)
        if self._first & 15 >= 8:
            self._control += piece
        else:
            self._message += piece[: max(0, self._max - len(self._message))]
            self._size += len(piece)
        if not self._left:
            self._left = -1
            self._end(frames)
        return at + len(piece)

    def _end(self, frames: list[Frame]) -> None:
        """The frame is complete."""
        opcode = self._first & 15
        if opcode < 8:
            if self._first & 128:
                whole = bytes(self._message)
                frames.append(whole if self._size <= self._max else Oversized(whole, self._size))
                self._message.clear()
                self._size = -1
            return
        payload, self._control = self._control, b""
        if opcode == Opcode.PING:
            self.ping = payload
        elif opcode == Opcode.CLOSE:
            try:
                self.close = Close.parse(payload)
            except (ProtocolError, UnicodeDecodeError):
                self.fault = "a close frame cannot be read"


def _whole_texts(block: bytes, at: int, frames: list[Frame]) -> int:
    """Add the messages that are whole, in one frame and short, as nearly all are; returns where they end."""
    end, add = len(block), frames.append
    while at <= end - 4:
        first, size = _beginning(block, at)
        if first == _WHOLE_TEXT | 126:
            start = at + 4
        elif _WHOLE_TEXT <= first < _WHOLE_TEXT | 126:
            start, size = at + 2, first & 127
        else:  # a long one, a part of one, a control frame, or none at all
            break
        if start + size > end:
            break
        at = start + size
        add(block[start:at])
    return at


class WebSocket:
    """One attempt to read the feed over a WebSocket: a Transport.

    The service is asked for some types only to save bandwidth: they are filtered on our side (`types`).
    """

    last_event_id = b""
    retry: float | None = None

    def __init__(self, settings: FeedSettings, clock: Clock) -> None:
        self.is_live = False
        self.types: Set[str] = frozenset(wanted_types(settings))
        self._settings = settings
        self._clock = clock
        self._messages = MessageReader()
        self._handshake = ClientProtocol(parse_uri("ws://unused/"))
        self._to_do: list[tuple[float, bytes]] = []  # when to send which text; none is a ping
        self._asked_at: float | None = None  # when a ping was sent that nothing has come after
        self._live_from = 0.0
        self._stream: Any = None

    def request(self, key: str) -> tuple[str, Headers]:
        """No extension is offered: the service has none, and compressed frames would not be its bytes."""
        asked = [(b"Authorization", f"Bearer {key}".encode()), (b"Accept-Encoding", b"identity")]
        for name, value in self._handshake.connect().headers.raw_items():
            if name != "Host":
                asked.append((name.encode(), value.encode()))
        return self._settings.root + SOCKET_PATH, asked

    def refusal(self, response: httpx.Response, now: float) -> Ending | None:
        if response.status_code == 101:
            return self._broken_handshake(response)
        ending = reconnect.refusal(response, now)
        if ending is None:
            return Ending(EndingKind.CONTENT, detail="an event stream, where a WebSocket was asked for")
        said = ending.detail or ending.in_between
        if ending.status == 426 or (ending.status == 404 and not said):
            return replace(ending, reason=FEED["no upgrade"].says.format(status=ending.status))
        return ending

    def _broken_handshake(self, response: httpx.Response) -> Ending | None:
        headers = HandshakeHeaders(response.headers.multi_items())
        try:
            self._handshake.process_response(Response(101, "Switching Protocols", headers))
        except (InvalidHandshake, ValueError) as error:
            return Ending(EndingKind.PROTOCOL, detail=type(error).__name__, reason=FEED["no handshake"].says)
        return None

    def frames(self, response: httpx.Response) -> Iterator[tuple[list[Frame], int]]:
        self._stream = stream = response.extensions["network_stream"]
        self._opened()
        while not self._messages.is_over:
            self._send_what_is_due(stream)
            block = self._read(stream)
            if block == b"":
                self.let_go()  # if it was we who ended it, the service can be told
                return
            frames = self._messages.feed(block) if block else []
            self.is_live = self.is_live or bool(frames) or self._is_subscribed
            yield frames, len(block or b"")
            self._answer(stream)

    def let_go(self) -> None:
        """What the service keeps for a reader that stalls has no bound. What has arrived can be read."""
        with contextlib.suppress(httpx.HTTPError):
            _send(self._stream, _frame(Opcode.CLOSE, Close(1000, "").serialize()))

    @property
    def _is_subscribed(self) -> bool:
        """As far as can be told by the time. A connection that is one too many is closed instead."""
        return not self._messages.is_over and self._clock.monotonic() >= self._live_from

    def _opened(self) -> None:
        now = self._clock.monotonic()
        self._live_from = now + SUBSCRIBED_AFTER
        self._to_do = [(now + self._settings.ping_interval, b"")]
        if self.types:
            asked = json.dumps({"types": sorted(self.types)}, separators=(",", ":")).encode()
            self._to_do += [(now + after, asked) for after in FILTER_AFTER]

    def _send_what_is_due(self, stream: Any) -> None:
        now = self._clock.monotonic()
        for each in [one for one in self._to_do if one[0] <= now]:
            self._to_do.remove(each)
            if each[1]:
                _send(stream, _frame(Opcode.TEXT, each[1]))
                continue
            _send(stream, _frame(Opcode.PING, b""))
            self._to_do.append((now + self._settings.ping_interval, b""))
            if self._asked_at is None:
                self._asked_at = now

    def _read(self, stream: Any) -> bytes | None:
        """What has come; b"" at the end of the connection, None when it is time for something else.

        Whatever comes shows that the service is there, as an answer to a ping would.
        """
        now = self._clock.monotonic()
        until = [at for at, _ in self._to_do]
        if not self.is_live:
            until.append(self._live_from)
        if self._asked_at is not None:
            until.append(self._asked_at + self._settings.ping_timeout)
        try:
            block: bytes = stream.read(READ_BYTES, max(_LEAST_WAIT, min(until) - now))
        except httpcore.ReadTimeout:
            asked = self._asked_at
            if asked is not None and self._clock.monotonic() >= asked + self._settings.ping_timeout:
                raise httpx.ReadTimeout("no answer to a ping") from None
            return None
        except httpcore.NetworkError as error:
            raise httpx.ReadError(str(error)) from error
        self._asked_at = None
        return block

    def _answer(self, stream: Any) -> None:
        messages = self._messages
        if messages.ping is not None:  # of several the last one may be answered alone (5.5.3)
            _send(stream, _frame(Opcode.PONG, messages.ping))
            messages.ping = None
        if messages.fault:
            _send(stream, _frame(Opcode.CLOSE, Close(1002, "").serialize()))
        elif messages.close is not None:
            code = messages.close.code
            _send(stream, _frame(Opcode.CLOSE, b"" if code == 1005 else Close(code, "").serialize()))

    @property
    def ending(self) -> Ending:
        if self._messages.fault:
            return Ending(EndingKind.PROTOCOL, detail=self._messages.fault, reason=FEED["no websocket"].says)
        if self._messages.close is None:
            return Ending(EndingKind.CUT)
        return ending_of_close(self._messages.close, self.is_live)


def ending_of_close(close: Close, was_live: bool) -> Ending:
    """How a stream ended that the service closed with this code. The one after the fifth gets 1013 for its
    request; a live one may get it from something in between that is busy."""
    if close.code == 1013 and ("too many" in close.reason.lower() or not was_live):
        return Ending(EndingKind.STATUS, status=close.code, code=reconnect.TOO_MANY)
    said = "without a code" if close.code == 1005 else f"with code {reconnect.one_line(str(close))}"
    return Ending(EndingKind.END, detail=f"WebSocket closed {said}")


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    return Sent(opcode, payload).serialize(mask=True)


def _send(stream: Any, frame: bytes) -> None:
    """Raises httpx.WriteTimeout. That a connection is gone is left for the next read to find: something may
    still wait there."""
    try:
        stream.write(frame, WRITE_TIMEOUT)
    except httpcore.WriteTimeout:
        raise httpx.WriteTimeout("nothing is taken") from None
    except httpcore.NetworkError:
        pass
