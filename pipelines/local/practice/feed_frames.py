"""Events as the practice feed writes them: SSE frames inside HTTP chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
