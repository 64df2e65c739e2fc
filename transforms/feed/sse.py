"""Bytes of a server-sent event stream in, frames out: WHATWG's rules, at the speed of bytes.split."""

from __future__ import annotations

import re

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

    WHATWG's "event stream interpretation" is the rule
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation): comments,
    unknown fields and frames without a data line vanish, a data line without data is a frame without data,
    and a frame without its final blank line is never handed out. Memory is bounded by a few times
    `max_frame_bytes`, whatever arrives.

    last_event_id: the id in force, as it came: at first that of the stream before (as browsers do), b"" when
        there was none, it was taken back, or it is longer than `MAX_ID_BYTES`.
    retry: seconds the server asked clients to wait before reconnecting, None when it did not.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, last_event_id: bytes = b"") -> None:
        self._max = max_frame_bytes
        self._start: bytes | None = b""  # None once the place of a byte-order mark has passed
        self._skip_lf = False  # the last block ended in CR: an LF now belongs to it
        self._line = bytearray()  # what follows the last line end, at most `max` and a field name
        self._line_size = 0  # how long that line really is
        self._frame = _OpenFrame(max_frame_bytes, last_event_id)

    @property
    def last_event_id(self) -> bytes:
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
        # From the right, and by replace: measured, 160 ns a frame of 300 bytes; split and count take 480.
        frames: list[Frame] = list(body.rsplit(b"\n\n" + _PREFIX))
        line_ends = len(body) - len(body.replace(b"\n", b""))
        # Every line end must be one of those that separate frames: no frame holds another inside.
        if not block.startswith(_PREFIX) or line_ends != 2 * (len(frames) - 1) or b"\n" in rest:
            return None
        self._line = bytearray(rest)
        self._line_size = len(rest)
        return frames

    def _by_line(self, block: bytes) -> list[Frame]:
        """Everything WHATWG allows, line by line."""
        frames: list[Frame] = []
        *ended, rest = _LINE_END.split(block)
        for piece in ended:
            self._hold(piece)
            frame = self._frame.add_line(bytes(self._line), self._line_size)
            self._line.clear()
            self._line_size = 0
            if frame is not None:
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
    """The lines of one frame until its blank line, as bytes throughout."""

    def __init__(self, max_bytes: int, last_event_id: bytes) -> None:
        self.open = False
        self.last_event_id = last_event_id
        self.retry: float | None = None
        self._max = max_bytes
        self._id = last_event_id  # in force from the next blank line on
        self._data = bytearray()  # the data so far, at most `max` of it
        self._data_lines = 0
        self._size = 0  # how long the data really is

    def add_line(self, line: bytes, size: int) -> Frame | None:
        """Take one line; `size` is its length, more than `len(line)` when its end was discarded. Returns the
        frame that it ends."""
        if not line:
            return self._end()
        self.open = True
        name, _, value = line.partition(b":")
        if name == b"data":
            self._add_data(line, size)
        elif name == b"id":
            self._set_id(value.removeprefix(b" "))
        elif name == b"retry":
            self._set_retry(value.removeprefix(b" "))
        return None  # or a comment, an event name, a field to ignore

    def _add_data(self, line: bytes, size: int) -> None:
        start = min(6 if line.startswith(_PREFIX) else 5, len(line))
        separator = b"\n" if self._data_lines else b""
        self._size += size - start + len(separator)
        self._data_lines += 1
        room = self._max - len(self._data)
        if room > 0:
            self._data += (separator + line[start:])[:room]

    def _set_id(self, value: bytes) -> None:
        if b"\0" not in value:
            self._id = value if len(value) <= MAX_ID_BYTES else b""

    def _set_retry(self, value: bytes) -> None:
        if value.isdigit():  # ASCII digits only; eleven of them are three years already
            self.retry = int(value.lstrip(b"0")[:11] or b"0") / 1000

    def _end(self) -> Frame | None:
        self.last_event_id = self._id
        frame: Frame | None = bytes(self._data) if self._data_lines else None
        if self._size > self._max:
            frame = Oversized(bytes(self._data), self._size)
        self.open = False
        self._size = self._data_lines = 0
        self._data.clear()
        return frame
