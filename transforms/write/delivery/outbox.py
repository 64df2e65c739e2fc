"""The outbox: which sealed batch is next, what an outcome means for it, when it is tried again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from transforms.batch import BatchPolicy
from transforms.dead_letter import Tally, worded
from transforms.event import Batch
from transforms.retry import Backoff
from transforms.secret import shown
from transforms.shared_events import raw_size
from transforms.write.advice import ANY
from transforms.write.contract import Outcome
from transforms.write.delivery.refusals import DeadLetterLimit
from transforms.write.delivery.settling import (
    Entry,
    Settled,
    Verdict,
    asked_wait,
    check,
    in_bounds,
    part,
    too_large,
)

# Three failures in a row are an outage rather than an accident.
FAILURES_TO_OPEN = 3


class Circuit:
    """Open while a destination seems down; then one batch at a time probes it. Knows no clock.

    Times are monotonic seconds. `failures` counts attempts in a row that got nothing through.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.since: float | None = None  # when it opened; None while closed
        self.probe_at = 0.0
        self.why = ""
        self.needs_you = False  # nothing passes until a person puts something right

    @property
    def is_open(self) -> bool:
        return self.since is not None

    def failed(
        self, now: float, wait: float, why: str, *, at_once: bool = False, needs_you: bool = False
    ) -> None:
        """An attempt got nothing through; the next probe may come `wait` seconds from now.

        `at_once` opens the circuit whatever the count.
        """
        if self.since is None and (at_once or self.failures >= FAILURES_TO_OPEN):
            self.since = now
        self.probe_at = now + wait
        self.why, self.needs_you = why, needs_you

    def progressed(self) -> None:
        """Something got through: close and forget the failures."""
        self.failures = 0
        self.since = None
        self.why, self.needs_you = "", False


@dataclass(slots=True)
class Counts:
    """Running totals of one destination."""

    attempts: int = 0
    retries: int = 0
    unknown: int = 0  # events that may have arrived and were sent again
    delivered: int = 0
    dead_lettered: Tally = field(default_factory=Tally)  # monotonic times


