"""One destination's deliveries on one machine: batches, outbox and ledger driven by ticks and threads."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Collection, Iterator
from itertools import compress
from operator import not_

from transforms.batch import OpenBatches
from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Chunk, Receipt
from transforms.event_types import TypeFilter, runs_left_out
from transforms.shared_events import raw_size
from transforms.write.contract import Destination, Outcome
from transforms.write.delivery.ledger import Filtered, Ledger, Range, Settlement
from transforms.write.delivery.outbox import Outbox, max_unsettled, room
from transforms.write.delivery.refusals import DeadLetterLimit
from transforms.write.delivery.settling import Settled, dead_letters, place_of, receipt, settlement
from transforms.write.delivery.status import DeliveryStatus, Histogram, snapshot
from transforms.write.delivery.told import Told
from transforms.write.delivery.writer_threads import WriterThreads
from transforms.write.pseudonyms import measures

log = logging.getLogger("grantex.write")
# What nobody asked for is committed with the next batch, and without one so long after it was received.
FILTERED_SECONDS = 1.0


def _nothing() -> None:
    pass


class Delivery:
    """Takes chunks in, gives dead letters and receipts out, and keeps the ledger's promises:

    a batch is sealed before its first attempt, an outcome is recorded before the next one, and a dead
    letter has been given out (and written, by whoever iterates over `tick`) before it is recorded.

    `recover`, `add_chunk`, `flush`, `tick`, `room` and `deadline` belong to one thread, the bundle's; the
    rest is safe from any. `wake` is called from a writer's thread when a tick has something to record.
    """

    def __init__(
        self,
        destination: Destination,
        ledger: Ledger,
        *,
        name: str = "",
        clock: Clock | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        dead_letter_limit: DeadLetterLimit | int | None = None,
        wake: Callable[[], None] = _nothing,
    ) -> None:
        self.name = name or destination.name or type(destination).__name__
        self.policy = destination.policy
        self._clock = clock or SystemClock()
        self._wake = wake
        limit = dead_letter_limit
        self._outbox = Outbox(
            self.name,
            concurrency=destination.concurrency,
            uniform=uniform,
            dead_letter_limit=limit if isinstance(limit, DeadLetterLimit) else DeadLetterLimit(limit),
        )
        self._open = OpenBatches(self.policy, *measures(destination))
        self._max_batches = max_unsettled(destination.concurrency)
        self._closed: list[Batch] = []  # not sealed yet
        self._settled: list[Settled] = []  # by the threads, since the last tick
        self._unrecorded: list[Settled] = []  # seen by a tick, not yet committed
        self._unsplit: list[Settled] = []  # committed, their halves not yet sealed
        self._recorded: list[Settled] = []  # committed, their receipts not yet given out
        self._recovered = False  # by the last `recover`, and not sent yet
        self._seconds = Histogram()
        self._failure: Exception | None = None
        self._told = Told(self.name)
        self._lock = threading.Lock()  # around the outbox and what the threads share with ticks
        self._types = destination.asked.type_filter()
        self._masked: tuple[Chunk, bytes] = (Chunk(), b"")  # the last chunk, and what of it is asked for
        self._filtered: list[Range] = []  # not asked for, not yet committed
        self._filtered_since = 0.0
        self._ledger = ledger
        self._ledger_lock = threading.Lock()  # never held together with the other
        self._threads = WriterThreads(
            destination, self.name, self._clock, take=self._take, done=self._done, failed=self._failed
        )

    def recover(self) -> int:
        """Put what was sealed before a restart in front of everything; returns the number of batches.

        They are sent from the first tick on: what is sent before it, while the pipeline is being built, could
        not be recorded, and was sent again after the next crash.
        """
        with self._ledger_lock:
            batches = self._ledger.recover()
        self._put(batches, ring=False)
        self._recovered = bool(batches)
        return len(batches)

    @property
    def filters(self) -> bool:
        """Whether its destination asks for some types only."""
        return self._types is not None

    def passes_over(self, chunk: Chunk) -> bool:
        """Whether nothing of a chunk is asked for: then it is taken down as filtered, and not to be added."""
        if self._types is None or not chunk.events or any(self._asked(self._types, chunk)):
            return False
        self._leave_out(self._types, chunk, self._sealed(chunk))
        return True

    def add_chunk(self, chunk: Chunk, window_end: float = math.inf) -> None:
        """Take in a chunk of the window that ends at `window_end` (seconds since the epoch)."""
        skip = self._sealed(chunk)
        if self._types is not None:
            skip = self._leave_out(self._types, chunk, skip)
        now = self._clock.monotonic()
        # Catching up, the window is over already: then its end says nothing about when to close.
        left = window_end - self._clock.now()
        self._closed += self._open.add_chunk(
            chunk.events,
            chunk.first,
            now,
            window_end=window_end,
            closes_at=now + left if left > 0 else math.inf,
            taken_at=chunk.taken_at,
            skip=skip,
            shared=chunk.shared,
        )

    def _sealed(self, chunk: Chunk) -> Collection[int]:
        with self._ledger_lock:
            return self._ledger.is_sealed(chunk.first, chunk.end)

    def _asked(self, types: TypeFilter, chunk: Chunk) -> bytes:
        """Which of its events are asked for; found once for each chunk, whoever asks first."""
        if self._masked[0] is not chunk:
            self._masked = (chunk, types.mask(chunk.events))
        return self._masked[1]

    def _leave_out(self, types: TypeFilter, chunk: Chunk, sealed: Collection[int]) -> Collection[int]:
        """Take down what is not asked for and not `sealed`; all offsets that are to be skipped."""
        asked = self._asked(types, chunk)
        offsets = range(chunk.first, chunk.end)
        if sealed:  # after a restart; by then other types may be asked for
            asked = bytes(each or offset in sealed for each, offset in zip(asked, offsets, strict=True))
        if all(asked):
            return sealed
        if not self._filtered:
            self._filtered_since = self._clock.monotonic()
        (first, end), *more = runs_left_out(asked, chunk.first)
        if self._filtered and self._filtered[-1][1] == first:
            first = self._filtered.pop()[0]
        self._filtered += (first, end), *more
        return {*sealed, *compress(offsets, map(not_, asked))}

    def flush(self) -> None:
        """Close every open batch, and try once more, now, what waits for its time."""
        self._closed += self._open.flush()
        with self._lock:
            self._outbox.drain()
        self._threads.ring()

    def tick(self) -> Iterator[DeadLetter | Receipt]:
        """Record what the writers came to and start what has closed; see `steps`."""
        return (result for _, result in self.steps())

    def steps(self) -> Iterator[tuple[Batch, DeadLetter | Receipt]]:
        """As `tick`, each result with its batch: first dead letters, then, once recorded, receipts.

        A dead letter must be safe when the iterator is advanced past it. When anything raises, here or in
        between, nothing is lost: the next tick goes on with the same outcomes, and may repeat dead
        letters. Raises what a writer raised, if that was no connection error or time-out.
        """
        with self._lock:
            self._unrecorded += self._settled
            self._settled = []
        results = list(self._unrecorded)
        for settled in results:
            for letter in dead_letters(self.name, settled, self._clock.now()):
                yield settled.batch, letter
        self._closed += self._open.close_due(self._clock.monotonic())
        self._record(results)
        if self._recovered:
            self._recovered = False
            self._threads.ring()
        while self._recorded:
            settled = self._recorded.pop(0)
            if settled.delivered:
                yield settled.batch, receipt(self.name, settled, self._clock.now())
        if self._failure is not None:
            raise self._failure

    def room(self) -> int:
        """How many more events may be added now; 0 means wait until woken."""
        policy, closed = self.policy, self._closed
        with self._lock:
            batches, size, events = len(self._outbox), self._outbox.size, self._outbox.events
        batches += len(closed)
        events += sum(len(batch.events) for batch in closed)
        size += sum(raw_size(batch.events) for batch in closed)
        mean = (size + self._open.size) / (events + self._open.events) if events + self._open.events else 0.0
        return room(policy, self._max_batches, batches, size, mean, waiting=batches > 0)

    def deadline(self) -> float | None:
        """When the next tick is needed at the latest, in monotonic seconds; None when woken is enough."""
        if self.ready():
            return self._clock.monotonic()
        opened = self._open.deadline()
        if not self._filtered:
            return opened
        due = self._filtered_since + FILTERED_SECONDS
        return due if opened is None else min(opened, due)

    def ready(self) -> bool:
        """A tick has something to record or to start."""
        to_record = self._unrecorded or self._unsplit or self._settled or self._failure
        return bool(self._closed or to_record or self._recovered)

    def idle(self) -> bool:
        """Nothing is open, waiting, in flight or unrecorded."""
        with self._lock:
            busy = len(self._outbox) or self._settled or self._unrecorded or self._unsplit or self._filtered
        return not (busy or self._closed or self._open.events)

    def unsent(self) -> int:
        """Batches that wait for a writer, are under way, or wait to be tried again."""
        with self._lock:
            return len(self._outbox) + len(self._closed)

    def pending(self) -> int:
        """Events added and not yet delivered or dead-lettered."""
        with self._lock:
            events = self._outbox.events
        return events + self._open.events + sum(len(batch.events) for batch in list(self._closed))

    def close(self, timeout: float) -> bool:
        """Stop the writers and close them, within about `timeout` seconds; True when all have ended.

        What was delivered since the last tick is recorded, so that it does not repeat. Dead letters are not,
        as nobody is there to write them: their events stay sealed, like all that is left.
        """
        ended = self._threads.close(timeout)
        try:
            self._record_last()
        except Exception:
            log.warning(
                "%s: what was delivered last could not be recorded and may be delivered again",
                self.name,
                exc_info=True,
            )
        return ended

    def status(self) -> DeliveryStatus:
        """A snapshot for metrics and for people."""
        pending = self.pending()
        with self._lock:
            ages = [self._outbox.oldest_taken_at(), self._open.oldest_taken_at()]
            ages += [batch.taken_at for batch in list(self._closed)]
            oldest = min((age for age in ages if age), default=None)
            return snapshot(self._outbox, pending, oldest, self._seconds, self._clock)

    def _record(self, results: list[Settled]) -> None:
        """Commit outcomes and seals in one transaction, then let the writers go on from there."""
        seals = self._closed
        if results or seals or self._filtered:
            now = self._clock.now()
            settlements = [settlement(settled, now) for settled in results]
            filtered = Filtered(self._filtered, now) if self._filtered else None
            with self._ledger_lock:
                self._ledger.commit(settlements, seals, filtered)
            self._closed, self._filtered = [], []
            self._unrecorded = []
            self._recorded += results
            self._unsplit += [settled for settled in results if settled.halves]
            whole = [settled for settled in results if not settled.halves]
            self._put(seals, whole)
        while self._unsplit:
            settled = self._unsplit[0]
            assert settled.left is not None
            with self._ledger_lock:
                self._ledger.resplit(settled.left, settled.halves)
            self._put((), [self._unsplit.pop(0)])

    def _record_last(self) -> None:
        """Record what was delivered and leave dead letters and halves, if any, for a tick that may come."""
        with self._lock:
            self._unrecorded += self._settled
            self._settled = []
            results = [settled for settled in self._unrecorded if settled.delivered]
        if results:
            now = self._clock.now()
            settlements = [
                Settlement(
                    settled.batch, settled.offsets(settled.delivered), at=now, place=place_of(settled.batch)
                )
                for settled in results
            ]
            with self._ledger_lock:
                self._ledger.commit(settlements, ())
            for settled in results:
                settled.delivered = []

    def _put(
        self, batches: Collection[Batch], recorded: Collection[Settled] = (), *, ring: bool = True
    ) -> None:
        with self._lock:
            for settled in recorded:
                self._outbox.recorded(settled)
            for batch in batches:
                batch.on_remember = self._remember
                self._outbox.put(batch)
            busy = len(self._outbox) > 0
        if busy and ring:
            self._threads.ring()

    def _remember(self, batch: Batch, memo: bytes) -> None:
        with self._ledger_lock:
            self._ledger.remember(batch, memo)

    def _take(self) -> tuple[Batch | None, float | None]:
        with self._lock:
            return self._outbox.take_batch(self._clock.monotonic()), self._outbox.due()

    def _done(self, batch: Batch, outcome: Outcome | None, seconds: float) -> None:
        with self._lock:
            was_open = self._outbox.circuit.is_open
            self._seconds.record(seconds)
            now = self._clock.monotonic()
            settled = self._outbox.settle(batch, outcome, now)
            first = not self._settled
            self._settled.append(settled)
            circuit = self._outbox.circuit
            over = was_open and not circuit.is_open
            lines = self._told.settled("", circuit, [reason for _, reason in settled.rejected], now)
        for line in lines:
            log.warning("%s", line)
        if over:
            self._threads.ring()
        if first:
            self._wake()

    def _failed(self, error: Exception) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
        self._threads.stop()
        self._wake()
