"""One destination's deliveries on a cluster: batches, outbox and state driven by elements and timers."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec

from transforms.batch import OpenBatches
from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Receipt
from transforms.held import HELD
from transforms.write.contract import Destination
from transforms.write.delivery.outbox import MAX_UNSETTLED_BYTES, Outbox
from transforms.write.delivery.settling import dead_letters, receipt
from transforms.write.keyed import state
from transforms.write.keyed.attempts import Attempt, Attempts
from transforms.write.keyed.state import (
    AttemptId,
    BeamState,
    KeyState,
    PackedBatch,
    PackedEvents,
    SealedBatchHeader,
    pack_batch,
    soon,
    unpack,
    unpack_batch,
    unpack_events,
)
from transforms.write.metrics import DeliveryCounters

# A round is a bundle: what it delivered is on record when it ends, and elements wait until then.
ROUND_SECONDS = 0.5
# Most requests take less; one that lasts longer is looked at again by a later bundle. No bundle ever waits
# longer than this for a destination, however long that hangs.
PATIENCE = 0.25
# Batches that are unpacked at a time, in packed bytes.
HELPING = 1_000_000
Result = DeadLetter | Receipt

log = logging.getLogger("grantex.write")


class Round:
    """Restores the outbox from the key's state, attempts what is due, and `keep`s what is left.

    sealed: batches in the inbox that may be attempted: those whose seal an earlier bundle has committed.
    last: nothing waits for its time, as there will be none.
    """

    def __init__(
        self,
        key: str,
        beam_state: BeamState,
        key_state: KeyState,
        sealed: Sequence[SealedBatchHeader],
        attempts: Attempts,
        *,
        name: str,
        clock: Clock,
        uniform: Callable[[float, float], float],
        counters: DeliveryCounters,
        last: bool = False,
    ) -> None:
        self._key, self._beam_state, self._key_state = key, beam_state, key_state
        self._sealed = sealed
        self._attempts = attempts
        self._name, self._clock, self._counters = name, clock, counters
        self._outbox = Outbox(name, uniform=uniform, dead_letter_limit=attempts.limit)
        self._originals: dict[int, tuple[Batch, PackedBatch]] = {}
        self._loaded = 0  # blocks
        self._unopened: list[PackedBatch] = []  # of the last one
        self._changed = False
        self._running: Batch | None = None
        self._last = last
        self._restore()

    @property
    def outbox(self) -> Outbox:
        """What is at hand."""
        return self._outbox

    def empty(self) -> bool:
        """Nothing is left of what was sealed."""
        more = self._unopened or self._sealed or self._loaded < len(self._key_state.blocks)
        return not (len(self._outbox) or more)

    def run(self, until: float, patience: float) -> Iterator[Result]:
        """Attempt what is due, until nothing is, one lasts longer than `patience`, or it is `until`
        (monotonic seconds). One that outlasted the call before is waited for first. Raises what a writer
        raised, if that was no connection error or time-out."""
        while (batch := self._running or self._next()) is not None:
            attempt_id = AttemptId(batch.seal, batch.id, batch.attempts)
            attempt = self._attempts.start((self._key, attempt_id), batch)
            if not self._clock.wait(attempt.done, patience):
                self._key_state.running, self._running = attempt_id, batch
                return
            self._key_state.running = self._running = None
            yield from self._settle(batch, attempt, attempt_id)
            if self._clock.monotonic() >= until:
                return

    def keep(self) -> None:
        """Put back what is left, and note in the key's state when to go on."""
        key_state, outbox, circuit = self._key_state, self._outbox, self._outbox.circuit
        due = outbox.due()
        if self._changed:
            packed_batches = [
                self._packed_batch(entry.batch, entry.failures, entry.due) for entry in outbox.left()
            ]
            state.put_first(self._beam_state, key_state, [*packed_batches, *self._unopened], self._loaded)
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
        """All that is left as dead letters, also what is not at hand."""
        now = self._clock.now()
        while True:
            for entry in self._outbox.left():
                batch, why = entry.batch, cause
                if batch is self._running:
                    why += "; it was being sent and may have arrived"
                    self._counters.unanswered(batch)
                for event in batch.events:
                    yield DeadLetter("write", self._name, why, event.raw, event.id, batch.attempts, now)
            self._outbox = Outbox(self._name)
            self._originals.clear()
            if not self._load():
                return

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
        while self._outbox.circuit.is_open and self._may_load() and self._load():
            pass
        batch = self._outbox.take_batch(self._clock.now())
        while batch is None and self._may_load() and self._load():
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

    def _load(self) -> bool:
        """Take more batches to hand, oldest first; False when there are none."""
        key_state = self._key_state
        if not self._unopened and self._loaded < len(key_state.blocks):
            self._unopened = state.load(self._beam_state, key_state.blocks[self._loaded])
            self._loaded += 1
        if not self._unopened and self._sealed:
            self._unopened = state.collect(self._beam_state, key_state, self._sealed)
            self._sealed = ()
            self._changed = True
        size = count = 0
        for packed_batch in self._unopened:
            size += packed_batch.size
            count += 1
            self._put(packed_batch)
            if size >= HELPING:
                break
        del self._unopened[:count]
        return count > 0

    def _put(self, packed_batch: PackedBatch) -> None:
        batch = unpack_batch(packed_batch)
        self._originals[packed_batch.number] = (batch, packed_batch)
        due = -math.inf if self._last else soon(packed_batch.due, self._clock.now())
        self._outbox.put(batch, packed_batch.failures, due)

    def _settle(self, batch: Batch, attempt: Attempt, attempt_id: AttemptId) -> Iterator[Result]:
        try:
            outcome = attempt.outcome()
        except Exception:
            self._attempts.forget((self._key, attempt_id))
            raise
        batch.memo, batch.place = attempt.memo, attempt.place
        self._changed = True
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
            state.number(self._key_state, half)
        self._outbox.recorded(settled)

    def _packed_batch(self, batch: Batch, failures: int, due: float) -> PackedBatch:
        original, packed_batch = self._originals.get(batch.seal, (None, None))
        if batch is self._running:
            batch.attempts -= 1  # it has not come to anything yet
        if batch is original and packed_batch is not None:
            if batch.attempts == packed_batch.attempts:
                return packed_batch
            return pack_batch(batch, failures, due, packed_batch.bodies)
        return pack_batch(batch, failures, due)


