"""Reads receipts from a journal, also while a job writes it: what was received, and what became of it.

    with contextlib.closing(Receipts(directory)) as receipts:
        receipts.find(ids) -> Iterator[Found]                      where is each of these?
        receipts.received(since, until) -> Iterator[Found]         all of a time window, streamed
        receipts.delivered(destination, ids) -> set[str]           which of these it has taken
        receipts.destinations() -> list[str]
        receipts.kept_since() -> float

Reads in moments of their own: no read transaction is open while the caller thinks.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from transforms.feed.intake import Gap
from transforms.feed.journal.chunks import decode_row
from transforms.feed.journal.database import JournalDamaged, JournalError, JournalUnavailable, file_uri
from transforms.feed.journal.id_blocks import IdBlock, Origin, Wanted, block_of, unpack_block
from transforms.feed.journal.kept_ids import BLOCK, is_unknown
from transforms.feed.journal.ranges import Range, unpack
from transforms.feed.journal.receipt_log import DEAD_LETTER, DELIVERED, FILTERED, LEVELS
from transforms.feed.journal.schema import COLUMNS, VERSION, BadChecksum, sign, signed_body

SKEW = 2.0  # seconds by which the service's clock, which is in an id, may differ from ours
BUSY_SECONDS = 5.0
AT_ONCE = 100_000  # ids looked for in one walk through the blocks
STATES = {DELIVERED: "delivered", DEAD_LETTER: "dead_letter", FILTERED: "filtered"}
T = TypeVar("T")


@dataclass(frozen=True)
class Standing:
    """What became of an event at one destination.

    state: "delivered", "pending", "dead_letter", "filtered", or "not_kept": settled, but its receipt is gone.
    at: when (epoch seconds); of a pending event, when it was last tried. place: where it lies, "" when the
    destination tells none. cause: of a dead letter, or the last error while it is pending.
    """

    state: str
    at: float | None = None
    place: str = ""
    cause: str = ""
    attempts: int = 0


class Found(NamedTuple):
    """What is known of one id. `destinations` has those that were there when it was received.

    received_at: epoch seconds; None when it was not received, or nobody knows any more (`expired`). gap: the
    interval without a stream that it fell into, when it was not received and its time lies in one.
    """

    id: str
    received_at: float | None = None
    connection: str = ""
    destinations: Mapping[str, Standing] = MappingProxyType({})
    gap: Gap | None = None
    expired: bool = False


PENDING, NOT_KEPT = Standing("pending"), Standing("not_kept")


class Receipts:
    """The receipts of the journal in a state directory. Belongs to one thread."""

    def __init__(self, directory: Path) -> None:
        """Raises JournalError: there is no journal, it cannot be read, or another version wrote it."""
        path = directory / "journal.sqlite3"
        if not path.exists():
            raise JournalError(f"{directory} holds no journal: give the --state_dir of the job")
        try:
            self._connection = sqlite3.connect(
                file_uri(path, "ro"),
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            [(version,)] = self._connection.execute("PRAGMA user_version")
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be read: {error}") from error
        if version != VERSION:
            self._connection.close()
            raise JournalError(
                f"{path} was written by another version of this program (schema {version}, this one reads "
                f"{VERSION}): the job of this version makes it a present one when it starts"
            )

        self._damaged_until = 0.0  # when the last event was received whose id is damaged

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def destinations(self) -> list[str]:
        """Those that the journal knows."""
        return self._moment(lambda: [name for name, *_ in self._cursors()])

    def kept_since(self) -> float:
        """Ids of all events received later than this (epoch seconds) are kept; 0.0: of all there were."""
        return self._moment(self._kept_since)

    def find(self, ids: Iterable[str]) -> Iterator[Found]:
        """What is known of each id, in the order given. Raises JournalDamaged, JournalUnavailable."""
        left = iter(ids)
        while some := list(islice(left, AT_ONCE)):
            yield from self._find_some(some)

    def delivered(self, destination: str, ids: Iterable[str]) -> set[str]:
        """Those of the ids that have a receipt at this destination."""
        found: set[str] = set()
        left = iter(ids)
        while some := list(islice(left, AT_ONCE)):
            wanted = Wanted(some)
            for block in self._walk(wanted):
                if hits := block.ids.find(wanted):
                    standing = self._judged(block, destination).standings(destination)
                    found.update(text for text, number in hits if standing(number).state == "delivered")
        return found

    def received(self, since: float, until: float) -> Iterator[Found]:
        """Events whose id's time lies in [since, until) (epoch seconds), or, where it has none, that were
        received then; in the order in which they were received, some thousands held at once."""
        low, high = round(since * 1000), round(until * 1000)
        for block in self._walk(None, since, until):
            texts = block.ids.ids()
            times = np.empty(len(texts), np.int64)
            plain = np.ones(len(texts), bool)
            plain[block.ids.odd] = False
            times[plain] = block.ids.times
            for number in block.ids.odd.tolist():
                times[number] = round(block.ids.received(number)[0] * 1000)
            numbers = np.nonzero((times >= low) & (times < high))[0]
            if len(numbers):
                yield from self._judged(block).all_found(texts, numbers)

    def _find_some(self, ids: list[str]) -> Iterator[Found]:
        wanted = Wanted(ids)
        found: dict[str, Found] = {}
        for block in self._walk(wanted):
            if hits := block.ids.find(wanted):
                self._judged(block)
                found.update((text, block.found(text, number)) for text, number in hits)
        missing = [each for each in ids if each not in found]
        if missing:
            found.update(self._moment(lambda: self._not_found(wanted, missing)))
        for each in ids:
            yield found[each]

    def _not_found(self, wanted: Wanted, ids: Collection[str]) -> dict[str, Found]:
        """Expired, or not received: then with the gap."""
        since = self._kept_since()
        unknown = self._rows("SELECT max(until) FROM received WHERE low < 0 AND odd = x''")[0][0] or 0.0
        trimmed = self._rows("SELECT min(first) FROM chunks")[0][0]
        if self._note("received", 0) < (self._note("end", 0) if trimmed is None else trimmed):
            unknown = float("inf")  # receipts were off: nobody knows
        since = max(since, unknown, self._damaged_until)
        gone = {name: NOT_KEPT for name, *_ in self._cursors()}
        found = {}
        for each in ids:
            at = wanted.milliseconds.get(each)
            if since and (at is None or at / 1000 <= since + SKEW):
                found[each] = Found(each, destinations=gone, expired=True)
            else:
                found[each] = Found(each, gap=None if at is None else self._gap(at / 1000))
        return found

    def _gap(self, at: float) -> Gap | None:
        rows = self._rows(
            "SELECT since, until, reason FROM gaps WHERE since <= ? AND (until IS NULL OR until >= ?) "
            "ORDER BY number DESC LIMIT 1",
            at + SKEW,
            at - SKEW,
        )
        return Gap(*rows[0]) if rows else None

    def _kept_since(self) -> float:
        return float(self._note("receipts_since", 0.0))

    def _note(self, key: str, default: float) -> Any:
        rows = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else default

    def _walk(self, wanted: Wanted | None, since: float = 0.0, until: float = 0.0) -> Iterator[_Block]:
        """Blocks in which one of the wanted ids, or the time window, may lie, and what no block holds yet."""
        heads, position = self._moment(lambda: self._heads(wanted, since, until))
        for first in heads:
            block = self._moment(lambda first=first: self._block(first))  # type: ignore[misc]
            if block is not None:
                yield block
        while True:
            block = self._moment(lambda position=position: self._next(position))  # type: ignore[misc]
            if block is None:
                return
            position = block.end
            yield block

    def _heads(self, wanted: Wanted | None, since: float, until: float) -> tuple[list[int], int]:
        """Where the blocks begin that may hold it; where the blocks end."""
        end = int(self._note("received", 0))
        if wanted is None:
            rows = self._rows(
                "SELECT first FROM received WHERE (low <= ? AND high >= ? AND low >= 0) OR "
                "(odd != x'' AND since <= ? AND until >= ?) ORDER BY first",
                round(until * 1000),
                round(since * 1000),
                until,
                since,
            )
            return [first for (first,) in rows], end
        low, high = (int(wanted.times[0]), int(wanted.times[-1])) if len(wanted.times) else (1, 0)
        rows = self._rows(
            "SELECT first, low, high, odd FROM received WHERE (low <= ? AND high >= ?) OR (? AND odd != x'') "
            "ORDER BY first",
            high,
            low,
            bool(wanted.odd),
        )
        return [row[0] for row in rows if wanted.may_lie_in(*row[1:])], end

    def _next(self, position: int) -> _Block | None:
        """What follows the blocks seen so far: a new block, or chunks."""
        rows = self._rows("SELECT first FROM received WHERE first >= ? ORDER BY first LIMIT 1", position)
        if rows:
            return self._block(rows[0][0]) or self._next(rows[0][0] + 1)
        ids: list[str] = []
        origins: list[Origin] = []
        first = position
        query = f"SELECT {COLUMNS['chunks']} FROM chunks WHERE first >= ? ORDER BY first"  # noqa: S608
        for row in self._connection.execute(query, (position,)):
            chunk = decode_row(row)
            if ids and (chunk.first != first + len(ids) or len(ids) >= BLOCK):
                break
            first = chunk.first if not ids else first
            ids += [event.id for event in chunk.events]
            origins.append(Origin(len(chunk.events), chunk.taken_at, ""))
        if not ids:
            return None
        return _Block(first, first + len(ids), block_of(ids, origins))

    def _block(self, first: int) -> _Block | None:
        """The block that begins there; None when it is gone, or its ids are."""
        rows = self._rows(f"SELECT {COLUMNS['received']} FROM received WHERE first = ?", first)  # noqa: S608
        if not rows or is_unknown(rows[0][4], rows[0][8]):
            return None
        try:
            if rows[0][-1] != sign("received", *rows[0][:-1]):
                raise BadChecksum("the row was altered")
            [(body,)] = self._rows("SELECT body FROM received_ids WHERE first = ?", first)
            ids = unpack_block(signed_body(body, first))
        except (BadChecksum, ValueError, TypeError, msgspec.MsgspecError, zstandard.ZstdError):
            self._damaged_until = max(self._damaged_until, float(rows[0][3]))
            return None
        return _Block(first, first + ids.count, ids)

    def _judged(self, block: _Block, only: str | None = None) -> _Block:
        """The block, with what became of its events; only: at this destination."""

        def judge() -> None:
            for row in self._cursors():
                if only is None or row[0] == only:
                    block.tables[row[0]] = self._standings(row, block.first, block.end)

        self._moment(judge)
        return block

    def _standings(
        self, cursor: tuple[Any, ...], first: int, end: int
    ) -> tuple[list[Standing | None], Codes]:
        """What became of the events of [first, end) at a destination: standings, and which each has."""
        name, born, position = cursor
        pending = PENDING
        for at, cause in self._rows("SELECT at, cause FROM troubles WHERE destination = ?", name):
            pending = Standing("pending", at, cause=cause)
        table: list[Standing | None] = [None, NOT_KEPT, pending]
        codes: Codes = np.full(end - first, 2, np.int32)

        def put(ranges: Iterable[Range], standing: Standing | None) -> None:
            table.append(standing)
            for start, stop in ranges:
                codes[max(0, start - first) : max(0, stop - first)] = len(table) - 1

        put([(0, position)], NOT_KEPT)
        for offsets, settled, attempts in self._rows(
            "SELECT offsets, settled, attempts FROM seals WHERE destination = ?", name
        ):
            if attempts:
                put(unpack(offsets), replace(pending, attempts=attempts))
            put(unpack(settled), NOT_KEPT)
        for row in self._receipts(name, first, end):
            _, _, start, stop, at, kind, attempts, said, packed = row
            place, cause = ("", said) if kind == DEAD_LETTER else (said, "")
            standing = Standing(STATES.get(kind, "not_kept"), at, place, cause, attempts)
            put(unpack(packed) if packed else [(start, stop)], standing)
        put([(0, born)], None)
        return table, codes

    def _receipts(self, name: str, first: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Those that reach into [first, end), the oldest first; altered ones are as if they were gone."""
        rows = self._rows(
            f"WITH RECURSIVE levels(level) AS (SELECT 0 UNION SELECT level + 1 FROM levels LIMIT {LEVELS}) "  # noqa: S608
            f"SELECT {COLUMNS['receipts']} FROM levels CROSS JOIN receipts USING (level) "
            "WHERE destination = ? AND first > ? - (1 << level) AND first < ? AND ends > ? ORDER BY at",
            name,
            first,
            end,
            first,
        )
        return (row[:-1] for row in rows if row[-1] == sign("receipts", *row[:-1]))

    def _cursors(self) -> list[tuple[Any, ...]]:
        return self._rows("SELECT name, born, position FROM cursors ORDER BY name")

    def _rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, parameters).fetchall()

    def _moment(self, read: Callable[[], T]) -> T:
        """What it reads, as the journal was at one moment."""
        try:
            self._connection.execute("BEGIN")
            try:
                return read()
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise JournalUnavailable(f"the journal cannot be read now: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JournalDamaged(
                f"the journal is damaged ({error}): the job repairs it when it starts"
            ) from error


