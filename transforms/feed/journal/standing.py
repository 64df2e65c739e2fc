"""Where one destination stands in the journal: position, totals, seals; as loaded from its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from transforms.feed.journal.database import Database
from transforms.feed.journal.ranges import Range, pack, size, unpack


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
