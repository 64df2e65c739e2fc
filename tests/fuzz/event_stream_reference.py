"""WHATWG's "event stream interpretation", byte by byte as the text has it: slow, and plain to check.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Stream:
    """What a whole stream means. The data of an event is kept as bytes; ids too."""

    frames: list[bytes] = field(default_factory=list)
    last_event_id: bytes = b""
    retry: int | None = None  # milliseconds


def interpret(body: bytes, last_event_id: bytes = b"") -> Stream:
    """All that a stream with this body does until its end; what has no blank line at the end is discarded."""
    stream = Stream(last_event_id=last_event_id)
    data: list[bytes] = []
    id_buffer = last_event_id
    for line in _lines(body.removeprefix(b"\xef\xbb\xbf")):
        if line == b"":
            stream.last_event_id = id_buffer
            if data:
                stream.frames.append(b"\n".join(data))
            data = []
        elif line.startswith(b":"):
            continue
        else:
            name, colon, value = line.partition(b":")
            if colon and value.startswith(b" "):
                value = value[1:]
            if name == b"data":
                data.append(value)
            elif name == b"id" and b"\0" not in value:
                id_buffer = value
            elif name == b"retry" and value and all(c in b"0123456789" for c in value):
                stream.retry = int(value)
    return stream


def _lines(body: bytes) -> list[bytes]:
    """The lines that are ended; CR, LF and CR LF end one."""
    lines: list[bytes] = []
    line = bytearray()
    before = 0
    for byte in body:
        if byte == 0x0A and before == 0x0D:
            pass  # the second half of an end
        elif byte in (0x0A, 0x0D):
            lines.append(bytes(line))
            line.clear()
        else:
            line.append(byte)
        before = byte
    return lines
