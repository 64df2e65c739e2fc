"""Blocks of received ids as bytes: which ids, when each was received and on which connection.

An id of the service ("evt_" and a ULID) takes some eleven bytes: the ten that are random, and what its time
adds to that of the one before. Ids of another form are kept as text, with a filter that tells which blocks
need not be searched for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard
from xxhash import xxh3_128_intdigest

from transforms import ulid
from transforms.structs import ready

PREFIX = ulid.PREFIX.encode()
LENGTH = len(PREFIX) + 26
RANDOM = 10  # bytes of a ULID behind its six of time
ALPHABET = np.frombuffer(ulid.CROCKFORD.encode(), np.uint8)
_WORTH = bytes([ulid.CROCKFORD.find(chr(byte)) & 255 for byte in range(256)])  # of each byte; 255: no digit
_TIME_SHIFTS = np.arange(45, -1, -5)  # of ten digits, 48 bits in use
# Bits of a number, of the room that it has, and where the lower one of each two stands.
_PAIRS = ((5, 8, 0x1F001F001F001F), (10, 16, 0x3FF000003FF), (20, 32, 0xFFFFF))
_HALF_SHIFTS = np.arange(35, -1, -5)  # of eight digits, 40 bits
NEVER = -1  # as `low` and `high`: the block has no ULID
Integers = npt.NDArray[np.int64]
_encode = msgspec.msgpack.Encoder().encode


@dataclass
class Origin:
    """Events that came in one append: how many, when (epoch seconds), and on which connection."""

    count: int
    at: float
    connection: str


@ready
class _Layout(msgspec.Struct, array_like=True):
    """A block's body. Columns are packed integers (`_pack`)."""

    count: int
    times: bytes  # milliseconds of the ULIDs, in the order of their events
    random: bytes
    odd: bytes  # which events have an id of another form
    texts: bytes  # those ids
    ends: bytes  # of the origins, as numbers of events
    at: bytes  # their milliseconds
    connections: bytes  # and an index each into the names
    names: list[str]


@dataclass
class IdBlock:
    """Ids of consecutive events; event `i` is the one at the block's first offset plus `i`."""

    count: int
    times: Integers
    random: npt.NDArray[np.uint8]  # rows of ten bytes
    odd: Integers
    texts: list[str]
    ends: Integers
    at: Integers
    connections: Integers
    names: list[str]

    def ids(self) -> list[str]:
        """All of them, in order."""
        ulids = ulid_texts(self.times, self.random)
        if not len(self.odd):
            return ulids
        found = [""] * self.count
        for place, text in zip(self._plain().tolist(), ulids, strict=True):
            found[place] = text
        for place, text in zip(self.odd.tolist(), self.texts, strict=True):
            found[place] = text
        return found

    def _plain(self) -> Integers:
        """Which events have a ULID."""
        mask = np.ones(self.count, bool)
        mask[self.odd] = False
        return np.nonzero(mask)[0]

    def find(self, wanted: Wanted) -> list[tuple[str, int]]:
        """Those of the ids that are here, with their events' numbers."""
        found = []
        if len(self.times) and len(wanted.times):
            plain = self._plain() if len(self.odd) else None
            for at in np.nonzero(np.isin(self.times, wanted.times))[0].tolist():
                text = wanted.ulids.get((int(self.times[at]), self.random[at].tobytes()))
                if text is not None:
                    found.append((text, at if plain is None else int(plain[at])))
        if wanted.odd and len(self.odd):
            found += [(t, at) for t, at in zip(self.texts, self.odd.tolist(), strict=True) if t in wanted.odd]
        return found

    def received(self, number: int) -> tuple[float, str]:
        """When (epoch seconds) and on which connection an event of it was received."""
        origin = int(np.searchsorted(self.ends, number, side="right"))
        return int(self.at[origin]) / 1000, self.names[int(self.connections[origin])]

    def received_all(self, numbers: Integers) -> tuple[list[float], list[str]]:
        """As `received`, of many: the times, and the connections."""
        origins = np.searchsorted(self.ends, numbers, side="right")
        names = [self.names[index] for index in self.connections[origins].tolist()]
        return (self.at[origins] / 1000).tolist(), names


