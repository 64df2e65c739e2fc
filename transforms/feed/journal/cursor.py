"""One destination's place in the journal: the ledger of its deliveries on one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence

from transforms.event import Batch, Event
from transforms.feed.journal.commit_plan import CommitPlan
from transforms.feed.journal.database import Database
from transforms.feed.journal.ranges import Range, offsets_in, pack, size, subtract, to_ranges
from transforms.feed.journal.standing import Seal, Standing, insert_seals
from transforms.write.delivery.ledger import Settlement


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
