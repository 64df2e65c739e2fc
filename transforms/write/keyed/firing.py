"""One firing's work on what a key holds: attempt what is due, write back what has changed, and no more."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Receipt
from transforms.write.delivery.outbox import MAX_UNSETTLED_BYTES, Outbox
from transforms.write.delivery.settling import Entry, dead_letters, receipt
from transforms.write.keyed.attempts import Attempt, Attempts
from transforms.write.keyed.backlog import Backlog, Opened
from transforms.write.keyed.inbox import Inbox
from transforms.write.keyed.state import (
    AttemptId,
    BacklogBlock,
    KeyState,
    PackedBatch,
    SealedBatchHeader,
    Tried,
    next_number,
    pack_batch,
    soon,
    unpack_batch,
)
from transforms.write.metrics import DeliveryCounters

# A block that is no larger, and all at hand, is written anew with what was cut from its batches.
JOINED_BYTES = 1_000_000
# What a bundle gives out, in bytes, before it leaves the rest to the next one. With one more batch, and what
# it writes back, that stays well below what services let a bundle commit.
BUNDLE_BYTES = 16_000_000
# What an element is beside its bytes.
OVERHEAD = 100
# Batches whose attempts are noted with what is known of the key; any more are written anew.
MOST_TRIED = 20
Result = DeadLetter | Receipt

log = logging.getLogger("grantex.write")


class Budget:
    """What a bundle may still give out, over all of its keys."""

    def __init__(self, size: int | None = None) -> None:
        """size: BUNDLE_BYTES by default."""
        self._size = self._left = BUNDLE_BYTES if size is None else size

    @property
    def spent(self) -> bool:
        """It is time to end the bundle."""
        return self._left <= 0

    @property
    def overdrawn(self) -> bool:
        """Twice as much was given out: not even the batch that has begun goes on."""
        return self._left <= -self._size

    def spend(self, result: Result) -> Result:
        """Count one result."""
        if isinstance(result, DeadLetter):
            size = len(result.raw) + len(result.cause)
        else:
            size = len(result.event_ids) * (len(result.event_ids[0]) + 2)
        self._left -= size + OVERHEAD
        return result


@dataclass
class _Source:
    """Where batches at hand lie: a block, or the inbox (None). taken: how many of them are at hand."""

    block: BacklogBlock | None
    opened: Opened
    taken: int = 0

    @property
    def at_hand(self) -> list[PackedBatch]:
        return self.opened.batches[: self.taken]

    @property
    def is_exhausted(self) -> bool:
        """All that lies there is at hand."""
        opened = self.opened
        known = self.block is None or opened.count >= self.block.count
        return known and self.taken == len(opened.batches)

    def leaving(self, stays: Callable[[PackedBatch], bool]) -> list[int]:
        """The numbers of those at hand that cannot stay: in a block, with all that lie before them."""
        stay = [stays(each) for each in self.at_hand]
        if self.block is None:
            return [each.number for each, one in zip(self.at_hand, stay, strict=True) if not one]
        n = max((number for number, one in enumerate(stay, 1) if not one), default=0)
        return [each.number for each in self.at_hand[:n]]

    def bodies(self, number: int) -> list[bytes]:
        """A batch's events, as they are packed."""
        return next(each.bodies for each in self.at_hand if each.number == number)


