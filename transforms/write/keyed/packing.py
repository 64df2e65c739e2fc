"""Events as packed bytes, made once and opened once in a process, however many destinations they go to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import zstandard
from isal import isal_zlib
from xxhash import xxh3_128_digest

from transforms.event import Event

LEVEL = 1  # 51 bytes of an event of 355, 0.35 us; more takes longer and is no smaller
RAW_DEFLATE = -15  # no header and no checksum, as earlier releases wrote it: 60 bytes, 0.30 us
MAGIC = b"\x28\xb5\x2f\xfd"  # of Zstandard (RFC 8878, 3.1.1); nothing deflated begins so
# What Python adds to an event as it is encoded: its raw bytes, id, type and time.
EVENT_BYTES = 250
# What is remembered: packed, until the last destination has made an element of it; opened, some 13,000
# events, more than a bundle of the feed has, until the last of them has attempted them.
PACKED_BYTES = 4_000_000
OPENED_BYTES = 8_000_000
V = TypeVar("V")
# One for all threads: each takes a megabyte, and a worker has dozens of threads.
_compressor, _compressing = zstandard.ZstdCompressor(LEVEL), threading.Lock()
_decompressor, _decompressing = zstandard.ZstdDecompressor(), threading.Lock()
_decode = msgspec.msgpack.Decoder(list[Event]).decode


class Remembered(Generic[V]):
    """What was made of something lately, bounded in bytes; the oldest goes first. Safe for threads: two that
    ask at once may both make it."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[V, int, Any]] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """What was put there, if it is still known."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, size: int, alive: Any = None) -> None:
        """Remember it. alive: what must not go before it, as `key` names it by its place in memory."""
        with self._lock:
            before = self._known.pop(key, None)
            self._bytes += size - (before[1] if before else 0)
            self._known[key] = value, size, alive
            while self._bytes > self._most:
                self._bytes -= self._known.popitem(last=False)[1][1]


_packed: Remembered[bytes] = Remembered(PACKED_BYTES)
_opened: Remembered[tuple[bytes, Sequence[Event]]] = Remembered(OPENED_BYTES)


def pack_events(events: Sequence[Event]) -> bytes:
    """Events as compressed MessagePack."""
    return _compress(msgspec.msgpack.encode(events))


def unpack_events(bodies: Iterable[bytes]) -> list[Event]:
    """The events of these bodies, in their order."""
    events: list[Event] = []
    for body in bodies:
        events += _open(body)
    return events


def pack_part(events: Sequence[Event], start: int, stop: int) -> bytes:
    """These of `events`, which do not change; the same part of the same list is packed once, and opened from
    memory as long as it is remembered."""
    key = id(events), start, stop
    body = _packed.get(key)
    if body is None:
        part = events if (start, stop) == (0, len(events)) else events[start:stop]
        encoded = msgspec.msgpack.encode(part)
        body, size = _compress(encoded), _in_memory(encoded, part)
        _packed.put(key, body, len(body) + size, events)
        _opened.put(xxh3_128_digest(body), (body, part), size)
    return body


def _open(body: bytes) -> Sequence[Event]:
    key = xxh3_128_digest(body)
    known = _opened.get(key)
    if known is not None and known[0] == body:
        return known[1]
    encoded = _decompress(body)
    events = _decode(encoded)
    _opened.put(key, (body, events), _in_memory(encoded, events))
    return events


def _compress(encoded: bytes) -> bytes:
    with _compressing:
        return _compressor.compress(encoded)


def _decompress(body: bytes) -> bytes:
    if not body.startswith(MAGIC):
        inflated: bytes = isal_zlib.decompress(body, RAW_DEFLATE)
        return inflated
    with _decompressing:
        return _decompressor.decompress(body)


def _in_memory(encoded: bytes, events: Sequence[Event]) -> int:
    """About how many bytes the events take."""
    return len(encoded) + EVENT_BYTES * len(events)
