"""One destination's deliveries on a cluster: batches, outbox and state driven by elements and timers."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence

from transforms.batch import OpenBatches
from transforms.clock import Clock
from transforms.metrics import DeliveryCounters
from transforms.write.contract import Destination
from transforms.write.keyed import shelf
from transforms.write.keyed.attempts import Attempts
from transforms.write.keyed.book import Book, Memory, Sealed
from transforms.write.keyed.packing import Arrival, unpack, unpack_events
from transforms.write.keyed.round import PATIENCE, ROUND_SECONDS, Result, Round

# A request that lasts is looked at when it has lasted twice as long, and at least each second.
POLL_FIRST, POLL_LAST = 0.02, 1.0
# A timer that is this much overdue will not come: it is set again.
LOST = 10.0

SetTimer = Callable[[float], None]


class KeyedDelivery:
    """What the stages of one worker do with the state of a key, one call of `arrive`, `due` or `end` at a
    time for each key.

    A batch is sealed by one bundle and attempted by a later one, so what a batch holds is committed before
    anything of it leaves. Where the runner repeats a bundle with the same elements (Dataflow does: they come
    out of its shuffle), batches are the same for ever. Flink goes back to a checkpoint and may put other
    events together the second time; there a batch that was delivered after the checkpoint repeats under
    another identity.
    """

    def __init__(
        self,
        destination: Destination,
        name: str,
        attempts: Attempts,
        counters: DeliveryCounters,
        clock: Clock,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        patience: float = PATIENCE,
    ) -> None:
        self._name, self._attempts, self._counters, self._clock = name, attempts, counters, clock
        self._uniform, self._patience = uniform, patience
        self._never = threading.Event()
        self._policy, self._sizes = destination.policy, destination.sizes
        # Asking every event for a partition that is the same for all would double the cost of batching.
        one = type(destination).partition is Destination.partition
        self._partition = None if one else destination.partition

    def arrive(self, packed: bytes, memory: Memory, set_timer: SetTimer) -> bool:
        """Take events in. True when the key is new, and with it its timer for the end of the input."""
        self._counters.declare()
        known = self._open(memory)
        book = known or Book()
        arrival = unpack(Arrival, packed)
        events = unpack_events([arrival.body])
        now = self._clock.now()
        batches = self._resumed(book)
        window_end = arrival.window_end
        closed = batches.add_chunk(
            events,
            0,
            now,
            window_end=window_end,
            # Catching up, the window is over already: then its end says nothing about when to close.
            closes_at=window_end if window_end > now else math.inf,
            taken_at=arrival.taken_at or now,
        )
        shelf.take_in(memory, book, batches, closed, events, arrival.body)
        self._counters.received(len(events))
        self._schedule(book, batches, set_timer, sealed=bool(closed))
        memory.close_book(book)
        return known is None

    def due(self, key: str, memory: Memory, set_timer: SetTimer) -> Iterator[Result]:
        """Do what has become due: close what is old, see what became of an attempt, make the next ones."""
        book = self._open(memory)
        if book is None:
            return
        book.wake_at = None
        sealed = list(book.sealed)
        batches = self._resumed(book)
        closed = batches.close_due(self._clock.now())
        shelf.take_in(memory, book, batches, closed)
        if not self._still_flying(key, book) and (book.attempt_at or 0.0) <= self._clock.now():
            round_ = self._round(key, memory, book, sealed)
            yield from round_.run(self._clock.monotonic() + ROUND_SECONDS, self._patience)
            round_.keep()
            self._still_flying(key, book)
        if shelf.crowded(book):
            shelf.put_last(memory, book, shelf.collect(memory, book, book.sealed))
        self._schedule(book, batches, set_timer, sealed=bool(closed))
        self._counters.standing(key, book.pending(), book.flight is not None, book.open_since is not None)
        memory.close_book(book)

    def end(self, key: str, memory: Memory) -> Iterator[Result]:
        """The input is over, and with it the state: deliver everything, and what a destination does not take
        in its DrainTime becomes dead letters, so that it can be replayed."""
        book = self._open(memory)
        if book is None:
            return
        batches = self._resumed(book)
        shelf.take_in(memory, book, batches, batches.flush())
        round_ = self._round(key, memory, book, book.sealed, last=True)
        if self._attempts.drain.begin(key):
            self._attempts.forget_failed(key)
        yield from self._drain(round_)
        if not round_.empty():
            self._attempts.drain.gave_up()
        yield from round_.give_up(
            f"not_delivered: the job was drained, and {self._name} did not take it in the time for that "
            f"({round_.outbox.last_error or book.why or 'no answer'}); replay it from here"
        )
        self._counters.standing(key, 0, in_flight=False, circuit_open=False)
        shelf.clear(memory)

    def _drain(self, round_: Round) -> Iterator[Result]:
        clock, outbox, drain = self._clock, round_.outbox, self._attempts.drain
        tried_last = False
        while (left := drain.left()) > 0 and not round_.empty():
            for result in round_.run(clock.monotonic(), left):
                drain.progressed()
                tried_last = False
                yield result
            if outbox.in_flight:
                continue  # it lasts, and others may have been given more time meanwhile
            due, now = outbox.due(), clock.now()
            due = outbox.not_before if due is None else due
            if due <= now:
                continue
            spare = drain.left() - drain.for_last_try
            if tried_last or spare <= 0:
                return
            clock.wait(self._never, min(due - now, spare))
            if due - now > spare:
                tried_last = True
                outbox.drain()

    def _open(self, memory: Memory) -> Book | None:
        book = memory.open_book()
        if book is not None:
            book.set_back(self._clock.now())
        return book

    def _resumed(self, book: Book) -> OpenBatches:
        batches = OpenBatches(self._policy, self._sizes, self._partition)
        shelf.resume(batches, book)
        return batches

    def _round(
        self, key: str, memory: Memory, book: Book, sealed: Sequence[Sealed], *, last: bool = False
    ) -> Round:
        return Round(
            key,
            memory,
            book,
            sealed,
            self._attempts,
            name=self._name,
            clock=self._clock,
            uniform=self._uniform,
            counters=self._counters,
            last=last,
        )

    def _still_flying(self, key: str, book: Book) -> bool:
        """The attempt of an earlier bundle goes on in this process; then says when to look again."""
        attempt = self._attempts.find((key, book.flight)) if book.flight else None
        if attempt is None or attempt.done.is_set():
            return False
        lasted = self._clock.monotonic() - attempt.started
        book.attempt_at = self._clock.now() + min(max(lasted, POLL_FIRST), POLL_LAST)
        return True

    def _schedule(self, book: Book, batches: OpenBatches, set_timer: SetTimer, *, sealed: bool) -> None:
        """Set the timer for what is due next; `sealed` says that there is a new batch to attempt."""
        now = self._clock.now()
        if sealed and book.open_since is None and book.flight is None:
            book.attempt_at = max(now, book.not_before)
        times = [batches.deadline(), book.attempt_at, now if shelf.crowded(book) else None]
        wake = min((time for time in times if time is not None), default=None)
        if wake is None:
            return
        if book.wake_at is None or wake < book.wake_at or book.wake_at < now - LOST:
            book.wake_at = wake
            set_timer(wake)
