"""SQLite's write-ahead log as a file: is it whole, and which of its pages can still be used?

The format is the one of https://www.sqlite.org/fileformat2.html#the_write_ahead_log. SQLite itself stops
without a word at the first frame that fails its checksum, which is right for a torn end and silently loses
every later transaction when the damage is in the middle.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER = 32
FRAME_HEADER = 24
PAGE = 4096  # bytes, SQLite's default and ours
MAGIC = 0x377F0682  # checksums over little-endian words; the lowest bit set: big-endian

Words = npt.NDArray[np.uint32]


@dataclass
class WalState:
    """What was found in a write-ahead log."""

    damaged: bool = False  # committed transactions that SQLite would skip
    pages: dict[int, int] = field(default_factory=dict)  # page number -> where its newest copy begins


def read_wal(path: Path, database_pages: int = 0) -> WalState:
    """Check the log at `path`; a missing or empty one is whole. Reads all of it (16 MiB as a rule).

    database_pages: how long the database is; for `WalState.pages`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return WalState()
    count = (len(content) - HEADER) // (FRAME_HEADER + PAGE)
    if count < 1:
        return WalState()
    frames = np.frombuffer(content, np.uint8, count * (FRAME_HEADER + PAGE), HEADER).reshape(count, -1)
    heads = frames[:, :FRAME_HEADER].copy().view(">u4").astype(np.uint32)
    known, salts, start, order = _header(content)
    matching = _checksums_match(frames, heads, start, order)
    if not known:  # nothing says which generation is current: take that of the first frame that has a next
        pairs = np.nonzero(matching[1:] & (heads[1:, 2:4] == heads[:-1, 2:4]).all(axis=1))[0]
        if not len(pairs):
            return WalState(damaged=bool(frames.any()))
        salts = heads[pairs[0], 2:4]
    current = (heads[:, 2:4] == salts).all(axis=1)
    good = current & matching
    if not known:
        good[0] = current[0]  # its checksum continues the lost header's
    commits = np.nonzero(current & (heads[:, 1] > 0))[0]
    if not len(commits):
        return WalState()
    last = int(commits[-1])
    state = WalState(damaged=not known or not bool(good[: last + 1].all()))
    most = max(int(heads[good, 1].max(initial=0)), database_pages) + count  # no frame can be of a later page
    for number in np.nonzero(good[: last + 1])[0]:
        if 0 < heads[number, 0] <= most:
            state.pages[int(heads[number, 0])] = HEADER + int(number) * (FRAME_HEADER + PAGE) + FRAME_HEADER
    return state


def apply_wal(path: Path, database: Path) -> None:
    """Write the newest good copy of each page into the database file, then set the log aside."""
    state = read_wal(path, database.stat().st_size // PAGE)
    if state.pages:
        with open(path, "rb") as log, open(database, "r+b") as file:
            for page, position in sorted(state.pages.items()):
                log.seek(position)
                file.seek((page - 1) * PAGE)
                file.write(log.read(PAGE))
            file.flush()
            os.fsync(file.fileno())
    if path.exists():
        path.rename(path.with_name(path.name + ".applied"))


def _header(content: bytes) -> tuple[bool, Words, Words, str]:
    """Whether the log's header is whole; its salts, its checksum, and the byte order of checksums."""
    fields = np.frombuffer(content, ">u4", HEADER // 4).astype(np.uint32)
    big_endian = (int(fields[0]) & ~1) == MAGIC and fields[0] & 1  # else as this program's SQLite writes it
    order = ">" if big_endian else "<"
    words = np.frombuffer(content, order + "u4", 6).astype(np.uint32)
    sums = np.array(_extend((0, 0), [int(word) for word in words]), np.uint32)
    whole = (int(fields[0]) & ~1) == MAGIC and int(fields[2]) == PAGE and bool((sums == fields[6:8]).all())
    return whole, fields[4:6], fields[6:8], order


def _extend(sums: tuple[int, int], words: list[int]) -> tuple[int, int]:
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _checksums_match(
    frames: npt.NDArray[np.uint8], heads: Words, start: Words, order: str
) -> npt.NDArray[np.bool_]:
    """For each frame, whether its checksum continues the one before it.

    The checksum is linear modulo 2^32, so that every frame costs two products with fixed weights.
    """
    words = np.concatenate([frames[:, :8], frames[:, FRAME_HEADER:]], axis=1).view(order + "u4")
    words = words.astype(np.uint32)
    weights, carry = _weights(words.shape[1])
    before = np.concatenate([start[None, :], heads[:-1, 4:6]])
    sums = words @ weights + before @ carry
    matching: npt.NDArray[np.bool_] = (sums == heads[:, 4:6]).all(axis=1)
    return matching


@lru_cache(maxsize=1)
def _weights(count: int) -> tuple[Words, Words]:
    """What each of `count` words, and each half of the checksum before them, adds to the checksum."""
    zeros = [0] * count
    carry = [_extend((1, 0), zeros), _extend((0, 1), zeros)]
    weights = np.empty((count, 2), np.uint32)
    after = [(1, 1), (0, 1)]  # what one more in an even or odd last word adds: first += even; second += first
    for pair in range(count - 2, -1, -2):
        weights[pair], weights[pair + 1] = after
        after = [_extend(sums, [0, 0]) for sums in after]
    return weights, np.array(carry, np.uint32)


def page_one_for_rescue(template: bytes) -> bytes:
    """The first page of a fresh journal made fit for a damaged one: the same tables at the same pages, the
    file's own length, no list of free pages."""
    return template[:28] + struct.pack(">3I", 0, 0, 0) + template[40:PAGE]