class Wanted:
    """Ids that are looked for."""

    def __init__(self, ids: Iterable[str]) -> None:
        texts = list(dict.fromkeys(ids))
        good, times, random = parse_ulids(texts)
        plain = [text for text, is_ulid in zip(texts, good.tolist(), strict=True) if is_ulid]
        self.odd = {text for text, is_ulid in zip(texts, good.tolist(), strict=True) if not is_ulid}
        keys = zip(times.tolist(), (row.tobytes() for row in random), strict=True)
        self.ulids = dict(zip(keys, plain, strict=True))
        self.times = np.sort(times)
        self.milliseconds = dict(zip(plain, times.tolist(), strict=True))

    def may_lie_in(self, low: int, high: int, odd: bytes) -> bool:
        """Whether one of them may be in the block that has these times and this filter."""
        if low <= high and low != NEVER:
            at = int(np.searchsorted(self.times, low))
            if at < len(self.times) and int(self.times[at]) <= high:
                return True
        return bool(odd) and any(_may_hold(odd, text) for text in self.odd)


def parse_ulids(ids: Sequence[str]) -> tuple[npt.NDArray[np.bool_], Integers, npt.NDArray[np.uint8]]:
    """Which ids are "evt_" and a ULID in the service's own form; the times (ms) and random bytes of these."""
    # Most often all are: then one look at all of them, as lines of one text, tells.
    lines = "\n".join([*ids, ""])
    if ids and lines.isascii() and len(lines) == (LENGTH + 1) * len(ids):
        good, values = _digits(lines, LENGTH + 1)
        if good.all():  # then no id holds a line end, and each is one row
            return good, *_numbers(values)
    sized = [len(each) == LENGTH and each.isascii() for each in ids]
    good, values = _digits("".join([each for each, fits in zip(ids, sized, strict=True) if fits]), LENGTH)
    which = np.zeros(len(ids), bool)
    which[np.nonzero(np.array(sized))[0][good]] = True
    return which, *_numbers(values[good])