# A request that lasts is looked at when it has lasted twice as long, and at least each second.
POLL_FIRST, POLL_LAST = 0.02, 1.0
# A timer that is this much overdue will not come: it is set again.
LOST = 10.0
SetTimer = Callable[[float], None]


class KeyedDelivery:
    """What the stages of one worker do with the state of a key, one call of `receive`, `due` or `end` at a
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

    def receive(self, packed: bytes, beam_state: BeamState, set_timer: SetTimer) -> bool:
        """Take events in. True when the key is new, and with it its timer for the end of the input."""
        self._counters.declare()
        known = self._open(beam_state)
        key_state = known or KeyState()
        received = unpack(PackedEvents, packed)
        events = unpack_events([received.body])
        now = self._clock.now()
        batches = self._resumed(key_state)
        window_end = received.window_end
        closed = batches.add_chunk(
            events,
            0,
            now,
            window_end=window_end,
            # Catching up, the window is over already: then its end says nothing about when to close.
            closes_at=window_end if window_end > now else math.inf,
            taken_at=received.taken_at or now,
        )
        state.take_in(beam_state, key_state, batches, closed, events, received.body)
        self._counters.received(len(events))
        self._schedule(key_state, batches, set_timer, sealed=bool(closed))
        beam_state.write(key_state)
        return known is None

    def due(self, key: str, beam_state: BeamState, set_timer: SetTimer) -> Iterator[Result]:
        """Do what has become due: close what is old, see what became of an attempt, make the next ones."""
        key_state = self._open(beam_state)
        if key_state is None:
            return
        key_state.wake_at = None
        sealed = list(key_state.sealed)
        batches = self._resumed(key_state)
        closed = batches.close_due(self._clock.now())
        state.take_in(beam_state, key_state, batches, closed)
        if not self._still_running(key, key_state) and (key_state.attempt_at or 0.0) <= self._clock.now():
            round_ = self._round(key, beam_state, key_state, sealed)
            yield from round_.run(self._clock.monotonic() + ROUND_SECONDS, self._patience)
            round_.keep()
            self._still_running(key, key_state)
        if state.crowded(key_state):
            state.put_last(beam_state, key_state, state.collect(beam_state, key_state, key_state.sealed))
        self._schedule(key_state, batches, set_timer, sealed=bool(closed))
        self._show(key, key_state)
        beam_state.write(key_state)

    def end(self, key: str, beam_state: BeamState) -> Iterator[Result]:
        """The input is over, and with it the state: deliver everything, and what a destination does not take
        in its DrainTime becomes dead letters, so that it can be replayed."""
        key_state = self._open(beam_state)
        if key_state is None:
            return
        batches = self._resumed(key_state)
        state.take_in(beam_state, key_state, batches, batches.flush())
        round_ = self._round(key, beam_state, key_state, key_state.sealed, last=True)
        if self._attempts.drain.begin(key):
            self._attempts.forget_failed(key)
        yield from self._drain(round_)
        if not round_.empty():
            self._attempts.drain.gave_up()
        yield from round_.give_up(
            f"not_delivered: the job was drained, and {self._name} did not take it in the time for that "
            f"({round_.outbox.last_error or key_state.why or 'no answer'}); replay it from here"
        )
        self._show(key, KeyState())
        state.clear(beam_state)

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

    def _show(self, key: str, key_state: KeyState) -> None:
        pending, size = key_state.pending(), key_state.size()
        HELD.note(self._name, key, pending, size, self._clock.monotonic(), key_state.why)
        self._counters.standing(
            key,
            pending,
            size,
            in_flight=key_state.running is not None,
            circuit_open=key_state.open_since is not None,
            needs_you=key_state.open_since is not None and key_state.needs_you is True,
        )

    def _open(self, beam_state: BeamState) -> KeyState | None:
        key_state = beam_state.read()
        if key_state is not None:
            key_state.set_back(self._clock.now())
        return key_state

    def _resumed(self, key_state: KeyState) -> OpenBatches:
        batches = OpenBatches(self._policy, self._sizes, self._partition)
        state.resume(batches, key_state)
        return batches

    def _round(
        self,
        key: str,
        beam_state: BeamState,
        key_state: KeyState,
        sealed: Sequence[SealedBatchHeader],
        *,
        last: bool = False,
    ) -> Round:
        return Round(
            key,
            beam_state,
            key_state,
            sealed,
            self._attempts,
            name=self._name,
            clock=self._clock,
            uniform=self._uniform,
            counters=self._counters,
            last=last,
        )

    def _still_running(self, key: str, key_state: KeyState) -> bool:
        """The attempt of an earlier bundle goes on in this process; then says when to look again."""
        attempt = self._attempts.find((key, key_state.running)) if key_state.running else None
        if attempt is None or attempt.done.is_set():
            return False
        lasted = self._clock.monotonic() - attempt.started
        key_state.attempt_at = self._clock.now() + min(max(lasted, POLL_FIRST), POLL_LAST)
        return True

    def _schedule(
        self, key_state: KeyState, batches: OpenBatches, set_timer: SetTimer, *, sealed: bool
    ) -> None:
        """Set the timer for what is due next; `sealed` says that there is a new batch to attempt."""
        now = self._clock.now()
        if sealed and key_state.open_since is None and key_state.running is None:
            key_state.attempt_at = max(now, key_state.not_before)
        times = [batches.deadline(), key_state.attempt_at, now if state.crowded(key_state) else None]
        wake = min((time for time in times if time is not None), default=None)
        if wake is None:
            return
        if key_state.wake_at is None or wake < key_state.wake_at or key_state.wake_at < now - LOST:
            key_state.wake_at = wake
            set_timer(wake)
