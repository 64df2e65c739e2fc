"""The chunks of the journal: one row each, the recent ones in memory too."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from transforms.event import Chunk, Event
from transforms.feed.journal.database import Database
from transforms.feed.journal.ranges import Range, subtract

CHUNK_EVENTS = 500  # measured: chunks of this size pass Beam at 300k events a second
CACHE_BYTES = 8 * 1024 * 1024  # raw bytes of recent chunks kept for lanes that keep up
READ_ROWS = 64  # rows read back at once by a lane that lags

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Event]).decode


class ChunkStore:
    """Appends, reads and trims chunk rows. The journal's lock guards all calls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: dict[int, Chunk] = {}
        self._cached_bytes = 0
        first, size = database.rows("SELECT min(first), total(size) FROM chunks")[0]
        last = database.rows(
            "SELECT max(coalesce((SELECT first + count FROM chunks ORDER BY first DESC LIMIT 1), 0), "
            "coalesce((SELECT value FROM meta WHERE key = 'trimmed'), 0))"
        )
        self.end = int(str(last[0][0]))  # the next offset
        self.trimmed = int(str(first)) if first is not None else self.end  # nothing below is kept
        self.bytes = int(float(str(size)))  # raw bytes kept

    def begin_at(self, end: int) -> None:
        """Give the next event at least this offset (a damaged journal may have lost its last chunks)."""
        if not self.bytes:
            self.trimmed = end
        self.end = end

    def split(self, events: Sequence[Event], taken_at: float) -> list[Chunk]:
        """New chunks for `events` at the end of the journal; nothing is stored yet."""
        return [
            Chunk(events[start : start + CHUNK_EVENTS], self.end + start, taken_at)
            for start in range(0, len(events), CHUNK_EVENTS)
        ]

    def insert(self, connection: sqlite3.Connection, chunks: Sequence[Chunk]) -> None:
        """Write the rows, inside the caller's transaction."""
        connection.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
            [(c.first, len(c.events), c.taken_at, size_of(c), _encode(c.events)) for c in chunks],
        )

    def committed(self, chunks: Sequence[Chunk]) -> None:
        """Remember chunks whose rows are committed."""
        for chunk in chunks:
            size = size_of(chunk)
            self._cache[chunk.first] = chunk
            self._cached_bytes += size
            self.bytes += size
            self.end = chunk.end
        while self._cached_bytes > CACHE_BYTES:
            oldest = next(iter(self._cache))
            self._cached_bytes -= size_of(self._cache.pop(oldest))

    def read(self, position: int, most_events: int) -> list[Chunk]:
        """Chunks from `position` on, about `most_events` and at least one when there is one."""
        found: list[Chunk] = []
        events = 0
        while events < most_events and position < self.end:
            chunk = self._cache.get(position)
            if chunk is None:
                read = self._read_rows(position)
                if not read:
                    break
            else:
                read = [chunk]
            for chunk in read:
                if events < most_events:
                    found.append(chunk)
                    events += len(chunk.events)
                    position = chunk.end
        return found

    def _read_rows(self, position: int) -> list[Chunk]:
        rows = self._database.rows(
            "SELECT first, taken_at, body FROM chunks WHERE first >= coalesce("
            "(SELECT max(first) FROM chunks WHERE first <= ?), ?) ORDER BY first LIMIT ?",
            position,
            position,
            READ_ROWS if position + CHUNK_EVENTS < self.end else 1,
        )
        chunks = [decode_row(row) for row in rows]
        if chunks and chunks[0].first < position:
            head = chunks[0]
            rest = head.events[position - head.first :]
            chunks[0:1] = [Chunk(rest, position, head.taken_at)] if rest else []
        return chunks

    def bytes_from(self, position: int) -> int:
        """About how many raw bytes wait from `position` on."""
        kept = self.end - self.trimmed
        return 0 if kept <= 0 else self.bytes * max(0, self.end - max(position, self.trimmed)) // kept

    def trim(self, below: int) -> int:
        """Delete the chunks whose events all lie below the offset; how many raw bytes that freed."""
        if below <= self.trimmed:
            return 0
        if below >= self.end:
            keep_from = self.end
        else:
            found = self._database.rows("SELECT max(first) FROM chunks WHERE first <= ?", below)[0][0]
            keep_from = int(str(found)) if found is not None else below
        if keep_from <= self.trimmed:
            return 0
        freed = int(
            float(str(self._database.rows("SELECT total(size) FROM chunks WHERE first < ?", keep_from)[0][0]))
        )
        self._database.write(lambda db: _delete_below(db, keep_from))
        self._cache_drop(keep_from)
        self.trimmed = keep_from
        self.bytes -= freed
        return freed

    def _cache_drop(self, below: int) -> None:
        for first in [first for first in self._cache if first < below]:
            self._cached_bytes -= size_of(self._cache.pop(first))

    def events(self, ranges: list[Range]) -> list[Event]:
        """The events of some offsets, all of which are kept."""
        found: list[Event] = []
        for start, end in ranges:
            position = start
            while position < end:
                for chunk in self.read(position, end - position):
                    found.extend(chunk.events[max(0, position - chunk.first) : end - chunk.first])
                    position = chunk.end
        return found

    def missing(self, start: int) -> list[Range]:
        """Offsets from `start` on that have no chunk: lost with a damaged journal."""
        rows = self._database.rows("SELECT first, first + count FROM chunks WHERE first + count > ?", start)
        kept = [(int(str(first)), int(str(end))) for first, end in rows]
        return subtract([(start, self.end)], kept) if start < self.end else []


def _delete_below(connection: sqlite3.Connection, first: int) -> None:
    connection.execute("DELETE FROM chunks WHERE first < ?", (first,))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('trimmed', ?)", (first,))


def decode_row(row: tuple[object, ...]) -> Chunk:
    """A chunk from (first, taken_at, body). Raises msgspec.DecodeError when the body is damaged."""
    first, taken_at, body = row
    assert isinstance(first, int)
    assert isinstance(taken_at, float)
    assert isinstance(body, bytes)
    return Chunk(_decode(body), first, taken_at)


def size_of(chunk: Chunk) -> int:
    """Raw bytes of a chunk's events."""
    return sum([len(event.raw) for event in chunk.events])