def _digits(text: str, length: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Rows of so many characters: which begin with an id, and what each character is worth as a digit."""
    read = text.encode()
    head = np.frombuffer(read, np.uint8).reshape(-1, length)[:, : len(PREFIX)]
    values = np.frombuffer(read.translate(_WORTH), np.uint8).reshape(-1, length)
    digits = values[:, len(PREFIX) : LENGTH]
    good = np.ascontiguousarray(head).view(np.uint32)[:, 0] == np.frombuffer(PREFIX, np.uint32)
    good &= digits[:, 0] < 8
    if digits.max(initial=0) > 31:
        good &= (digits < 32).all(axis=1)
    return good, values


def _numbers(values: npt.NDArray[np.uint8]) -> tuple[Integers, npt.NDArray[np.uint8]]:
    """Times and random bytes of ids whose characters are worth that."""
    first = values[:, len(PREFIX) : len(PREFIX) + 2].astype(np.int64)
    # The other 24 digits, eight at once: two of five bits become one of ten, two of these one of twenty.
    eights = np.ascontiguousarray(values[:, len(PREFIX) + 2 : LENGTH]).view(">i8").astype(np.int64)
    for bits, room, low in _PAIRS:
        eights = eights >> room - bits & low << bits | eights & low
    times = first[:, 0] << 45 | first[:, 1] << 40 | eights[:, 0]
    random = eights[:, 1:].astype(">i8").view(np.uint8).reshape(-1, 2, 8)[:, :, 3:].reshape(-1, RANDOM)
    return times, random


def ulid_texts(times: Integers, random: npt.NDArray[np.uint8]) -> list[str]:
    """The ids that `parse_ulids` took apart."""
    count = len(times)
    digits = np.empty((count, LENGTH), np.uint8)
    digits[:, : len(PREFIX)] = np.frombuffer(PREFIX, np.uint8)
    digits[:, 4:14] = ALPHABET[times[:, None] >> _TIME_SHIFTS & 31]
    halves = np.zeros((count, 2, 8), np.uint8)
    halves[:, :, 3:] = random.reshape(count, 2, 5)
    wide = halves.reshape(count, 16).view(">i8").astype(np.int64)
    digits[:, 14:] = ALPHABET[wide[:, :, None] >> _HALF_SHIFTS & 31].reshape(count, 16)
    text = digits.tobytes().decode("ascii")
    return [text[at : at + LENGTH] for at in range(0, len(text), LENGTH)]


@dataclass
class PackedBlock:
    """A block for the journal: the ULIDs' lowest and highest time (ms), the filter of other ids, the body."""

    low: int
    high: int
    odd: bytes
    body: bytes


def block_of(ids: Sequence[str], origins: Sequence[Origin]) -> IdBlock:
    """The ids of consecutive events. The origins' counts add up to as many."""
    good, times, random = parse_ulids(ids)
    odd = np.nonzero(~good)[0]
    names = list(dict.fromkeys([origin.connection for origin in origins]))
    return IdBlock(
        count=len(ids),
        times=times,
        random=random,
        odd=odd,
        texts=[ids[at] for at in odd.tolist()],
        ends=np.cumsum([origin.count for origin in origins]),
        at=np.array([round(origin.at * 1000) for origin in origins], np.int64),
        connections=np.array([names.index(origin.connection) for origin in origins], np.int64),
        names=names,
    )


def pack_block(block: IdBlock) -> PackedBlock:
    """Its bytes."""
    times, texts = block.times, block.texts
    layout = _Layout(
        count=block.count,
        times=_pack(times),
        random=block.random.tobytes(),
        odd=_pack(block.odd),
        texts=zstandard.ZstdCompressor(level=1).compress(_encode(texts)) if texts else b"",
        ends=_pack(block.ends),
        at=_pack(block.at),
        connections=_pack(block.connections),
        names=block.names,
    )
    low, high = (int(times.min()), int(times.max())) if len(times) else (NEVER, NEVER)
    return PackedBlock(low, high, _filter(texts), _encode(layout))


def unpack_block(body: bytes | memoryview) -> IdBlock:
    """The block that `pack_block` wrote. Raises ValueError, zstandard.ZstdError, msgspec.MsgspecError."""
    layout = msgspec.msgpack.decode(body, type=_Layout)
    texts = zstandard.ZstdDecompressor().decompress(layout.texts) if layout.texts else b"\x90"
    return IdBlock(
        count=layout.count,
        times=_unpack(layout.times),
        random=np.frombuffer(layout.random, np.uint8).reshape(-1, RANDOM),
        odd=_unpack(layout.odd),
        texts=msgspec.msgpack.decode(texts, type=list[str]),
        ends=_unpack(layout.ends),
        at=_unpack(layout.at),
        connections=_unpack(layout.connections),
        names=layout.names,
    )


def _pack(column: npt.NDArray[Any]) -> bytes:
    """Integers that differ little from one to the next: their differences, byte by byte, compressed."""
    if not len(column):
        return b""
    steps = column.astype(np.int64)
    steps[1:] -= column[:-1]
    planes = (steps << 1 ^ steps >> 63).astype("<u8").view(np.uint8).reshape(-1, 8).T
    return zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(planes).tobytes())


def _unpack(packed: bytes) -> Integers:
    if not packed:
        return np.zeros(0, np.int64)
    planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8).reshape(8, -1)
    folded = np.ascontiguousarray(planes.T).view("<u8")[:, 0]
    steps = (folded >> np.uint64(1)).astype(np.int64) ^ -(folded & np.uint64(1)).astype(np.int64)
    column: Integers = np.cumsum(steps)
    return column


def _filter(texts: Sequence[str]) -> bytes:
    """A Bloom filter of 12 to 24 bits and three marks an id: one of a hundred blocks is searched in vain."""
    if not texts:
        return b""
    bits = np.zeros(max(8, 1 << (12 * len(texts) - 1).bit_length()), np.uint8)
    for text in texts:
        for place in _places(text, len(bits)):
            bits[place] = 1
    return np.packbits(bits).tobytes()


def _may_hold(odd: bytes, text: str) -> bool:
    return all(odd[place >> 3] >> (7 - (place & 7)) & 1 for place in _places(text, 8 * len(odd)))


def _places(text: str, size: int) -> tuple[int, int, int]:
    digest = xxh3_128_intdigest(text.encode())
    return digest % size, (digest >> 40) % size, (digest >> 80) % size
