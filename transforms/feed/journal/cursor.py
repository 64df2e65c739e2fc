"""The ledger of one destination's deliveries on one machine, and its books."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Event
from transforms.feed.journal.database import Database
from transforms.feed.journal.letters import FeedLetters
from transforms.feed.journal.ranges import Range, offsets_in, pack, size, subtract, to_ranges, unpack
from transforms.feed.journal.receipt_log import DEAD_LETTER, ReceiptLog, receipt_row
from transforms.feed.journal.seals import Change, CursorRow, CursorState, Seal, replace_all, sealed
from transforms.write.delivery.ledger import Filtered, Settlement

UNKNOWN = -1  # `CursorRow.seals` of a row that was lost: no set of seals has it
IN_DOUBT_AT_ONCE = 500  # events made dead letters in one transaction
IN_DOUBT = (
    "in_doubt: it may have been delivered: the journal was damaged, and its record of that is gone; look in "
    "the destination before you send it again"
)


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
        receipts: ReceiptLog,
    ) -> None:
        """Load the cursor `name`, which must exist.

        events: reads the events of some ranges from the journal.
        end: the journal's next offset.
        receipts: takes down what became of events.
        """
        self.name = name
        self._database = database
        self._events = events
        self._end = end
        self._state = CursorState(name, database, receipts)
        self._skip: list[Range] = []  # sealed offsets that must not be batched again after a restart

    @property
    def born(self) -> int:
        """The journal's end when the destination was added."""
        return self._state.row.born

    @property
    def position(self) -> int:
        """The lowest offset that is not settled."""
        return self._state.row.position

    @property
    def delivered(self) -> int:
        """Events delivered since the cursor was born."""
        return self._state.row.delivered

    @property
    def dead_lettered(self) -> int:
        """Events dead-lettered since the cursor was born."""
        return self._state.row.dead_lettered

    @property
    def filtered(self) -> int:
        """Events that it did not ask for since the cursor was born."""
        return self._state.filtered

    @property
    def lost(self) -> int:
        """Events lost with a damaged journal."""
        return self._state.row.lost

    @property
    def pending(self) -> int:
        """Events received and not settled, counted from the positions and not from the totals."""
        with self._database.lock:
            return self._state.unsettled(self._end())

    def books(self) -> Books:
        """Its account."""
        row, state = self._state.row, self._state
        received = self._end() - row.born
        return Books(received, row.delivered, row.dead_lettered, self.pending, row.lost, state.filtered)

    def recover(self) -> list[Batch]:
        """Sealed batches not yet settled, oldest first, unchanged but for the events settled already."""
        with self._database.lock:
            seals = self._state.seals
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

    def commit(
        self, settlements: Sequence[Settlement], seals: Sequence[Batch], filtered: Filtered | None = None
    ) -> None:
        """In one transaction record outcomes and what was not asked for, then seal new batches. Raises
        sqlite3.OperationalError (a full disk): then nothing has changed and the call may be repeated."""
        if not (settlements or seals or filtered):
            return
        with self._database.lock:
            self._seal(Change(self._state, settlements, map(sealed, seals), filtered=filtered), seals)

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Replace a sealed batch by parts of what is unsettled of it, in one transaction."""
        with self._database.lock:
            seal = self._state.seals[batch.seal]
            rest = subtract(seal.offsets, [pair for part in parts for pair in to_ranges(part.offsets)])
            # what is settled of it stays on record under the old number
            settled = replace(seal, offsets=rest, settled=rest) if rest else None
            self._seal(Change(self._state, (), map(sealed, parts), {batch.seal: settled}), parts)

    def _seal(self, change: Change, batches: Sequence[Batch]) -> None:
        self._commit(change)
        for number, batch in zip(change.numbers, batches, strict=True):
            batch.seal = number
            batch.on_remember = self.remember

    def _commit(self, change: Change) -> None:
        self._database.write(change.write)
        change.apply()

    def remember(self, batch: Batch, memo: bytes) -> None:
        """Commit `memo` to the batch's seal."""
        with self._database.lock:
            seal = replace(self._state.seals[batch.seal], memo=memo)
            self._commit(Change(self._state, replaced={batch.seal: seal}))

    def advance(self, to: int) -> None:
        """Count everything below `to` as delivered: for a reader whose runner keeps what it has read."""
        with self._database.lock:
            state = self._state
            if to <= state.row.position:
                return
            delivered = state.unsettled(self._end()) - size(
                subtract([(to, self._end())], list(state.ahead.items()))
            )
            row = state.row._replace(
                position=max([to, *(end for start, end in state.ahead.items() if start <= to)]),
                delivered=state.row.delivered + delivered,
            )
            self._database.write(row.write)
            state.move_to(row)

    def settle_doubt(self, exactly_once: bool, letters: FeedLetters, now: float) -> int:
        """Decide on events of which a damaged journal does not know any more whether they were delivered.

        Most destinations get them (again). One that must have each event once gets none of them: they become
        dead letters, neither lost nor there twice. Returns how many these are.
        """
        with self._database.lock:
            doubt = unpack(self._state.row.doubt)
            if not exactly_once:
                if doubt:
                    self._commit(Change(self._state, doubt=[]))
                return 0
            offsets = offsets_in(doubt)
            before = self.dead_lettered
            while some := to_ranges(list(islice(offsets, IN_DOUBT_AT_ONCE))):
                doubt = subtract(doubt, some)
                kept = [
                    DeadLetter("write", self.name, IN_DOUBT, event.raw, event.id, at=now)
                    for event in self._events(some)
                ]
                seal = Seal("in doubt", "", some, some)
                rows = []
                if self._state.receipts.on:
                    rows = [receipt_row(self.name, some, DEAD_LETTER, now, 0, IN_DOUBT)]
                change = Change(self._state, new=[seal], doubt=doubt, receipts=rows)
                letters.keep(kept, change.write)
                change.apply()
            return self.dead_lettered - before

    def repair(self, missing: list[Range]) -> None:
        """Make the cursor fit what is left of a damaged journal; may be repeated.

        missing: offsets from its position on that nobody can read any more; they are settled as lost. What
        was sealed and has no seal now is in doubt. The books are balanced anew.
        """
        state, row = self._state, self._state.row
        seals = {n: _above(seal, row.born) for n, seal in state.seals.items()}
        known = [pair for seal in seals.values() for pair in seal.offsets]
        gone = subtract(missing, [pair for seal in seals.values() for pair in seal.settled])
        doubt = unpack(row.doubt)
        if state.digest != row.seals:
            doubt = subtract([(row.position, row.sealed)], known)
        seals = {n: replace(seal, offsets=subtract(seal.offsets, gone)) for n, seal in seals.items()}
        if gone:
            state.last_number += 1
            seals[state.last_number] = Seal("lost", "", gone, gone)
        state.seals = {n: seal for n, seal in seals.items() if seal.offsets}
        state.ahead = {a: b for seal in state.seals.values() for a, b in seal.settled if a >= row.position}
        state.move_to(row._replace(position=state.reached({}), lost=row.lost + size(gone)))
        state.seals = {n: seal for n, seal in state.seals.items() if seal.end > state.row.position}
        rows = {n: seal.row(self.name, n) for n, seal in state.seals.items()}
        state.checksums = {n: int(str(row[-1])) for n, row in rows.items()}
        state.row = self._balanced(state.row)._replace(
            sealed=max([state.row.sealed, state.row.position, *(seal.end for seal in state.seals.values())]),
            seals=state.digest,
            doubt=pack(subtract(subtract(doubt, gone), [(0, state.row.position)])),
        )

        def write(connection: sqlite3.Connection) -> None:
            replace_all(connection, state.row, rows.values())
            state.note_filtered(connection, state.filtered)

        self._database.write(write)

    def _balanced(self, row: CursorRow) -> CursorRow:
        """The row with totals that add up. Those of events that are delivered again because their seals are
        lost go down; those that only seals tell of, because the row itself was lost, go up."""
        state = self._state
        accounted = row.delivered + row.dead_lettered + row.lost + state.filtered
        excess = accounted + state.unsettled(self._end()) - (self._end() - row.born)
        delivered = max(0, row.delivered - excess)
        excess = max(0, excess - row.delivered)
        dead_lettered = max(0, row.dead_lettered - excess)
        state.filtered -= max(0, excess - row.dead_lettered)
        return row._replace(delivered=delivered, dead_lettered=dead_lettered)


def _above(seal: Seal, born: int) -> Seal:
    """What a seal says of offsets from `born` on: a cursor whose row was lost is born anew."""
    below = [(0, born)]
    return replace(seal, offsets=subtract(seal.offsets, below), settled=subtract(seal.settled, below))


@dataclass(frozen=True)
class Books:
    """One destination's account since its cursor was born, in events."""

    received: int
    delivered: int
    dead_lettered: int
    pending: int
    lost: int = 0  # with a damaged journal
    filtered: int = 0  # not asked for

    @property
    def unexplained(self) -> int:
        """Received, and nowhere to be found; 0 when received = delivered + dead-lettered + filtered + pending
        + lost. `pending` is counted by itself."""
        known = self.delivered + self.dead_lettered + self.filtered + self.pending + self.lost
        return self.received - known

    @property
    def balanced(self) -> bool:
        """Nothing is unexplained."""
        return self.unexplained == 0
