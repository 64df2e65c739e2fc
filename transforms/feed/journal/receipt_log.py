"""Writes receipts: what became of which events at a destination, in the transaction that settles them.

One row for what was delivered to one place, for each cause of dead letters and for what was not asked for,
with their offsets as ranges. `level` is how many bits the row's reach has: whoever looks for an offset asks
at each level for the rows that begin within that reach before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from transforms.feed.journal.database import Database, put_rows
from transforms.feed.journal.ranges import Range, merge, pack, to_ranges
from transforms.feed.journal.schema import sign
from transforms.write.delivery.ledger import Filtered, Settlement

DELIVERED, DEAD_LETTER, FILTERED = 0, 1, 2  # `kind`
LEVELS = 57  # of reaches up to 2^56, beyond which there is no offset
MOST_SAID = 1_000  # characters of a place or a cause
MOST_RANGES = 1_000  # in one row, all of which is read for each of its events
ROW_BYTES = 70  # of a row, beside what it says and its ranges
TROUBLE_EVERY = 30.0  # seconds between two notes that the same trouble goes on

ReceiptRow = tuple[object, ...]


class ReceiptLog:
    """Makes the rows, and counts their bytes until `KeptIds` takes them into account. The journal's lock
    guards all calls."""

    def __init__(self, database: Database, *, on: bool) -> None:
        """on: whether receipts are kept; else none are made."""
        self.on = on
        self.bytes = 0
        # When and why each destination failed last. Why is not known of before this start: it is noted anew.
        self._troubles = {
            str(name): (float(str(at)), "")
            for name, at in database.rows("SELECT destination, at FROM troubles")
        }

    def rows(self, destination: str, settlements: Sequence[Settlement]) -> list[ReceiptRow]:
        """Rows of `receipts` for what settlements settled: one for all of which the same is said."""
        found: dict[tuple[int, float, int, str], list[Range]] = {}
        for each in settlements if self.on else ():
            attempts = each.batch.attempts
            if each.delivered:
                said = (DELIVERED, each.at, attempts, each.place)
                found.setdefault(said, []).extend(to_ranges(each.delivered))
            if each.dead_lettered:
                for cause, offsets in _by_cause(each).items():
                    said = (DEAD_LETTER, each.at, attempts, cause)
                    found.setdefault(said, []).extend(to_ranges(offsets))
        return [
            receipt_row(destination, some, *said)
            for said, ranges in found.items()
            for some in _in_rows(merge(ranges))
        ]

    def filtered(self, destination: str, filtered: Filtered) -> list[ReceiptRow]:
        """Rows of `receipts` for what was not asked for."""
        ranges = _in_rows(filtered.ranges) if self.on else ()
        return [receipt_row(destination, some, FILTERED, filtered.at, 0, "") for some in ranges]

    def trouble(self, destination: str, settlements: Sequence[Settlement]) -> ReceiptRow | None:
        """The row of `troubles` that these settlements call for, (destination,) when it is to go, or None."""
        if not self.on:
            return None
        failed = next((each for each in reversed(settlements) if each.error), None)
        if failed is None:
            return (destination,) if destination in self._troubles else None
        cause = failed.error[:MOST_SAID]
        at, before = self._troubles.get(destination, (0.0, ""))
        if cause == before and abs(failed.at - at) < TROUBLE_EVERY:
            return None
        row = (destination, failed.at, cause)
        return (*row, sign("troubles", *row))

    def write(
        self, connection: sqlite3.Connection, rows: Sequence[ReceiptRow], trouble: ReceiptRow | None
    ) -> None:
        """Record them, inside the caller's transaction."""
        put_rows(connection, "receipts", rows)
        if trouble is not None and len(trouble) == 1:
            connection.execute("DELETE FROM troubles WHERE destination = ?", trouble)
        elif trouble is not None:
            connection.execute("INSERT OR REPLACE INTO troubles VALUES (?, ?, ?, ?)", trouble)

    def written(self, rows: Iterable[ReceiptRow], trouble: ReceiptRow | None) -> None:
        """They are committed."""
        for row in rows:
            self.bytes += ROW_BYTES + len(str(row[0])) + len(str(row[7])) + len(row[8])  # type: ignore[arg-type]
        if trouble is not None and len(trouble) == 1:
            self._troubles.pop(str(trouble[0]), None)
        elif trouble is not None:
            self._troubles[str(trouble[0])] = (float(str(trouble[1])), str(trouble[2]))


def receipt_row(
    destination: str, ranges: Sequence[Range], kind: int, at: float, attempts: int, said: str
) -> ReceiptRow:
    """A row of `receipts` for ascending ranges; said: the place, or a dead letter's cause."""
    first, ends = ranges[0][0], ranges[-1][1]
    packed = b"" if len(ranges) == 1 else pack(ranges)
    level = (ends - first - 1).bit_length()
    row = (destination, level, first, ends, float(at), kind, attempts, said[:MOST_SAID], packed)
    return (*row, sign("receipts", *row))


def _in_rows(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    for start in range(0, len(ranges), MOST_RANGES):
        yield ranges[start : start + MOST_RANGES]


def _by_cause(settlement: Settlement) -> dict[str, list[int]]:
    """The offsets that became dead letters, ascending, by the cause of each."""
    found: dict[str, list[int]] = {}
    causes = settlement.causes or [""] * len(settlement.dead_lettered)
    for offset, cause in sorted(zip(settlement.dead_lettered, causes, strict=True)):
        found.setdefault(cause[:MOST_SAID], []).append(offset)
    return found


def delete_below(connection: sqlite3.Connection, first: int) -> None:
    """Delete receipts of offsets that all lie below `first`, inside the caller's transaction."""
    name = ""
    while True:  # a look-up for each destination, where DISTINCT would read all rows
        [(found,)] = connection.execute(
            "SELECT min(destination) FROM receipts WHERE destination > ?", (name,)
        )
        if found is None:
            return
        name = str(found)
        connection.executemany(
            "DELETE FROM receipts WHERE destination = ? AND level = ? AND first < ? AND ends <= ?",
            [(name, level, first, first) for level in range(LEVELS)],
        )