class Round:
    """Restores the outbox from the key's state, attempts what is due, and `keep`s what is left.

    sealed: batches in the inbox that may be attempted: those whose seal an earlier bundle has committed.
    last: nothing waits for its time, as there will be none.
    """

    def __init__(
        self,
        key: str,
        backlog: Backlog,
        key_state: KeyState,
        inbox: Inbox,
        sealed: Sequence[SealedBatchHeader],
        *,
        attempts: Attempts,
        name: str,
        clock: Clock,
        uniform: Callable[[float, float], float],
        counters: DeliveryCounters,
        budget: Budget,
        last: bool = False,
    ) -> None:
        self._key, self._backlog, self._key_state = key, backlog, key_state
        self._inbox, self._sealed = inbox, sealed
        self._attempts, self._budget = attempts, budget
        self._name, self._clock, self._counters = name, clock, counters
        self._outbox = Outbox(name, uniform=uniform, dead_letter_limit=attempts.limit)
        self._tried = {each.number: each for each in key_state.tried}
        self._sources: list[_Source] = []
        self._originals: dict[int, Batch] = {}  # by number, as they were unpacked
        self._given_up: dict[int, int] = {}  # how many events of a batch, by its number
        self._running: Batch | None = None
        self._last = last
        self._restore()

    @property
    def outbox(self) -> Outbox:
        """What is at hand."""
        return self._outbox

    def empty(self) -> bool:
        """Nothing is left of what was sealed."""
        at_hand = any(len(entry.batch.events) > self._gone(entry.batch) for entry in self._outbox.left())
        return not (at_hand or self._is_more())

    def due(self) -> float | None:
        """When something may be attempted (epoch): what is not at hand yet may be at once. None: nothing is
        left, or it is being attempted."""
        outbox = self._outbox
        may_load = not outbox.in_flight and not outbox.circuit.is_open and outbox.size < MAX_UNSETTLED_BYTES
        return outbox.not_before if may_load and self._is_more() else outbox.due()

    def run(self, until: float, patience: float) -> Iterator[Result]:
        """Attempt what is due, until nothing is, one lasts longer than `patience`, it is `until` (monotonic
        seconds) or the bundle has given out enough. One that outlasted the call before is waited for first.
        Raises what a writer raised, if that was no connection error or time-out."""
        while (batch := self._running or self._next()) is not None:
            attempt_id = AttemptId(batch.seal, batch.id, batch.attempts)
            attempt = self._attempts.start((self._key, attempt_id), batch)
            if not self._clock.wait(attempt.done, patience):
                self._key_state.running, self._running = attempt_id, batch
                return
            self._key_state.running = self._running = None
            for result in self._settle(batch, attempt, attempt_id):
                yield self._budget.spend(result)
            if self._clock.monotonic() >= until or self._budget.spent:
                return

    def keep(self) -> None:
        """Write back what has changed, and note in the key's state when to go on."""
        key_state, outbox, circuit = self._key_state, self._outbox, self._outbox.circuit
        due = self.due()
        self._write_back()
        key_state.not_before = outbox.not_before
        key_state.failures, key_state.open_since = circuit.failures, circuit.since
        key_state.probe_at, key_state.why = circuit.probe_at, circuit.why
        key_state.needs_you = circuit.needs_you or msgspec.UNSET
        now = self._clock.now()
        if key_state.running is not None:
            key_state.attempt_at = now
        elif due is not None:
            key_state.attempt_at = max(due, now)
        elif key_state.waiting():  # not at hand yet
            ahead = max(outbox.not_before, circuit.probe_at if circuit.is_open else -math.inf)
            key_state.attempt_at = max(ahead, now)
        else:
            key_state.attempt_at = None

    def give_up(self, cause: str) -> Iterator[DeadLetter]:
        """All that is left as dead letters, also what is not at hand; ends when the bundle has given out
        enough."""
        for entry in self._outbox.left():
            yield from self._give_up(entry.batch, cause)
        while not self._budget.spent and (batch := self._load()) is not None:
            yield from self._give_up(batch, cause)

    def _give_up(self, batch: Batch, cause: str) -> Iterator[DeadLetter]:
        first, now = self._gone(batch), self._clock.now()
        if self._budget.spent:
            return
        if batch is self._running and not first:
            cause += "; it was being sent and may have arrived"
            self._counters.unanswered(batch)
        for number, event in enumerate(batch.events[first:], first + 1):
            if self._budget.overdrawn:
                return
            letter = DeadLetter("write", self._name, cause, event.raw, event.id, batch.attempts, now)
            self._budget.spend(letter)
            self._given_up[batch.seal] = number
            yield letter

    def _gone(self, batch: Batch) -> int:
        return self._given_up.get(batch.seal, 0)

    def _restore(self) -> None:
        key_state, outbox = self._key_state, self._outbox
        outbox.not_before = key_state.not_before
        circuit = outbox.circuit
        circuit.failures, circuit.since, circuit.why = key_state.failures, key_state.open_since, key_state.why
        circuit.probe_at, circuit.needs_you = key_state.probe_at, key_state.needs_you is True
        if self._last:
            outbox.drain()

    def _next(self) -> Batch | None:
        """The next batch to attempt; more is read only when nothing at hand may be attempted, or all of that
        was refused and another is needed to tell why."""
        while self._outbox.circuit.is_open and self._may_load() and self._load() is not None:
            pass
        batch = self._outbox.take_batch(self._clock.now())
        while batch is None and self._may_load() and self._load() is not None:
            batch = self._outbox.take_batch(self._clock.now())
        return batch

    def _may_load(self) -> bool:
        outbox, now = self._outbox, self._clock.now()
        if now < outbox.not_before:
            return False
        if outbox.circuit.is_open:
            full = outbox.size >= MAX_UNSETTLED_BYTES
            return now >= outbox.circuit.probe_at and outbox.only_suspects() and not full
        return outbox.size < MAX_UNSETTLED_BYTES

    def _is_more(self) -> bool:
        """Not all that may be attempted is at hand."""
        begun = bool(self._sources) and not self._sources[-1].is_exhausted
        return begun or bool(self._sealed or self._unopened())

    def _load(self) -> Batch | None:
        """Take one more batch to hand, the oldest; None when there is none. What a round does not come to
        would be unpacked in vain."""
        while not self._sources or self._sources[-1].is_exhausted:
            opened = self._open_next()
            if opened is None:
                return None
            self._sources.append(opened)
        source = self._sources[-1]
        if source.block is not None:  # only its beginning may have been known
            source.opened = self._backlog.load(source.block, source.taken)
            if source.is_exhausted:  # it holds less than was said of it
                return self._load()
        source.taken += 1
        return self._put(source.opened.batches[source.taken - 1])

    def _unopened(self) -> list[BacklogBlock]:
        """The blocks of which nothing is at hand, oldest first."""
        return self._key_state.blocks[sum(source.block is not None for source in self._sources) :]

    def _open_next(self) -> _Source | None:
        if unopened := self._unopened():
            return _Source(unopened[0], self._backlog.load(unopened[0]))
        sealed, self._sealed = self._sealed, ()
        return _Source(None, Opened(self._inbox.batches(sealed), [])) if sealed else None

    def _put(self, packed_batch: PackedBatch) -> Batch:
        batch = unpack_batch(packed_batch)
        failures, due = packed_batch.failures, packed_batch.due
        tried = self._tried.get(packed_batch.number)
        if tried is not None:
            batch.id, batch.attempts, batch.memo = tried.batch_id or batch.id, tried.attempts, tried.memo
            failures, due = tried.failures, tried.due
        self._originals[packed_batch.number] = batch
        self._outbox.put(batch, failures, -math.inf if self._last else soon(due, self._clock.now()))
        return batch

    def _settle(self, batch: Batch, attempt: Attempt, attempt_id: AttemptId) -> Iterator[Result]:
        try:
            outcome = attempt.outcome()
        except Exception:
            self._attempts.forget((self._key, attempt_id))
            raise
        batch.memo, batch.place = attempt.memo, attempt.place
        settled = self._outbox.settle(batch, outcome, self._clock.now())
        self._counters.attempted(batch, outcome, attempt.seconds)
        reasons = [reason for _, reason in settled.rejected]
        for line in self._attempts.told.settled(self._key, self._outbox.circuit, reasons, self._clock.now()):
            log.warning("%s", line)
        yield from dead_letters(self._name, settled, self._clock.now())
        if settled.delivered:
            self._counters.arrived(self._clock.now() - batch.taken_at)
            yield receipt(self._name, settled, self._clock.now())
        for half in settled.halves:
            half.seal = next_number(self._key_state)
        self._outbox.recorded(settled)

    def _write_back(self) -> None:
        """What is done with leaves its place; what was cut, or lies in front of it, goes before all."""
        if self._running is not None:
            self._running.attempts -= 1  # it has not come to anything yet
        left = {entry.batch.seal: entry for entry in self._outbox.left()}
        at_hand = {each.number: source for source in self._sources for each in source.at_hand}
        elsewhere = [each for number, each in self._tried.items() if number not in at_hand]
        tried = self._to_note(left, MOST_TRIED - len(elsewhere))
        leaving = [source.leaving(lambda each: self._stays(each, left, tried)) for source in self._sources]
        moved = _moved(left, at_hand, leaving)
        first = self._sources[0] if self._sources else None
        if moved and first and first.block and first.is_exhausted and first.block.packed <= JOINED_BYTES:
            leaving[0] = [each.number for each in first.at_hand]  # what was put there before joins it
            moved = _moved(left, at_hand, leaving)
        packed_batches = [packed for entry in moved if (packed := self._packed(entry, at_hand)) is not None]
        for source, numbers in zip(self._sources, leaving, strict=True):
            if source.block is None:
                self._inbox.drop(numbers)
            else:
                self._backlog.take_from(source.block, source.opened, len(numbers))
        self._backlog.put_first(packed_batches)
        gone = {number for numbers in leaving for number in numbers}
        self._key_state.tried = [*elsewhere, *(each for each in tried.values() if each.number not in gone)]

    def _to_note(self, left: Mapping[int, Entry], most: int) -> dict[int, Tried]:
        """What came of the batches that were attempted and are whole, of so many at most."""
        found: dict[int, Tried] = {}
        for source in self._sources:
            for each in source.at_hand:
                entry, batch = left.get(each.number), self._originals[each.number]
                if entry is None or entry.batch is not batch or batch.attempts == each.attempts:
                    continue
                if len(found) < most:
                    result = batch.id, batch.attempts, entry.failures, entry.due, batch.memo
                    found[each.number] = Tried(each.number, *result)
        return found

    def _stays(self, each: PackedBatch, left: Mapping[int, Entry], tried: Mapping[int, Tried]) -> bool:
        """All of it is left, and what is known of it is known elsewhere."""
        entry = left.get(each.number)
        if entry is None or self._gone(entry.batch):
            return False
        known = each.number in tried or entry.batch.attempts == each.attempts
        return entry.batch is self._originals[each.number] and known

    def _packed(self, entry: Entry, at_hand: Mapping[int, _Source]) -> PackedBatch | None:
        """A batch, or what is left of it, to be written; None when that is nothing."""
        batch, gone = entry.batch, self._gone(entry.batch)
        if gone == len(batch.events):
            return None
        if gone:
            batch = replace(batch, events=batch.events[gone:])
        whole = self._originals.get(batch.seal) is batch
        bodies = at_hand[batch.seal].bodies(batch.seal) if whole else None
        return pack_batch(batch, entry.failures, entry.due, bodies)


def _moved(
    left: Mapping[int, Entry], at_hand: Mapping[int, _Source], leaving: Sequence[Sequence[int]]
) -> list[Entry]:
    """What is left and does not stay where it lies, in line."""
    gone = {number for numbers in leaving for number in numbers}
    return [entry for number, entry in left.items() if number in gone or number not in at_hand]