class Outbox:
    """Sealed batches of one destination until every event is delivered or a dead letter.

    A batch goes `put` → `take_batch` → `settle` → `recorded` and, while something of it is left, from
    `take_batch` on again. Not safe for threads: its driver holds a lock. All times are monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: int = 1,
        backoff: Backoff | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        dead_letter_limit: DeadLetterLimit | None = None,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.circuit = Circuit()
        self.counts = Counts()
        self.events = 0
        self.size = 0  # bytes of raw JSON
        self.last_error = ""
        self.last_error_at: float | None = None
        self.last_rejected_at: float | None = None
        self._backoff = backoff or Backoff()
        self._uniform = uniform
        self._limit = dead_letter_limit or DeadLetterLimit(None)
        self._placed = 0
        self._ready: list[tuple[tuple[int, ...], Entry]] = []
        self._delayed: list[tuple[float, tuple[int, ...], Entry]] = []
        self._in_flight: dict[int, Entry] = {}
        self._unrecorded: dict[tuple[int, ...], Entry] = {}
        self.not_before = -math.inf  # the service asked for it

    def __len__(self) -> int:
        """Batches with something left to deliver."""
        return len(self._ready) + len(self._delayed) + len(self._in_flight) + len(self._unrecorded)

    @property
    def in_flight(self) -> int:
        """Batches being attempted now."""
        return len(self._in_flight)

    def oldest_taken_at(self) -> float | None:
        """When the oldest event held here was received, in seconds since the epoch."""
        entries = [*self._in_flight.values(), *self._unrecorded.values(), *self._waiting()]
        return min((entry.batch.taken_at for entry in entries), default=None)

    def put(self, batch: Batch, failures: int = 0, due: float = -math.inf) -> None:
        """Take in a batch that is sealed; it may be attempted from now on, or from `due` on when it has
        failed before, under another outbox."""
        self._placed += 1
        entry = Entry((self._placed,), batch, raw_size(batch.events), failures, due)
        self.events += len(batch.events)
        self.size += entry.size
        if due > -math.inf:
            heappush(self._delayed, (due, entry.order, entry))
        else:
            heappush(self._ready, (entry.order, entry))

    def left(self) -> list[Entry]:
        """All that is not settled, in line, for another outbox to go on with."""
        entries = [*self._in_flight.values(), *self._unrecorded.values(), *self._waiting()]
        return sorted(entries, key=lambda entry: entry.order)

    def only_suspects(self) -> bool:
        """Nothing waits but events that were refused, if anything does."""
        return all(self._place(entry)[0] for entry in self._waiting())

    def take_batch(self, now: float) -> Batch | None:
        """The next batch to attempt, or None while nothing may be attempted."""
        if len(self._in_flight) >= self.concurrency or now < self.not_before:
            return None
        entry = self._probe(now) if self.circuit.is_open else self._next(now)
        if entry is None:
            return None
        self._in_flight[id(entry.batch)] = entry
        self.counts.attempts += 1
        self.counts.retries += entry.batch.attempts > 0
        entry.batch.attempts += 1
        entry.batch.place = ""  # of an attempt before
        return entry.batch

    def due(self) -> float | None:
        """When `take_batch` may next give a batch; None when that depends on a call to another method."""
        if len(self._in_flight) >= self.concurrency or not (self._ready or self._delayed):
            return None
        if self.circuit.is_open:
            if self._in_flight or self._oldest() is None:
                return None
            return max(self.circuit.probe_at, self.not_before)
        return max(-math.inf if self._ready else self._delayed[0][0], self.not_before)

    def drain(self) -> None:
        """Make everything that waits for its time due now, once: the last chance before the end."""
        self.not_before = -math.inf
        self.circuit.probe_at = -math.inf
        for entry in self._unrecorded.values():
            entry.due = -math.inf
        while self._delayed:
            _, order, entry = heappop(self._delayed)
            heappush(self._ready, (order, entry))

    def settle(self, batch: Batch, outcome: Outcome | None, now: float) -> Settled:
        """What an attempt's outcome means for a batch that was taken.

        Raises ValueError for an outcome that contradicts itself: a bug in the destination's writer.
        """
        if outcome is None:
            return self._all_delivered(batch)
        check(self.name, batch, outcome)
        outcome = in_bounds(outcome)
        entry = self._in_flight.pop(id(batch))
        later, refused = set(outcome.later), dict(outcome.rejected)
        if outcome.too_large and len(later) == 1:
            refused[later.pop()] = too_large(outcome)
        delivered: Sequence[int] = range(len(batch.events))
        if later or refused:
            delivered = [index for index in delivered if index not in later and index not in refused]
        if delivered:
            again = batch.attempts > 1 or len(delivered) < len(batch.events)
            self._limit.delivered(
                [batch.events[index].id for index in delivered] if again else (),
                [batch.events[index].id for index in later],
            )
        verdict = self._reject(batch, refused, set(outcome.unsent), bool(delivered), now)
        later.update(verdict.suspected, verdict.beyond)
        settled = Settled(batch, delivered, verdict.rejected)
        self._count(settled, outcome, now)
        self._learn(entry, settled, outcome, later, verdict, now)
        settled.error = self.last_error if later else ""
        return settled

    def _all_delivered(self, batch: Batch) -> Settled:
        """What most attempts come to, as `settle` does it for an outcome that names nothing, at a third."""
        entry, count = self._in_flight.pop(id(batch)), len(batch.events)
        self._limit.delivered([event.id for event in batch.events] if batch.attempts > 1 else ())
        self.circuit.progressed()
        entry.failures = 0
        self.counts.delivered += count
        self.events -= count
        self.size -= entry.size
        return Settled(batch, range(count), [])

    def recorded(self, settled: Settled) -> None:
        """The outcome is remembered: what is left of the batch may be attempted again."""
        for entry in settled.again:
            del self._unrecorded[entry.order]
            heappush(self._delayed, (entry.due, entry.order, entry))

    def _reject(
        self, batch: Batch, refused: Mapping[int, str], unsent: Collection[int], proven: bool, now: float
    ) -> Verdict:
        """Which of the refused events become dead letters. proven: others of this attempt were delivered."""
        verdict = Verdict()
        asked = [batch.events[index].id for index in refused if index not in unsent]
        believed = set(asked) if proven or not asked else self._limit.believes(asked)
        for index, reason in sorted(refused.items()):
            event_id = batch.events[index].id
            if index not in unsent and event_id not in believed:
                verdict.suspected.append(index)
                verdict.why = reason
            elif self._limit.allow(event_id, now):
                verdict.rejected.append((index, worded(reason)))
            else:
                verdict.beyond.append(index)
        return verdict

    def _count(self, settled: Settled, outcome: Outcome, now: float) -> None:
        counts = self.counts
        counts.delivered += len(settled.delivered)
        counts.unknown += len(outcome.later) if outcome.unknown else 0
        for index, reason in settled.rejected:
            counts.dead_lettered.add(reason, settled.batch.events[index].id, now)
        if settled.rejected:
            self.last_rejected_at = now
        if settled.rejected or outcome.later:
            self.last_error = outcome.cause or (
                settled.rejected[-1][1] if settled.rejected else "no cause given"
            )
            self.last_error_at = now

    def _learn(
        self,
        entry: Entry,
        settled: Settled,
        outcome: Outcome,
        later: set[int],
        verdict: Verdict,
        now: float,
    ) -> None:
        """Queue what is left, and let the circuit know how the destination is doing."""
        asked = asked_wait(outcome)
        self.not_before = max(self.not_before, now + asked) if asked else self.not_before
        progress = bool(settled.delivered or settled.rejected)
        if progress:
            self.circuit.progressed()
            entry.failures = 0
        self._leave(entry, settled, sorted(later), verdict.suspected, outcome)
        if not later:
            return
        why = outcome.cause or "no cause given"
        if verdict.beyond:
            why = self.last_error = self._limit_reached(outcome)
        elif verdict.suspected and not progress:
            why = self.last_error = ANY["refuses_all"].told(self.name, shown(verdict.why))
        at_once = outcome.blocked or bool(verdict.beyond)
        needs_you = at_once or bool(verdict.suspected)
        halved = settled.halves and not verdict.suspected  # which tells neither way
        wait = 0.0
        if at_once or not (progress or halved):
            wait = self._failed(entry, asked)
            self.circuit.failed(now, wait, why, at_once=at_once, needs_you=needs_you)
        elif settled.delivered and not settled.rejected:
            # Part of it got through and the rest was not to blame on anyone: a throttled service.
            wait = self._backoff.seconds(1, self._uniform)
        for again in settled.again:
            again.due = now + wait
        if verdict.suspected and settled.halves:  # the others are the evidence that is missing
            settled.again[0].due = now
            settled.again[1].due = now + max(wait, self._backoff.seconds(1, self._uniform))

    def _failed(self, entry: Entry, asked: float) -> float:
        """Nothing got through; seconds to wait."""
        # What was under way when the circuit opened says nothing new about how long to wait.
        if not (self.circuit.is_open and self._in_flight):
            self.circuit.failures += 1
        entry.failures += 1
        failures = max(self.circuit.failures, entry.failures)
        self._limit.failed()
        return max(self._backoff.seconds(failures, self._uniform), asked)

    def _leave(
        self, entry: Entry, settled: Settled, later: list[int], suspected: Collection[int], outcome: Outcome
    ) -> None:
        """Shrink the batch to what is left of it, or cut that in two: halves, or suspected events apart."""
        batch = settled.batch
        self.events -= len(batch.events) - len(later)
        self.size -= entry.size
        if not later:
            return
        if len(later) == len(batch.events):
            settled.left = batch
        else:
            settled.left = part(batch, later, batch.id)
        entry.batch = settled.left
        settled.again = [entry]
        parts: Sequence[list[int]] = ()
        if suspected:
            parts = [index for index in later if index not in suspected], [*suspected]
        elif outcome.too_large:
            middle = len(later) // 2
            parts = later[:middle], later[middle:]
        if all(parts) and parts:
            self._limit.cut([event.id for event in settled.left.events])
            settled.halves = tuple(part(batch, each) for each in parts)
            settled.again = [Entry((*entry.order, i), half, 0) for i, half in enumerate(settled.halves)]
        for again in settled.again:
            again.size = raw_size(again.batch.events)
            self.size += again.size
            self._unrecorded[again.order] = again

    def _limit_reached(self, outcome: Outcome) -> str:
        reason = next(iter(outcome.rejected.values()), "") or outcome.cause or "too_large"
        return (
            f"dead letter limit of {self._limit.limit} an hour reached at {self.name}: the service says "
            f"“{reason}”. Nothing more is rejected until then, the events are kept: fix the cause or raise "
            "--dead_letter_limit"
        )

    def _waiting(self) -> list[Entry]:
        return [entry for _, entry in self._ready] + [entry for _, _, entry in self._delayed]

    def _oldest(self) -> Entry | None:
        """The first in line, unless its last outcome is still to be recorded. Suspected events come last: one
        that is taken is wanted."""
        oldest = min(self._waiting(), key=self._place, default=None)
        unrecorded = min(self._unrecorded.values(), key=self._place, default=None)
        if oldest and unrecorded and self._place(unrecorded) < self._place(oldest):
            return None
        return oldest

    def _place(self, entry: Entry) -> tuple[bool, tuple[int, ...]]:
        return self._limit.suspects(entry.batch.events[0].id), entry.order

    def _probe(self, now: float) -> Entry | None:
        if self._in_flight or now < self.circuit.probe_at:
            return None
        oldest = self._oldest()
        if oldest is not None:
            self._ready = [item for item in self._ready if item[1] is not oldest]
            self._delayed = [item for item in self._delayed if item[2] is not oldest]
            # Both lists were heaps, but a list without one of its items need not be one.
            self._ready.sort()
            self._delayed.sort()
        return oldest

    def _next(self, now: float) -> Entry | None:
        while self._delayed and self._delayed[0][0] <= now:
            _, order, entry = heappop(self._delayed)
            heappush(self._ready, (order, entry))
        return heappop(self._ready)[1] if self._ready else None


# Enough to keep the writers busy between two ticks, whatever the size of a batch.
MAX_UNSETTLED_BATCHES = 128
# As Python objects twice as much; each destination that is away holds so much of its own, whatever waits
# for it in the journal. Two files or S3 objects of 10,000 events, one on its way and one to follow.
MAX_UNSETTLED_BYTES = 6_000_000
# An event of the feed is about so long; used until events have been seen.
USUAL_BYTES = 300.0


def max_unsettled(concurrency: int) -> int:
    """The most batches, sealed or about to be, that may be unsettled before reading pauses."""
    return max(MAX_UNSETTLED_BATCHES, 4 * concurrency)


def room(
    policy: BatchPolicy, max_batches: int, batches: int, size: int, mean: float, *, waiting: bool
) -> int:
    """How many more events may be taken in; 0 means wait for the writers.

    batches, size: how many and how many bytes are unsettled now. mean: bytes an event, 0 when none has
    been seen. waiting: whether anything is unsettled: if not, there is room for one batch at least.
    """
    mean = mean or USUAL_BYTES
    capacity = min(max_batches * policy.max_events, int(MAX_UNSETTLED_BYTES / mean))
    free = min((max_batches - batches) * policy.max_events, int((MAX_UNSETTLED_BYTES - size) / mean))
    if not waiting:
        return max(free, max(1, min(policy.max_events, int(policy.max_bytes / mean))))
    # Rather wait until half is free than creep along the limit with a bundle for every batch: a bundle
    # costs as much as delivering several.
    return free if free >= capacity / 2 else 0
