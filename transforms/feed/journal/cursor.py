"""One destination's place in the journal: the ledger of its deliveries on one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from transforms.event import Batch, Event
from transforms.feed.journal.database import Database
from transforms.feed.journal.ranges import Range, merge, offsets_in, pack, size, subtract, to_ranges, unpack
from transforms.write.delivery.ledger import Settlement


@dataclass
class Seal:
    """A sealed batch: which offsets, and which of them are settled."""

    batch: str
    partition: str
    offsets: list[Range]
    settled: list[Range] = field(default_factory=list)
    memo: bytes | None = None
    attempts: int = 0

    @property
    def end(self) -> int:
        """The offset after its last one."""
        return self.offsets[-1][1]


class Standing:
    """What is known of one destination. `position` is the lowest offset that is not settled."""

    def __init__(self, name: str, database: Database) -> None:
        """Load the destination `name`, which must have a row."""
        self.name = name
        row = database.rows(
            "SELECT born, position, delivered, dead_lettered, lost FROM cursors WHERE name = ?", name
        )[0]
        self.born, self.position, self.delivered, self.dead_lettered, self.lost = (
            int(str(value)) for value in row
        )
        self.seals: dict[int, Seal] = {}  # by number, oldest first
        self.ahead: dict[int, int] = {}  # settled ranges at or beyond the position, start -> end
        self.last_number = 0
        for number, batch, partition, offsets, settled, memo, attempts in database.rows(
            "SELECT number, batch, partition, offsets, settled, memo, attempts FROM seals "
            "WHERE destination = ? ORDER BY number",
            name,
        ):
            assert isinstance(offsets, bytes)
            assert isinstance(settled, bytes)
            seal = Seal(
                str(batch), str(partition), unpack(offsets), unpack(settled), attempts=int(str(attempts))
            )
            seal.memo = memo if isinstance(memo, bytes) else None
            self.last_number = int(str(number))
            self.seals[self.last_number] = seal
            self.ahead.update((start, end) for start, end in seal.settled if start >= self.position)

    @property
    def high(self) -> int:
        """No offset at or beyond this one is known to the destination."""
        return max([self.position, *(seal.end for seal in self.seals.values())])

    def reached(self, newly: Mapping[int, int]) -> int:
        """The position once the ranges `newly` (start -> end) are settled too."""
        position = self.position
        while True:
            end = newly.get(position) or self.ahead.get(position)
            if end is None:
                return position
            position = end

    def move(self, position: int) -> None:
        """Stand at `position`; what lies below it is over."""
        if position > self.position:
            self.ahead = {start: end for start, end in self.ahead.items() if start >= position}
            self.position = position

    def unsettled(self, end: int) -> int:
        """Events below `end` that are not settled, counted from the ranges and not from the totals."""
        return end - self.position - size(list(self.ahead.items()))


def insert_seals(connection: sqlite3.Connection, name: str, seals: Iterable[tuple[int, Seal]]) -> None:
    """Write numbered seals, inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO seals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (name, number, s.batch, s.partition, pack(s.offsets), pack(s.settled), s.memo, s.attempts)
            for number, s in seals
        ],
    )


