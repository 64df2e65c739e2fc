"""One destination's place in the journal: its seals, its receipts, its books."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from transforms.event import Batch, Event
from transforms.feed.journal.database import Database
from transforms.feed.journal.ranges import Range, merge, offsets_in, pack, subtract, to_ranges, unpack
from transforms.write.ledger import Settlement


@dataclass
class _Seal:
    """A sealed batch: which offsets, and which of them are settled."""

    batch: str
    partition: str
    offsets: list[Range]
    settled: list[Range] = field(default_factory=list)
    memo: bytes | None = None
    attempts: int = 0

    @property
    def end(self) -> int:
        return self.offsets[-1][1]


class Cursor:
    """The `Ledger` of one destination on one machine.

    `position` moves by receipts alone: it is the lowest offset that is not settled. A seal is kept until the
    position has passed its last offset, because batches finish out of order and a settled one must not be
    sent again after a crash.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        events: Callable[[list[Range]], list[Event]],
        end: Callable[[], int],
    ) -> None:
        """Load the cursor `name`, which must exist.

        events: reads the events of some ranges from the journal.
        end: the journal's next offset.
        """
        self.name = name
        self._database = database
        self._events = events
        self._end = end
        row = database.rows(
            "SELECT born, position, delivered, dead_lettered, lost FROM cursors WHERE name = ?", name
        )[0]
        self.born, self.position, self.delivered, self.dead_lettered, self.lost = (
            int(str(value)) for value in row
        )
        self._seals: dict[int, _Seal] = {}
        self._ahead: dict[int, int] = {}  # settled ranges beyond the position, start -> end
        self._skip: list[Range] = []  # sealed offsets that must not be batched again after a restart
        self._last_number = 0
        self._load_seals()

    def _load_seals(self) -> None:
        rows = self._database.rows(
            "SELECT number, batch, partition, offsets, settled, memo, attempts FROM seals "
            "WHERE destination = ? ORDER BY number",
            self.name,
        )
        for number, batch, partition, offsets, settled, memo, attempts in rows:
            assert isinstance(offsets, bytes)
            assert isinstance(settled, bytes)
            seal = _Seal(
                str(batch), str(partition), unpack(offsets), unpack(settled), attempts=int(str(attempts))
            )
            seal.memo = memo if isinstance(memo, bytes) else None
            self._last_number = int(str(number))
            self._seals[self._last_number] = seal
            self._ahead.update((start, end) for start, end in seal.settled if start >= self.position)

    @property
    def pending(self) -> int:
        """Events received and not settled, counted from the positions and not from the totals."""
        return self._end() - self.position - sum(end - start for start, end in self._ahead.items())

    @property
    def high(self) -> int:
        """No offset at or beyond this one is known to the cursor."""
        return max([self.position, *(seal.end for seal in self._seals.values())])

    def lose(self, missing: list[Range]) -> None:
        """Settle events that a damaged journal lost: counted as lost, never delivered."""
        settled = [pair for seal in self._seals.values() for pair in seal.settled]
        gone = subtract(missing, settled)
        if not gone:
            return
        lost = sum(end - start for start, end in gone)
        self._last_number += 1
        number = self._last_number
        for seal in self._seals.values():
            seal.offsets = subtract(seal.offsets, gone)
        seals = {n: seal for n, seal in self._seals.items() if seal.offsets}
        seals[number] = _Seal("lost", "", gone, gone)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM seals WHERE destination = ?", (self.name,))
            _insert_seals(connection, self.name, seals)
            connection.execute("UPDATE cursors SET lost = lost + ? WHERE name = ?", (lost, self.name))

        self._database.write(write)
        self._seals = seals
        self._ahead.update(gone)
        self.lost += lost

    def recover(self) -> list[Batch]:
        """Sealed batches not yet settled, oldest first, unchanged but for the events settled already."""
        with self._database.lock:
            self._skip = sorted(pair for seal in self._seals.values() for pair in seal.offsets)
            return [self._reopen(n, seal) for n, seal in self._seals.items() if seal.settled != seal.offsets]

    def _reopen(self, number: int, seal: _Seal) -> Batch:
        left = subtract(seal.offsets, seal.settled)
        return Batch(
            events=self._events(left),
            offsets=list(offsets_in(left)),
            partition=seal.partition,
            id=seal.batch,
            seal=number,
            memo=seal.memo,
            attempts=seal.attempts,
            on_remember=self.remember,
        )

    def is_sealed(self, first: int, end: int) -> Collection[int]:
        """Offsets of [first, end) that `recover` has dealt with: they must not go into a batch again."""
        if not self._skip or first >= self._skip[-1][1]:
            return ()
        return set(offsets_in((max(a, first), min(b, end)) for a, b in self._skip if a < end and b > first))

    def commit(self, settlements: Sequence[Settlement], seals: Sequence[Batch]) -> None:
        """In one transaction record outcomes, then seal new batches. Raises sqlite3.OperationalError (a full
        disk): then nothing has changed and the call may be repeated."""
        with self._database.lock:
            plan = _Plan(self, settlements, seals)
            if settlements or seals:
                self._database.write(plan.write)
                plan.apply()

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Replace a sealed batch by parts of what is unsettled of it, in one transaction."""
        with self._database.lock:
            plan = _Plan(self, (), parts)
            seal = self._seals[batch.seal]
            rest = subtract(seal.offsets, [pair for part in parts for pair in to_ranges(part.offsets)])

            def write(connection: sqlite3.Connection) -> None:
                if rest:  # what is settled of it stays on record under the old number
                    connection.execute(
                        "UPDATE seals SET offsets = ?, settled = ? WHERE destination = ? AND number = ?",
                        (pack(rest), pack(rest), self.name, batch.seal),
                    )
                else:
                    connection.execute(
                        "DELETE FROM seals WHERE destination = ? AND number = ?", (self.name, batch.seal)
                    )
                plan.write(connection)

            self._database.write(write)
            if rest:
                seal.offsets = seal.settled = rest
            else:
                del self._seals[batch.seal]
            plan.apply()

    def remember(self, batch: Batch, memo: bytes) -> None:
        """Commit `memo` to the batch's seal."""
        with self._database.lock:
            self._database.write(
                lambda connection: _save_memo(connection, self.name, batch.seal, memo),
            )
            self._seals[batch.seal].memo = memo


