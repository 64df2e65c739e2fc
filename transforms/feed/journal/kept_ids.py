"""Ids of received events, kept beyond the events themselves: blocks of them, the oldest of which go first.

The newest events' ids are not in a block yet: they are read from the chunks, none of which is deleted before.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from transforms.clock import Clock
from transforms.event import Event
from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.database import Database, note, number_noted, put_note
from transforms.feed.journal.id_blocks import NEVER, Origin, block_of, pack_block
from transforms.feed.journal.receipt_log import ReceiptLog, delete_below
from transforms.feed.journal.schema import sign, sign_body

log = logging.getLogger("grantex.journal")
BLOCK = 4_096  # ids, about 45 KB: a look-up reads one or two blocks; a day at 1,000 events/s has 21,000
BLOCK_EVERY = 5.0  # seconds after which a smaller one is written: events wait for it to be deleted
EXPIRE_EVERY = 10.0  # seconds between looks at what has become old
EXPIRE_BLOCKS = 4  # that go in one transaction, with the receipts of their events
EXPIRE_MOST = 64  # transactions in a row; the next trim goes on
HEAD_BYTES = 90  # of a block's row and its place in both tables


@dataclass
class Addition:
    """What an append adds, and the block that it fills, if it does."""

    ids: list[str]
    origin: Origin
    block: tuple[object, ...] | None = None
    body: bytes = b""


class KeptIds:
    """Gathers ids, writes them in blocks and lets the oldest go. The journal's lock guards all calls.

    Their age is the time for which journals were open here, by the monotonic clock: while nobody runs it
    stands still, so that no wall clock takes them away early.
    """

    def __init__(
        self,
        database: Database,
        chunks: ChunkStore,
        receipts: ReceiptLog,
        clock: Clock,
        retention: float,
        max_bytes: int,
    ) -> None:
        """retention: seconds, max_bytes: at most so many with the receipts; 0: none are kept."""
        self._database, self._chunks, self._receipts, self._clock = database, chunks, receipts, clock
        self._retention, self._max_bytes = retention, max_bytes
        self.first = number_noted(database, "receipts")
        self.until = number_noted(database, "received")
        lived = note(database, "lived")
        self._before = lived if isinstance(lived, float) else 0.0
        self._opened = self._looked = clock.monotonic()
        self.bytes = int(float(str(database.rows("SELECT total(size) FROM received")[0][0])))
        self.block = BLOCK
        self._tail: list[str] = []
        self._origins: list[Origin] = []
        self._tail_since = 0.0
        if self.on:
            self._load()

    @property
    def on(self) -> bool:
        """Whether ids and receipts are kept."""
        return self._receipts.on

    @property
    def lived(self) -> float:
        """Seconds for which journals were open here."""
        return self._before + self._clock.monotonic() - self._opened

    def add(self, events: Sequence[Event], at: float, connection: str) -> Addition | None:
        """What `write` and `added` are given for events about to be appended; changes nothing."""
        if not self.on or not events:
            return None
        addition = Addition([event.id for event in events], Origin(len(events), at, connection))
        if len(self._tail) + len(events) >= self.block:
            ids, origins = self._tail + addition.ids, [*self._origins, addition.origin]
            addition.block, addition.body = self._row(ids, origins)
        return addition

    def write(self, connection: sqlite3.Connection, addition: Addition | None) -> None:
        """Write the block, if there is one, inside the caller's transaction."""
        if addition is not None and addition.block is not None:
            self._insert(connection, addition.block, addition.body)

    def added(self, addition: Addition | None) -> None:
        """It is committed."""
        if addition is None:
            return
        if addition.block is not None:
            self._inserted(addition.block)
            return
        if not self._tail:
            self._tail_since = self._clock.monotonic()
        self._tail += addition.ids
        last = self._origins[-1] if self._origins else None
        if last is not None and (last.at, last.connection) == (
            addition.origin.at,
            addition.origin.connection,
        ):
            last.count += addition.origin.count
        else:
            self._origins.append(addition.origin)

    def deletable(self) -> int:
        """Chunks below this offset may be deleted for all that ids need them."""
        return self.until if self.on else self._chunks.end

    def flush(self, *, now: bool = False) -> None:
        """Write what has gathered for a while; now: without waiting. Raises sqlite3.OperationalError."""
        if self._tail and (now or self._clock.monotonic() - self._tail_since >= BLOCK_EVERY):
            self._put(*self._row(self._tail, self._origins))

    def close(self) -> None:
        """Write what has gathered, and how long this journal was open."""
        self.flush(now=True)
        if self.on:
            self._database.write(lambda connection: put_note(connection, "lived", self.lived))

    def expire(self, *, short: bool) -> bool:
        """Let some of the oldest go that are too old, or too many; short: the disk is full, so any of them.

        True when more may be to go. Raises sqlite3.OperationalError.
        """
        now = self._clock.monotonic()
        if not (short or not self.on or self.bytes > self._max_bytes or now - self._looked >= EXPIRE_EVERY):
            return False
        rows = self._database.rows(
            "SELECT first + count, until, lived, size FROM received ORDER BY first LIMIT ?", EXPIRE_BLOCKS
        )
        gone, since, excess = self.first, 0.0, self.bytes - self._max_bytes
        for end, until, lived, size in rows:
            old = self.lived - float(str(lived)) >= self._retention and int(str(end)) <= self._chunks.trimmed
            if not (old or short or not self.on or excess > 0):
                break
            gone, since = int(str(end)), max(since, float(str(until)))
            excess -= int(str(size))
        if gone == self.first:
            self._looked = now
            return False
        self._forget(gone, since, sum(int(str(row[3])) for row in rows if int(str(row[0])) <= gone))
        return True

    def _forget(self, below: int, since: float, size: int) -> None:
        before = note(self._database, "receipts_since")
        since = max(since, before if isinstance(before, float) else 0.0)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM received WHERE first < ?", (below,))
            connection.execute("DELETE FROM received_ids WHERE first < ?", (below,))
            delete_below(connection, below)
            put_note(connection, "receipts", below)
            put_note(connection, "receipts_since", since)

        self._database.write(write)
        self.first = below
        self.bytes -= size

    def _load(self) -> None:
        """Gather the ids of events that no block holds, from their chunks; others are lost."""
        if self.until < self._chunks.trimmed:
            self._write_unknown(self._chunks.trimmed)
        position = self.until
        while position < self._chunks.end:
            for chunk in self._chunks.read(position, self.block):
                if chunk.first > position and chunk.events:
                    self.flush(now=True)
                    self._write_unknown(chunk.first)
                addition = self.add(chunk.events, chunk.taken_at, "")
                if addition is not None and addition.block is not None:
                    self._put(addition.block, addition.body)
                else:
                    self.added(addition)
                position = chunk.end if chunk.events else self._chunks.end
        if self.until + len(self._tail) < self._chunks.end:
            self.flush(now=True)
            self._write_unknown(self._chunks.end)

    def _write_unknown(self, end: int) -> None:
        """A block for events up to an offset whose ids nobody knows any more."""
        self._put(unknown_row(self.until, end, self._clock.now(), self.lived))

    def _put(self, row: tuple[object, ...], body: bytes = b"") -> None:
        """Write a block in a transaction of its own."""
        self._database.write(lambda connection: self._insert(connection, row, body))
        self._inserted(row)

    def _row(self, ids: Sequence[str], origins: Sequence[Origin]) -> tuple[tuple[object, ...], bytes]:
        """A block's row, and its body."""
        packed = pack_block(block_of(ids, origins))
        times = [origin.at for origin in origins]
        size = HEAD_BYTES + len(packed.body) + len(packed.odd) + self._receipts.bytes
        head = (float(min(times)), float(max(times)), packed.low, packed.high, self.lived, size, packed.odd)
        row = (self.until, len(ids), *head)
        return (*row, sign("received", *row)), packed.body

    def _insert(self, connection: sqlite3.Connection, row: tuple[object, ...], body: bytes) -> None:
        first = int(str(row[0]))
        connection.execute("INSERT INTO received VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if body:
            connection.execute("INSERT INTO received_ids VALUES (?, ?)", (first, sign_body(body, first)))
        put_note(connection, "received", first + int(str(row[1])))
        put_note(connection, "lived", self.lived)

    def _inserted(self, row: tuple[object, ...]) -> None:
        self.until = int(str(row[0])) + int(str(row[1]))
        self.bytes += int(str(row[7]))
        self._receipts.bytes = 0
        self._tail, self._origins = [], []


def unknown_row(first: int, end: int, now: float, lived: float) -> tuple[object, ...]:
    """A row of `received` for events whose ids nobody knows any more; such a block has no body."""
    row = (first, end - first, now, now, NEVER, NEVER, lived, HEAD_BYTES, b"")
    return (*row, sign("received", *row))


def is_unknown(low: int, odd: bytes) -> bool:
    """Whether a row of `received` is such a one."""
    return low == NEVER and not odd
