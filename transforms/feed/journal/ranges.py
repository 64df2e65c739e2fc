"""Sets of journal offsets as half-open ranges: compact in memory and in the database."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]  # start, end (the offset after the last)


def to_ranges(offsets: Sequence[int]) -> list[Range]:
    """Ascending offsets as ranges. The usual batch is one run, which costs one comparison."""
    if not offsets:
        return []
    first, last = offsets[0], offsets[-1]
    if last - first + 1 == len(offsets):
        return [(first, last + 1)]
    ranges: list[Range] = []
    start = previous = first
    for offset in offsets[1:]:
        if offset != previous + 1:
            ranges.append((start, previous + 1))
            start = offset
        previous = offset
    ranges.append((start, previous + 1))
    return ranges


def pack(ranges: Iterable[Range]) -> bytes:
    """Ranges as native 64-bit pairs; a journal never leaves its machine."""
    return array("q", [edge for pair in ranges for edge in pair]).tobytes()


def unpack(packed: bytes) -> list[Range]:
    """The ranges that `pack` wrote. Raises ValueError when the bytes are torn."""
    edges = array("q")
    edges.frombytes(packed)
    if len(edges) % 2:
        raise ValueError("a set of offsets in the journal is torn")
    return list(zip(edges[::2], edges[1::2], strict=True))


def offsets_in(ranges: Iterable[Range]) -> Iterator[int]:
    """Every offset of the ranges, ascending when the ranges are."""
    for start, end in ranges:
        yield from range(start, end)


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same offsets, ascending and with touching ranges joined; the ranges do not overlap."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def subtract(ranges: Iterable[Range], gone: Iterable[Range]) -> list[Range]:
    """The offsets of `ranges` that are not in `gone`, ascending; both hold disjoint ranges, in any order."""
    left: list[Range] = []
    holes = sorted(gone)
    at = 0
    for low, high in sorted(ranges):
        while at < len(holes) and holes[at][1] <= low:
            at += 1
        hole = at
        while hole < len(holes) and holes[hole][0] < high:
            if low < holes[hole][0]:
                left.append((low, holes[hole][0]))
            low = holes[hole][1]
            hole += 1
        if low < high:
            left.append((low, high))
    return left


def size(ranges: Iterable[Range]) -> int:
    """How many offsets the ranges hold."""
    return sum([end - start for start, end in ranges])
