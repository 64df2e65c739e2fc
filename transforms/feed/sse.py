"""Bytes of a server-sent event stream in, frames out: WHATWG's rules, at the speed of bytes.split."""

from __future__ import annotations

import re

from httpx_sse._decoders import SSEDecoder

from transforms.parse import Frame, Oversized

# 10 MB is the most any destination takes in one request (BigQuery's row and request limit).
MAX_FRAME_BYTES = 10 * 1024 * 1024
# A Last-Event-ID is sent back as a header; 8 KB is where common servers refuse all headers together.
MAX_ID_BYTES = 4096
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PREFIX = b"data: "


class FrameReader:
    """Splits one connection's bytes into frames; the bytes of each frame's data are kept exact.

    Frames with empty data, comments and unknown fields vanish, as WHATWG's "event stream interpretation"
    asks (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), and
    a frame without its final blank line is never handed out. Memory is bounded by a few times
    `max_frame_bytes`, whatever arrives.

    last_event_id: what to send as Last-Event-ID, "" when the stream gave none.
    retry: seconds the server asked clients to wait before reconnecting, None when it did not.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._start: bytes | None = b""  # None once the place of a byte-order mark has passed
        self._skip_lf = False  # the last block ended in CR: an LF now belongs to it
        self._line = bytearray()  # what follows the last line end, at most `max` and a field name
        self._line_size = 0  # how long that line really is
        self._frame = _OpenFrame(max_frame_bytes)

    @property
    def last_event_id(self) -> str:
        return self._frame.last_event_id

    @property
    def retry(self) -> float | None:
        return self._frame.retry

    def feed(self, block: bytes) -> list[Frame]:
        """The frames that `block` completes, in order."""
        if self._start is not None:
            block = self._after_byte_order_mark(block)
        if self._skip_lf and block:
            self._skip_lf = False
            block = block[1:] if block.startswith(b"\n") else block
        if not self._frame.open and self._line_size + len(block) <= self._max and b"\r" not in block:
            frames = self._plain(block)
            if frames is not None:
                return frames
        return self._by_line(block)

    def _plain(self, block: bytes) -> list[Frame] | None:
        """The service's own form, `data: <one line>` and a blank line, and nothing else; None when this
        block holds anything else (then nothing has changed)."""
        cut = block.rfind(b"\n\n")
        if cut < 0:
            if b"\n" in block:
                return None
            self._hold(block)
            return []
        if self._line:
            cut += len(self._line)
            block = bytes(self._line) + block
        rest = block[cut + 2 :]
        body = block[len(_PREFIX) : cut]
        frames: list[Frame] = list(body.split(b"\n\n" + _PREFIX))
        # Every line end must be one of those that separate frames: no frame holds another inside.
        if not block.startswith(_PREFIX) or body.count(b"\n") != 2 * (len(frames) - 1) or b"\n" in rest:
            return None
        self._line = bytearray(rest)
        self._line_size = len(rest)
        return [frame for frame in frames if frame] if b"" in frames else frames

    def _by_line(self, block: bytes) -> list[Frame]:
        """Everything WHATWG allows, line by line."""
        frames: list[Frame] = []
        *ended, rest = _LINE_END.split(block)
        for piece in ended:
            self._hold(piece)
            frame = self._frame.take(bytes(self._line), self._line_size)
            self._line.clear()
            self._line_size = 0
            if frame:
                frames.append(frame)
        self._hold(rest)
        self._skip_lf = block.endswith(b"\r")
        return frames

    def _hold(self, piece: bytes) -> None:
        room = self._max + len(_PREFIX) - len(self._line)
        if room > 0:
            self._line += piece[:room]
        self._line_size += len(piece)

    def _after_byte_order_mark(self, block: bytes) -> bytes:
        block = (self._start or b"") + block
        if len(block) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(block):
            self._start = block
            return b""
        self._start = None
        return block.removeprefix(_BYTE_ORDER_MARK)


class _OpenFrame:
    """The lines of one frame until its blank line; httpx-sse's decoder reads the fields.

    Bytes go through that decoder as text with surrogateescape, so that they come out as they went in.
    """

    def __init__(self, max_bytes: int) -> None:
        self.open = False
        self.last_event_id = ""
        self.retry: float | None = None
        self._max = max_bytes
        self._decoder = SSEDecoder()
        self._size = 0
        self._data_lines = 0
        self._head: bytearray | None = None  # the beginning of a frame that has become too large

    def take(self, line: bytes, size: int) -> Frame | None:
        """Take one line; `size` is its length, more than `len(line)` when its end was discarded."""
        if not line:
            return self._end()
        self.open = True
        if line.startswith(b"data:") or line == b"data":
            self._take_data(line, size)
        elif line.startswith(b"retry:"):
            self._take_retry(line[6:].removeprefix(b" "))
        elif len(line) <= MAX_ID_BYTES:  # a comment, an id, an event name, or a field to ignore
            self._decoder.decode(_text(line))
        return None

    def _take_data(self, line: bytes, size: int) -> None:
        start = min(6 if line.startswith(_PREFIX) else 5, len(line))
        separator = 1 if self._data_lines else 0
        self._size += size - start + separator
        self._data_lines += 1
        if self._size <= self._max:
            self._decoder.decode(_text(line))
            return
        if self._head is None:
            earlier = self._decoder.decode("")
            self._head = bytearray(_bytes(earlier.data) if earlier else b"")
        room = self._max - len(self._head)
        if room > 0:
            self._head += (b"\n" * separator + line[start:])[:room]

    def _take_retry(self, value: bytes) -> None:
        # WHATWG: ASCII digits only; httpx-sse takes whatever int() takes. Ten digits are 115 days.
        if value.isdigit() and len(value) <= 10:
            self.retry = int(value) / 1000

    def _end(self) -> Frame | None:
        event = self._decoder.decode("")
        # The decoder answers nothing only when no id is in force, also after an empty `id`.
        self.last_event_id = event.id if event else ""
        frame: Frame | None = _bytes(event.data) if event else None
        if self._head is not None:
            frame = Oversized(bytes(self._head), self._size)
        self.open = False
        self._size = self._data_lines = 0
        self._head = None
        return frame


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