def _save_memo(connection: sqlite3.Connection, name: str, number: int, memo: bytes) -> None:
    connection.execute("UPDATE seals SET memo = ? WHERE destination = ? AND number = ?", (memo, name, number))


def _insert_seals(connection: sqlite3.Connection, name: str, seals: dict[int, _Seal]) -> None:
    connection.executemany(
        "INSERT INTO seals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (name, number, s.batch, s.partition, pack(s.offsets), pack(s.settled), s.memo, s.attempts)
            for number, s in seals.items()
        ],
    )


class _Plan:
    """A commit worked out beforehand, so that memory changes only once the disk has."""

    def __init__(self, cursor: Cursor, settlements: Sequence[Settlement], seals: Sequence[Batch]) -> None:
        self._cursor = cursor
        self._seals = [
            _Seal(b.id, b.partition, to_ranges(b.offsets), memo=b.memo, attempts=b.attempts) for b in seals
        ]
        self._batches = seals
        self._settled: dict[int, tuple[list[Range], int]] = {}
        self._newly: list[Range] = []
        self._delivered = self._dead = 0
        for settlement in settlements:
            self._take(settlement)
        self._advance()

    def _take(self, settlement: Settlement) -> None:
        number = settlement.batch.seal
        seal = self._cursor._seals[number]
        before = self._settled[number][0] if number in self._settled else seal.settled
        newly = to_ranges(sorted([*settlement.delivered, *settlement.dead_lettered]))
        self._settled[number] = (merge([*before, *newly]), settlement.batch.attempts)
        self._newly += newly
        self._delivered += len(settlement.delivered)
        self._dead += len(settlement.dead_lettered)

    def _advance(self) -> None:
        cursor = self._cursor
        added = dict(self._newly)
        position = cursor.position
        while True:
            end = added.get(position) or cursor._ahead.get(position)
            if end is None:
                break
            position = end
        self._position = position
        self._passed = (
            [n for n, seal in cursor._seals.items() if seal.end <= position]
            if position > cursor.position
            else []
        )

    def write(self, connection: sqlite3.Connection) -> None:
        cursor = self._cursor
        name = cursor.name
        passed = set(self._passed)
        connection.executemany(
            "UPDATE seals SET settled = ?, attempts = ? WHERE destination = ? AND number = ?",
            [(pack(r), tries, name, n) for n, (r, tries) in self._settled.items() if n not in passed],
        )
        connection.executemany(
            "DELETE FROM seals WHERE destination = ? AND number = ?", [(name, n) for n in self._passed]
        )
        first = cursor._last_number + 1
        _insert_seals(connection, name, dict(enumerate(self._seals, first)))
        if self._settled:
            connection.execute(
                "UPDATE cursors SET position = ?, delivered = delivered + ?, "
                "dead_lettered = dead_lettered + ? WHERE name = ?",
                (self._position, self._delivered, self._dead, name),
            )

    def apply(self) -> None:
        cursor = self._cursor
        for number, (ranges, attempts) in self._settled.items():
            seal = cursor._seals[number]
            seal.settled, seal.attempts = ranges, attempts
        for number in self._passed:
            del cursor._seals[number]
        cursor._ahead.update(self._newly)
        if self._position > cursor.position:
            cursor._ahead = {a: b for a, b in cursor._ahead.items() if a >= self._position}
            cursor.position = self._position
        cursor.delivered += self._delivered
        cursor.dead_lettered += self._dead
        for batch, seal in zip(self._batches, self._seals, strict=True):
            cursor._last_number += 1
            batch.seal = cursor._last_number
            batch.on_remember = cursor.remember
            cursor._seals[batch.seal] = seal
