"""One round of attempts of a key: what waits goes through an Outbox, and back to where it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch
from transforms.metrics import DeliveryCounters
from transforms.write.contract import Receipt
from transforms.write.keyed import shelf
from transforms.write.keyed.attempts import Attempt, Attempts
from transforms.write.keyed.book import Book, Flight, Memory, Sealed, soon
from transforms.write.keyed.packing import Parcel, to_batch, to_parcel
from transforms.write.outbox.outbox import Outbox
from transforms.write.outbox.room import MAX_UNSETTLED_BYTES
from transforms.write.results import dead_letters, receipt

# A round is a bundle: what it delivered is on record when it ends, and elements wait until then.
ROUND_SECONDS = 0.5
# Most requests take less; one that lasts longer is looked at again by a later bundle. No bundle ever waits
# longer than this for a destination, however long that hangs.
PATIENCE = 0.25
# Batches that are unpacked at a time, in packed bytes.
HELPING = 1_000_000

Result = DeadLetter | Receipt


class Round:
    """Restores the outbox from the book, attempts what is due, and `keep`s what is left.

    sealed: batches in the inbox that may be attempted: those whose seal an earlier bundle has committed.
    last: nothing waits for its time, as there will be none.
    """

    def __init__(
        self,
        key: str,
        memory: Memory,
        book: Book,
        sealed: Sequence[Sealed],
        attempts: Attempts,
        *,
        name: str,
        clock: Clock,
        uniform: Callable[[float, float], float],
        counters: DeliveryCounters,
        last: bool = False,
    ) -> None:
        self._key, self._memory, self._book = key, memory, book
        self._sealed = sealed
        self._attempts = attempts
        self._name, self._clock, self._counters = name, clock, counters
        self._outbox = Outbox(name, uniform=uniform, dead_letter_limit=attempts.limit)
        self._originals: dict[int, tuple[Batch, Parcel]] = {}
        self._loaded = 0  # blocks
        self._unopened: list[Parcel] = []  # of the last one
        self._changed = False
        self._flying: Batch | None = None
        self._last = last
        self._restore()

    @property
    def outbox(self) -> Outbox:
        """What is at hand."""
        return self._outbox

    def empty(self) -> bool:
        """Nothing is left of what was sealed."""
        more = self._unopened or self._sealed or self._loaded < len(self._book.blocks)
        return not (len(self._outbox) or more)

    def run(self, until: float, patience: float) -> Iterator[Result]:
        """Attempt what is due, until nothing is, one lasts longer than `patience`, or it is `until`
        (monotonic seconds). One that outlasted the call before is waited for first. Raises what a writer
        raised, if that was no connection error or time-out."""
        while (batch := self._flying or self._next()) is not None:
            flight = Flight(batch.seal, batch.id, batch.attempts)
            attempt = self._attempts.start((self._key, flight), batch)
            if not self._clock.wait(attempt.done, patience):
                self._book.flight, self._flying = flight, batch
                return
            self._book.flight = self._flying = None
            yield from self._settle(batch, attempt, flight)
            if self._clock.monotonic() >= until:
                return

    def keep(self) -> None:
        """Put back what is left, and note in the book when to go on."""
        book, outbox, circuit = self._book, self._outbox, self._outbox.circuit
        due = outbox.due()
        if self._changed:
            parcels = [self._parcel(entry.batch, entry.failures, entry.due) for entry in outbox.left()]
            shelf.put_first(self._memory, book, [*parcels, *self._unopened], self._loaded)
        book.not_before = outbox.not_before
        book.failures, book.open_since = circuit.failures, circuit.since
        book.probe_at, book.why = circuit.probe_at, circuit.why
        now = self._clock.now()
        if book.flight is not None:
            book.attempt_at = now
        elif due is not None:
            book.attempt_at = max(due, now)
        elif book.waiting():  # not at hand yet
            ahead = max(outbox.not_before, circuit.probe_at if circuit.is_open else -math.inf)
            book.attempt_at = max(ahead, now)
        else:
            book.attempt_at = None

    def give_up(self, cause: str) -> Iterator[DeadLetter]:
        """All that is left as dead letters, also what is not at hand."""
        now = self._clock.now()
        while True:
            for entry in self._outbox.left():
                batch, why = entry.batch, cause
                if batch is self._flying:
                    why += "; it was being sent and may have arrived"
                    self._counters.unanswered(batch)
                for event in batch.events:
                    yield DeadLetter("write", self._name, why, event.raw, event.id, batch.attempts, now)
            self._outbox = Outbox(self._name)
            self._originals.clear()
            if not self._load():
                return

    def _restore(self) -> None:
        book, outbox = self._book, self._outbox
        outbox.not_before = book.not_before
        circuit = outbox.circuit
        circuit.failures, circuit.since, circuit.why = book.failures, book.open_since, book.why
        circuit.probe_at = book.probe_at
        if self._last:
            outbox.drain()

    def _next(self) -> Batch | None:
        """The next batch to attempt; more is read only when nothing at hand may be attempted."""
        batch = self._outbox.take(self._clock.now())
        while batch is None and self._may_load() and self._load():
            batch = self._outbox.take(self._clock.now())
        return batch

    def _may_load(self) -> bool:
        outbox, now = self._outbox, self._clock.now()
        if now < outbox.not_before:
            return False
        if outbox.circuit.is_open:
            return not len(outbox) and now >= outbox.circuit.probe_at
        return outbox.size < MAX_UNSETTLED_BYTES

    def _load(self) -> bool:
        """Take more batches to hand, oldest first; False when there are none."""
        book = self._book
        if not self._unopened and self._loaded < len(book.blocks):
            self._unopened = shelf.load(self._memory, book.blocks[self._loaded])
            self._loaded += 1
        if not self._unopened and self._sealed:
            self._unopened = shelf.collect(self._memory, book, self._sealed)
            self._sealed = ()
            self._changed = True
        size = count = 0
        for parcel in self._unopened:
            size += parcel.size
            count += 1
            self._put(parcel)
            if size >= HELPING:
                break
        del self._unopened[:count]
        return count > 0

    def _put(self, parcel: Parcel) -> None:
        batch = to_batch(parcel)
        self._originals[parcel.number] = (batch, parcel)
        due = -math.inf if self._last else soon(parcel.due, self._clock.now())
        self._outbox.put(batch, parcel.failures, due)

    def _settle(self, batch: Batch, attempt: Attempt, flight: Flight) -> Iterator[Result]:
        try:
            outcome = attempt.outcome()
        except Exception:
            self._attempts.forget((self._key, flight))
            raise
        batch.memo = attempt.memo
        self._changed = True
        settled = self._outbox.settle(batch, outcome, self._clock.now())
        self._counters.attempted(batch, outcome, attempt.seconds)
        yield from dead_letters(self._name, settled, self._clock.now())
        if settled.delivered:
            self._counters.arrived(self._clock.now() - batch.taken_at)
            yield receipt(self._name, settled)
        for half in settled.halves:
            shelf.number(self._book, half)
        self._outbox.recorded(settled)

    def _parcel(self, batch: Batch, failures: int, due: float) -> Parcel:
        original, parcel = self._originals.get(batch.seal, (None, None))
        if batch is self._flying:
            batch.attempts -= 1  # it has not come to anything yet
        if batch is original and parcel is not None:
            if batch.attempts == parcel.attempts:
                return parcel
            return to_parcel(batch, failures, due, parcel.bodies)
        return to_parcel(batch, failures, due)
