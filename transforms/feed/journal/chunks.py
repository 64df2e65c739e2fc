"""The chunks of the journal: one row each, the recent ones in memory too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec
import zstandard

from transforms.event import Chunk, Event
from transforms.feed.journal.database import Database, JournalDamaged, number_noted, put_note
from transforms.feed.journal.ranges import Range, subtract
from transforms.feed.journal.schema import (
    BadChecksum,
    has_signature,
    old_checksum,
    sign,
    sign_body,
    signed_body,
)
from transforms.shared_events import SharedEvents, raw_size

CHUNK_EVENTS = 1000  # as many as an append has in a flood; with 500 five lanes take 3 to 5 % more CPU
CACHE_BYTES = 4 * 1024 * 1024  # raw bytes of recent chunks kept for lanes that keep up
# Of chunks that a lane has read, kept for those behind it with what was made of them (about as much again). A
# lane sends what it reads within MAX_UNSETTLED_BYTES (6 MB).
SHARED_BYTES = 8 * 1024 * 1024
SHARE_FROM = 32  # events: with fewer, sharing costs more than it saves
READ_ROWS = 64  # rows read back at once by a lane that lags
TRIM_ROWS = 100  # rows deleted in one transaction: 14 MB of ordinary events, so the log stays small

# A row is packed because writing pages costs more than packing them: 200,000 events take 0.16 s of CPU and
# 9 MB of log, and 0.41 s and 67 MB unpacked. Less than this is not worth it.
PACK_FROM = 1_000  # bytes
MOST_ROOM = 1024 * 1024  # bytes that are kept to encode the next row in
_encode_into = msgspec.msgpack.Encoder().encode_into
_decode = msgspec.msgpack.Decoder(list[Event]).decode


class ChunkStore:
    """Appends, reads and trims chunk rows. The journal's lock guards all calls."""

    def __init__(self, database: Database, now: float, readers: Callable[[], int] = lambda: 1) -> None:
        """now: epoch seconds, stands for the arrival of what a damaged journal lost at its end. readers: how
        many there are; what only one reads is not kept for others."""
        self._database = database
        self._now = now
        self._readers = readers
        # Kept from row to row: to make them anew costs a tenth of a row's CPU.
        self._room = bytearray()
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._recent = _Kept(CACHE_BYTES)  # appended and read by nobody yet
        self._shared = _Kept(SHARED_BYTES)  # read
        first, size = database.rows("SELECT min(first), total(size) FROM chunks")[0]
        self.end = number_noted(database, "end")  # the next offset
        self.trimmed = int(str(first)) if first is not None else self.end  # nothing below is kept
        self.bytes = int(float(str(size)))  # raw bytes kept

    def split(self, events: Sequence[Event], taken_at: float) -> list[Chunk]:
        """New chunks for `events` at the end of the journal; nothing is stored yet."""
        return [
            self._chunk(events[start : start + CHUNK_EVENTS], self.end + start, taken_at)
            for start in range(0, len(events), CHUNK_EVENTS)
        ]

    def insert(self, connection: sqlite3.Connection, chunks: Sequence[Chunk]) -> list[int]:
        """Write the rows, inside the caller's transaction; the raw bytes of each chunk."""
        sizes = [raw_size(chunk.events) for chunk in chunks]
        for chunk, size in zip(chunks, sizes, strict=True):
            body = self._packed(chunk.events)
            head = (chunk.first, len(chunk.events), float(chunk.taken_at), size)
            connection.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)",
                (*head, sign("chunks", *head), sign_body(body, chunk.first)),
            )
        if chunks:
            put_note(connection, "end", chunks[-1].end)
        return sizes

    def _packed(self, events: Sequence[Event]) -> bytes:
        room = self._room
        _encode_into(events, room)
        body = bytes(room) if len(room) < PACK_FROM else self._compress(room)
        if len(room) > MOST_ROOM:
            self._room = bytearray()
        return body

    def committed(self, chunks: Sequence[Chunk], sizes: Sequence[int]) -> None:
        """Remember chunks whose rows are committed, with what `insert` returned."""
        for chunk, size in zip(chunks, sizes, strict=True):
            self._recent.add(chunk, size)
            self.bytes += size
            self.end = chunk.end

    def read(self, position: int, most_events: int) -> list[Chunk]:
        """Chunks from `position` on, about `most_events` and at least one when there is one.

        What a damaged journal lost at its end reads as an empty chunk, so that nobody waits for it.
        """
        found: list[Chunk] = []
        events = 0
        while events < most_events and position < self.end:
            known = self._known(position)
            read = [known] if known else self._read_rows(position, most_events - events)
            if not read:
                found.append(Chunk((), self.end, self._now))
                break
            found += read
            events += sum([len(chunk.events) for chunk in read])
            position = read[-1].end
        return found

    def _known(self, position: int) -> Chunk | None:
        """The chunk that begins there, when it is in memory; from now on it is so for others."""
        chunk = self._shared.get(position)
        if chunk is None:
            recent = self._recent.pop(position)
            if recent is not None:
                chunk, size = recent
                self._share(chunk, size)
        return chunk

    def _share(self, chunk: Chunk, size: int) -> None:
        if self._readers() > 1:
            self._shared.add(chunk, size)

    def _chunk(self, events: Sequence[Event], first: int, taken_at: float) -> Chunk:
        several = self._readers() > 1 and len(events) >= SHARE_FROM
        return Chunk(events, first, taken_at, shared=SharedEvents(events) if several else None)

    def _read_rows(self, position: int, most_events: int) -> list[Chunk]:
        rows = self._database.rows(
            "SELECT first, count, taken_at, size, checksum, body FROM chunks WHERE first >= coalesce("
            "(SELECT max(first) FROM chunks WHERE first <= ?), ?) ORDER BY first LIMIT ?",
            position,
            position,
            max(2, min(READ_ROWS, most_events // CHUNK_EVENTS + 1)),  # 2: the first may end before `position`
        )
        chunks: list[Chunk] = []
        for row in rows:
            if most_events <= 0:
                break
            chunk = self._known(int(str(row[0])))
            if chunk is None:
                chunk = self._decode(row)
            if chunk.first < position:
                chunk = self._chunk(chunk.events[position - chunk.first :], position, chunk.taken_at)
            if chunk.events:
                chunks.append(chunk)
                most_events -= len(chunk.events)
        return chunks

    def _decode(self, row: tuple[object, ...]) -> Chunk:
        try:
            found = decode_row(row)
        except JournalDamaged:
            self._database.suspect()
            raise
        chunk = self._chunk(found.events, found.first, found.taken_at)
        self._share(chunk, int(str(row[3])))
        return chunk

    def taken_at(self, position: int) -> float | None:
        """When the event at `position`, or the next one kept, was received; None when there is none."""
        chunk = self._shared.get(position) or self._recent.get(position)
        if chunk:
            return chunk.taken_at
        rows = self._database.rows(
            "SELECT first + count, taken_at FROM chunks WHERE first >= coalesce("
            "(SELECT max(first) FROM chunks WHERE first <= ?), ?) ORDER BY first LIMIT 2",
            position,
            position,
        )
        return next((float(str(at)) for end, at in rows if int(str(end)) > position), None)

    def bytes_from(self, position: int) -> int:
        """About how many raw bytes wait from `position` on."""
        kept = self.end - self.trimmed
        return 0 if kept <= 0 else self.bytes * max(0, self.end - max(position, self.trimmed)) // kept

    def trim(self, below: int) -> int:
        """Delete chunks whose events all lie below the offset, TRIM_ROWS at most.

        Returns how many raw bytes that freed: 0 when nothing is left to delete.
        """
        if below <= self.trimmed:
            return 0
        rows = self._database.rows(
            "SELECT first + count, size FROM chunks WHERE first < ? AND first + count <= ? "
            "ORDER BY first LIMIT ?",
            below,
            below,
            TRIM_ROWS,
        )
        if not rows:
            return 0
        keep_from = int(str(rows[-1][0]))
        self._database.write(lambda db: _delete_below(db, keep_from))
        self._recent.drop_below(keep_from)
        self._shared.drop_below(keep_from)
        self.trimmed = keep_from
        freed = sum([int(str(size)) for _, size in rows])
        self.bytes -= freed
        return freed

    def events(self, ranges: list[Range]) -> list[Event]:
        """The events of some offsets. Raises JournalDamaged when one of them is not kept."""
        found: list[Event] = []
        for start, end in ranges:
            position = start
            while position < end:
                for chunk in self.read(position, end - position):
                    if chunk.first != position:
                        raise JournalDamaged(f"the journal does not hold the events from {position} on")
                    found.extend(chunk.events[: end - position])
                    position = chunk.end
        return found

    def missing(self, start: int) -> list[Range]:
        """Offsets from `start` on that have no chunk: lost with a damaged journal."""
        rows = self._database.rows("SELECT first, first + count FROM chunks WHERE first + count > ?", start)
        kept = [(int(str(first)), int(str(end))) for first, end in rows]
        return subtract([(start, self.end)], kept) if start < self.end else []


class _Kept:
    """Chunks in memory, so many raw bytes; the oldest go."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._chunks: dict[int, tuple[Chunk, int]] = {}  # first -> chunk, raw bytes
        self._bytes = 0

    def get(self, first: int) -> Chunk | None:
        found = self._chunks.get(first)
        return found[0] if found else None

    def add(self, chunk: Chunk, size: int) -> None:
        self._chunks[chunk.first] = chunk, size
        self._bytes += size
        while self._bytes > self._most:
            self._drop(next(iter(self._chunks)))

    def pop(self, first: int) -> tuple[Chunk, int] | None:
        """The chunk, which is kept elsewhere from now on, and its raw bytes."""
        found = self._chunks.pop(first, None)
        if found is not None:
            self._bytes -= found[1]
        return found

    def drop_below(self, first: int) -> None:
        for each in [each for each in self._chunks if each < first]:
            self._drop(each)

    def _drop(self, first: int) -> None:
        found = self.pop(first)
        if found is not None and (shared := found[0].shared) is not None:
            shared.let_go()  # batches that still hold it make for themselves what they need


def _delete_below(connection: sqlite3.Connection, first: int) -> None:
    connection.execute("DELETE FROM chunks WHERE first < ?", (first,))
    put_note(connection, "trimmed", first)


def decode_row(row: tuple[object, ...]) -> Chunk:
    """The chunk of a row of `chunks`. Raises JournalDamaged when any of it was altered."""
    first, count, taken_at, size, checksum, stored = row
    try:
        assert isinstance(first, int)
        assert isinstance(taken_at, float)
        assert isinstance(stored, bytes)
        if has_signature(stored) and checksum == sign("chunks", first, count, taken_at, size):
            events = _unpack(signed_body(stored, first))
        elif checksum == old_checksum(stored):  # a row that schema 1 wrote
            events = _unpack(stored)
        else:
            raise BadChecksum("the row was altered")
        assert len(events) == count
    except (BadChecksum, AssertionError, msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise JournalDamaged(
            f"the chunk at {first} of the journal is damaged: start again, and the others are kept"
        ) from error
    return Chunk(events, first, taken_at)


def _unpack(body: bytes | memoryview) -> list[Event]:
    if body[:4] == zstandard.FRAME_HEADER:  # MessagePack's lists begin with other bytes
        body = zstandard.ZstdDecompressor().decompress(body)
    return _decode(body)
