"""One commit of a cursor worked out beforehand, so that memory changes only once the disk has."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from transforms.event import Batch
from transforms.feed.journal.ranges import Range, merge, pack, to_ranges
from transforms.feed.journal.standing import Seal, Standing, insert_seals
from transforms.write.delivery.ledger import Settlement


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
