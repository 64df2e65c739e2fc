"""A destination's sealed batches and totals, in memory and in the journal, and how both change together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transforms.event import Batch
from transforms.feed.journal.database import Database, number_noted, put_note, put_rows
from transforms.feed.journal.ranges import Range, merge, pack, size, subtract, to_ranges, unpack
from transforms.feed.journal.receipt_log import ReceiptLog, ReceiptRow
from transforms.feed.journal.schema import COLUMNS, sign
from transforms.write.delivery.ledger import Filtered, Settlement

DELETE = "DELETE FROM seals WHERE destination = ? AND number >= ? AND number < ?"
FILTERED = "filtered"  # in the place of a batch's id; no batch is called so
MOST_RANGES = 1_000  # in one seal of what was not asked for


def filtered_note(destination: str) -> str:
    """Under which note it stands how many events a destination did not ask for: in `cursors` there is no
    column for it, and so a release that knows nothing of it opens the journal all the same."""
    return f"filtered:{destination}"


@dataclass(slots=True)
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

    def row(self, destination: str, number: int) -> tuple[object, ...]:
        """Its row of `seals`, checksum included."""
        offsets, settled = pack(self.offsets), pack(self.settled)
        row = (destination, number, self.batch, self.partition, offsets, settled, self.memo, self.attempts)
        return (*row, sign("seals", *row))


class CursorRow(NamedTuple):
    """A row of `cursors`, without its checksum."""

    name: str
    born: int  # the journal's end when the destination was added
    position: int  # the lowest offset that is not settled
    delivered: int = 0
    dead_lettered: int = 0
    lost: int = 0  # with a damaged journal
    sealed: int = 0  # no offset from this one on was ever sealed
    seals: int = 0  # the checksums of its seals, combined: says whether one of them is missing
    doubt: bytes = b""  # packed ranges that may be settled: a damaged journal lost the seals that told

    def write(self, connection: sqlite3.Connection) -> None:
        """Put it in place of the one before, inside the caller's transaction."""
        marks = ", ".join("?" * (len(self) + 1))
        row = (*self, sign("cursors", *self))
        connection.execute(f"INSERT OR REPLACE INTO cursors VALUES ({marks})", row)  # noqa: S608


class CursorState:
    """What is known of one destination."""

    def __init__(self, name: str, database: Database, receipts: ReceiptLog) -> None:
        """Load the destination `name`, which must have a row."""
        self.receipts = receipts
        [row] = database.rows(f"SELECT {COLUMNS['cursors']} FROM cursors WHERE name = ?", name)  # noqa: S608
        self.row = CursorRow(*row[:-1])  # type: ignore[arg-type]
        self.seals: dict[int, Seal] = {}  # by number, oldest first
        self.checksums: dict[int, int] = {}  # of their rows
        self.ahead: dict[int, int] = {}  # settled ranges at or beyond the position, start -> end
        self.last_number = 0
        # Events that were not asked for: how many, and the number of the seal that has the latest of them.
        self.filtered = number_noted(database, self._filtered_note)
        self.filtered_number = 0
        for _, number, batch, partition, offsets, settled, memo, attempts, checksum in database.each(
            f"SELECT {COLUMNS['seals']} FROM seals WHERE destination = ? ORDER BY number",  # noqa: S608
            name,
        ):
            seal = Seal(batch, partition, unpack(offsets), unpack(settled), memo, attempts)
            self.last_number = number
            self.filtered_number = number if batch == FILTERED else self.filtered_number
            self.seals[number] = seal
            self.checksums[number] = checksum
            self.ahead.update((start, end) for start, end in seal.settled if start >= self.row.position)

    @property
    def _filtered_note(self) -> str:
        return filtered_note(self.row.name)

    def note_filtered(self, connection: sqlite3.Connection, count: int) -> None:
        """Keep how many were not asked for, inside the caller's transaction."""
        put_note(connection, self._filtered_note, count or None)

    @property
    def digest(self) -> int:
        """`CursorRow.seals` as it is right for the seals that are there."""
        combined = 0
        for checksum in self.checksums.values():
            combined ^= checksum
        return combined

    def reached(self, newly: Mapping[int, int]) -> int:
        """The position once the ranges `newly` (start -> end) are settled too."""
        position = self.row.position
        while True:
            end = newly.get(position) or self.ahead.get(position)
            if end is None:
                return position
            position = end

    def move_to(self, row: CursorRow) -> None:
        """Stand where a row says; what lies below its position is over."""
        if row.position > self.row.position:
            self.ahead = {start: end for start, end in self.ahead.items() if start >= row.position}
        self.row = row

    def unsettled(self, end: int) -> int:
        """Events below `end` that are not settled, counted from the ranges and not from the totals."""
        return end - self.row.position - size(list(self.ahead.items()))