class CommitPlan:
    """`write` goes into the transaction, `apply` follows once it is committed."""

    def __init__(
        self, standing: Standing, settlements: Sequence[Settlement], batches: Sequence[Batch]
    ) -> None:
        self._standing = standing
        self._batches = batches
        self._seals = [
            Seal(b.id, b.partition, to_ranges(b.offsets), memo=b.memo, attempts=b.attempts) for b in batches
        ]
        self._settled: dict[int, tuple[list[Range], int]] = {}
        self._newly: dict[int, int] = {}
        self._delivered = self._dead = 0
        for settlement in settlements:
            self._take(settlement)
        self._position = standing.reached(self._newly)
        self._passed = (
            [n for n, seal in standing.seals.items() if seal.end <= self._position]
            if self._position > standing.position
            else []
        )

    def _take(self, settlement: Settlement) -> None:
        number = settlement.batch.seal
        earlier = self._settled.get(number)
        before = earlier[0] if earlier else self._standing.seals[number].settled
        newly = to_ranges(sorted([*settlement.delivered, *settlement.dead_lettered]))
        self._settled[number] = (merge([*before, *newly]), settlement.batch.attempts)
        self._newly.update(newly)
        self._delivered += len(settlement.delivered)
        self._dead += len(settlement.dead_lettered)

    def write(self, connection: sqlite3.Connection) -> None:
        """Record it, inside the caller's transaction."""
        name = self._standing.name
        passed = set(self._passed)
        connection.executemany(
            "UPDATE seals SET settled = ?, attempts = ? WHERE destination = ? AND number = ?",
            [(pack(r), tries, name, n) for n, (r, tries) in self._settled.items() if n not in passed],
        )
        connection.executemany(
            "DELETE FROM seals WHERE destination = ? AND number = ?", [(name, n) for n in self._passed]
        )
        insert_seals(connection, name, enumerate(self._seals, self._standing.last_number + 1))
        if self._newly:
            connection.execute(
                "UPDATE cursors SET position = ?, delivered = delivered + ?, "
                "dead_lettered = dead_lettered + ? WHERE name = ?",
                (self._position, self._delivered, self._dead, name),
            )

    def apply(self) -> None:
        """Let memory follow; the batches get their numbers."""
        standing = self._standing
        for number, (ranges, attempts) in self._settled.items():
            standing.seals[number].settled = ranges
            standing.seals[number].attempts = attempts
        for number in self._passed:
            del standing.seals[number]
        standing.ahead.update(self._newly)
        standing.move(self._position)
        standing.delivered += self._delivered
        standing.dead_lettered += self._dead
        for batch, seal in zip(self._batches, self._seals, strict=True):
            standing.last_number += 1
            batch.seal = standing.last_number
            standing.seals[batch.seal] = seal


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
        self._standing = Standing(name, database)
        self._skip: list[Range] = []  # sealed offsets that must not be batched again after a restart

    @property
    def born(self) -> int:
        """The journal's end when the destination was added."""
        return self._standing.born

    @property
    def position(self) -> int:
        """The lowest offset that is not settled."""
        return self._standing.position

    @property
    def delivered(self) -> int:
        """Events delivered since the cursor was born."""
        return self._standing.delivered

    @property
    def dead_lettered(self) -> int:
        """Events dead-lettered since the cursor was born."""
        return self._standing.dead_lettered

    @property
    def lost(self) -> int:
        """Events lost with a damaged journal."""
        return self._standing.lost

    @property
    def pending(self) -> int:
        """Events received and not settled, counted from the positions and not from the totals."""
        with self._database.lock:
            return self._standing.unsettled(self._end())

    @property
    def high(self) -> int:
        """No offset at or beyond this one is known to the cursor."""
        return self._standing.high

    def recover(self) -> list[Batch]:
        """Sealed batches not yet settled, oldest first, unchanged but for the events settled already."""
        with self._database.lock:
            seals = self._standing.seals
            self._skip = sorted(pair for seal in seals.values() for pair in seal.offsets)
            return [self._reopen(n, seal) for n, seal in seals.items() if seal.settled != seal.offsets]

    def _reopen(self, number: int, seal: Seal) -> Batch:
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
        if not settlements and not seals:
            return
        with self._database.lock:
            plan = CommitPlan(self._standing, settlements, seals)
            self._database.write(plan.write)
            plan.apply()
        self._listen(seals)

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Replace a sealed batch by parts of what is unsettled of it, in one transaction."""
        with self._database.lock:
            plan = CommitPlan(self._standing, (), parts)
            seal = self._standing.seals[batch.seal]
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
                del self._standing.seals[batch.seal]
            plan.apply()
        self._listen(parts)

    def _listen(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            batch.on_remember = self.remember

    def remember(self, batch: Batch, memo: bytes) -> None:
        """Commit `memo` to the batch's seal."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE seals SET memo = ? WHERE destination = ? AND number = ?",
                (memo, self.name, batch.seal),
            )

        with self._database.lock:
            self._database.write(write)
            self._standing.seals[batch.seal].memo = memo

    def advance(self, to: int) -> None:
        """Count everything below `to` as delivered: for a reader whose runner keeps what it has read."""
        with self._database.lock:
            mine = self._standing
            if to <= mine.position:
                return
            delivered = mine.unsettled(self._end()) - size(
                subtract([(to, self._end())], list(mine.ahead.items()))
            )
            position = max([to, *(end for start, end in mine.ahead.items() if start <= to)])

            def write(connection: sqlite3.Connection) -> None:
                connection.execute(
                    "UPDATE cursors SET position = ?, delivered = delivered + ? WHERE name = ?",
                    (position, delivered, self.name),
                )

            self._database.write(write)
            mine.move(position)
            mine.delivered += delivered

    def lose(self, missing: list[Range]) -> None:
        """Settle events that a damaged journal lost: counted as lost, never delivered.

        The books are balanced anew, because seals that told of settled events may be lost too: those events
        are delivered again, so they are no longer counted as delivered.
        """
        mine = self._standing
        for seal in mine.seals.values():  # of a cursor that was lost itself and is born anew
            seal.offsets = subtract(seal.offsets, [(0, mine.born)])
            seal.settled = subtract(seal.settled, [(0, mine.born)])
        gone = subtract(missing, [pair for seal in mine.seals.values() for pair in seal.settled])
        if gone:
            for seal in mine.seals.values():
                seal.offsets = subtract(seal.offsets, gone)
            mine.last_number += 1
            mine.seals[mine.last_number] = Seal("lost", "", gone, gone)
            mine.ahead.update(gone)
            mine.lost += size(gone)
        mine.move(mine.reached({}))
        mine.seals = {n: s for n, s in mine.seals.items() if s.offsets and s.end > mine.position}
        self._balance()
        self._database.write(self._save_all)

    def _balance(self) -> None:
        mine = self._standing
        accounted = mine.delivered + mine.dead_lettered + mine.lost + self.pending
        excess = accounted - (self._end() - mine.born)
        if excess < 0:  # its totals were lost, and seals say that these are settled
            mine.delivered -= excess
        repeated = max(0, min(excess, mine.delivered))
        mine.delivered -= repeated
        mine.dead_lettered -= max(0, excess - repeated)

    def _save_all(self, connection: sqlite3.Connection) -> None:
        mine = self._standing
        connection.execute("DELETE FROM seals WHERE destination = ?", (self.name,))
        insert_seals(connection, self.name, mine.seals.items())
        connection.execute(
            "UPDATE cursors SET position = ?, delivered = ?, dead_lettered = ?, lost = ? WHERE name = ?",
            (mine.position, mine.delivered, mine.dead_lettered, mine.lost, self.name),
        )


@dataclass(frozen=True)
class Books:
    """One destination's account since its cursor was born, in events."""

    received: int
    delivered: int
    dead_lettered: int
    pending: int
    lost: int = 0  # with a damaged journal

    @property
    def balanced(self) -> bool:
        """received = delivered + dead-lettered + pending + lost; `pending` is counted by itself."""
        return self.received == self.delivered + self.dead_lettered + self.pending + self.lost