Codes = npt.NDArray[np.int32]


@dataclass
class _Block:
    """Consecutive events, and for each destination its standings and which of them each event has."""

    first: int
    end: int
    ids: IdBlock
    tables: dict[str, tuple[list[Standing | None], Codes]] = field(default_factory=dict)

    def standings(self, destination: str) -> Callable[[int], Standing]:
        """What became of the event with a number, at a destination."""
        table, codes = self.tables.get(destination, ([NOT_KEPT], np.zeros(self.end - self.first, np.int32)))
        return lambda number: table[codes[number]] or NOT_KEPT

    def found(self, text: str, number: int) -> Found:
        """All that is known of the event with a number."""
        at, connection = self.ids.received(number)
        return Found(
            text, at, connection, self._standings([codes[number] for _, codes in self.tables.values()])
        )

    def all_found(self, texts: Sequence[str], numbers: npt.NDArray[np.int64]) -> Iterator[Found]:
        """All that is known of the events with these numbers; texts: the ids of the whole block."""
        at, connections = self.ids.received_all(numbers)
        codes = [codes[numbers].tolist() for _, codes in self.tables.values()]
        combinations = list(zip(*codes, strict=True)) if codes else [()] * len(numbers)
        known = {each: self._standings(each) for each in set(combinations)}
        facts = zip(numbers.tolist(), at, connections, combinations, strict=True)
        for number, received_at, connection, combination in facts:
            yield Found(texts[number], received_at, connection, known[combination])

    def _standings(self, codes: Sequence[int]) -> Mapping[str, Standing]:
        """By destination, from each one's code."""
        return {
            name: standing
            for (name, (table, _)), code in zip(self.tables.items(), codes, strict=True)
            if (standing := table[code]) is not None
        }