class Change:
    """A change of seals and totals: `write` goes into a transaction, `apply` follows once it is committed."""

    def __init__(
        self,
        state: CursorState,
        settlements: Sequence[Settlement] = (),
        new: Iterable[Seal] = (),
        replaced: Mapping[int, Seal | None] | None = None,
        doubt: list[Range] | None = None,
        receipts: Sequence[ReceiptRow] = (),
        filtered: Filtered | None = None,
    ) -> None:
        """new: seals that get the next numbers, `settled` in them counted as dead letters.

        replaced: number -> what stands there from now on; None: nothing.
        doubt: what is in doubt from now on; None: as before.
        receipts: of what is settled otherwise than by settlements.
        filtered: what was not asked for.
        """
        self._state = state
        self._receipts = [*receipts, *state.receipts.rows(state.row.name, settlements)]
        self._trouble = state.receipts.trouble(state.row.name, settlements) if settlements else None
        self._changed = dict(replaced or {})
        self._newly: dict[int, int] = {}
        self._delivered = self._dead = 0
        for settlement in settlements:
            self._settle(settlement)
        self.numbers: list[int] = []
        for number, seal in enumerate(new, state.last_number + 1):
            self.numbers.append(number)
            self._changed[number] = seal
            self._newly.update(seal.settled)
            self._dead += size(seal.settled)
        self._filtered = self._filtered_number = 0
        if filtered is not None:
            self._leave_out(filtered, state.last_number + len(self.numbers) + 1)
        position = state.reached(self._newly)
        if position > state.row.position:
            now = {**state.seals, **self._changed}
            self._changed |= {n: None for n, seal in now.items() if seal is None or seal.end <= position}
        self._rows = {n: s.row(state.row.name, n) for n, s in self._changed.items() if s is not None}
        self._row = state.row._replace(
            position=position,
            delivered=state.row.delivered + self._delivered,
            dead_lettered=state.row.dead_lettered + self._dead,
            sealed=max([state.row.sealed, *(s.end for s in self._changed.values() if s is not None)]),
            seals=self._digest(),
            doubt=state.row.doubt if doubt is None else pack(doubt),
        )

    def _settle(self, settlement: Settlement) -> None:
        number = settlement.batch.seal
        before = self._changed.get(number) or self._state.seals[number]
        newly = to_ranges(settlement.delivered)
        if settlement.dead_lettered:
            newly = merge([*newly, *to_ranges(sorted(settlement.dead_lettered))])
        settled = merge([*before.settled, *newly]) if before.settled else newly
        # not `replace`, which takes longer than all the rest of it
        self._changed[number] = Seal(
            before.batch, before.partition, before.offsets, settled, before.memo, settlement.batch.attempts
        )
        self._newly.update(newly)
        self._delivered += len(settlement.delivered)
        self._dead += len(settlement.dead_lettered)

    def _leave_out(self, filtered: Filtered, number: int) -> None:
        """Settle what was not asked for, in the seal that has the latest of it while that has room: an outage
        of hours would leave one behind for each second."""
        state, ranges = self._state, [*filtered.ranges]
        latest = state.seals.get(state.filtered_number)
        if latest is not None and len(latest.offsets) < MOST_RANGES:
            number = state.filtered_number
            ranges = merge([*subtract(latest.offsets, [(0, state.row.position)]), *ranges])
        self._changed[number] = Seal(FILTERED, "", ranges, ranges)
        self._newly.update(filtered.ranges)
        self._receipts += state.receipts.filtered(state.row.name, filtered)
        self._filtered, self._filtered_number = size(filtered.ranges), number

    def _digest(self) -> int:
        combined = self._state.row.seals
        for number in self._changed:
            combined ^= self._state.checksums.get(number, 0)
        for row in self._rows.values():
            combined ^= int(str(row[-1]))
        return combined

    def write(self, connection: sqlite3.Connection) -> None:
        """Record it, inside the caller's transaction."""
        name = self._row.name
        gone = sorted(number for number, seal in self._changed.items() if seal is None)
        for first, end in to_ranges(gone):
            connection.execute(DELETE, (name, first, end))
        insert_seals(connection, list(self._rows.values()))
        self._state.receipts.write(connection, self._receipts, self._trouble)
        if self._filtered:
            self._state.note_filtered(connection, self._state.filtered + self._filtered)
        self._row.write(connection)

    def apply(self) -> None:
        """Let memory follow."""
        state = self._state
        state.receipts.written(self._receipts, self._trouble)
        for number, seal in self._changed.items():
            if seal is None:
                state.seals.pop(number, None)
                state.checksums.pop(number, None)
            else:
                state.seals[number] = seal
                state.checksums[number] = int(str(self._rows[number][-1]))
        if self.numbers:
            state.last_number = self.numbers[-1]
        if self._filtered:
            state.filtered += self._filtered
            state.filtered_number = self._filtered_number
            state.last_number = max(state.last_number, self._filtered_number)
        state.ahead.update(self._newly)
        state.move_to(self._row)


def replace_all(connection: sqlite3.Connection, row: CursorRow, seals: Iterable[tuple[object, ...]]) -> None:
    """Write a cursor's row and all its seals anew, inside the caller's transaction."""
    connection.execute("DELETE FROM seals WHERE destination = ?", (row.name,))
    insert_seals(connection, list(seals))
    row.write(connection)


def insert_seals(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Write rows of `seals`, inside the caller's transaction."""
    put_rows(connection, "seals", rows)


def sealed(batch: Batch) -> Seal:
    """The seal of a batch that nothing is settled of."""
    return Seal(batch.id, batch.partition, to_ranges(batch.offsets), memo=batch.memo, attempts=batch.attempts)
