"""One destination's deliveries on a cluster: batches, outbox and state driven by elements and timers."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Iterator

import msgspec

from transforms.batch import OpenBatches
from transforms.clock import Clock
from transforms.held import FORGET_SECONDS, HELD, ROOM
from transforms.write.contract import Destination
from transforms.write.keyed import inbox as inboxes
from transforms.write.keyed.attempts import Attempts
from transforms.write.keyed.backlog import Backlog
from transforms.write.keyed.firing import Budget, Result, Round
from transforms.write.keyed.inbox import Inbox
from transforms.write.keyed.packing import unpack_events
from transforms.write.keyed.shard import on_cluster
from transforms.write.keyed.state import BeamState, KeyState, PackedEvents, unpack
from transforms.write.metrics import DeliveryCounters
from transforms.write.pseudonyms import measures

# A round is a bundle: what it delivered is on record when it ends, and elements wait until then.
ROUND_SECONDS = 0.5
# Most requests take less; one that lasts longer is looked at again by a later bundle. No bundle ever waits
# longer than this for a destination, however long that hangs.
PATIENCE = 0.25
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
        self._patience = patience
        self._round = functools.partial(
            Round, attempts=attempts, name=name, clock=clock, uniform=uniform, counters=counters
        )
        self._never = threading.Event()
        self._policy = on_cluster(destination.policy)
        self._sizes, self._partition, _ = measures(destination)

    def receive(self, key: str, packed: bytes, beam_state: BeamState, set_timer: SetTimer) -> bool:
        """Take events in. True when the key is new, and with it its timer for the end of the input."""
        known = self._open(beam_state)
        key_state = known or KeyState()
        received, now = unpack(PackedEvents, packed), self._clock.now()
        received = received if received.taken_at else msgspec.structs.replace(received, taken_at=now)
        inbox, backlog = self._attempts.known_keys.open(key, beam_state, key_state)
        count, closed = received.count, None
        if received.count:
            closed = inboxes.take_block(inbox, key_state, self._policy, received, now, backlog)
        if closed is None:
            count, closed = self._take_apart(inbox, key_state, received)
        self._counters.received(count)
        self._schedule(key_state, set_timer, sealed=closed)
        self._write(key, beam_state, key_state, inbox, backlog)
        return known is None

    def _take_apart(self, inbox: Inbox, key_state: KeyState, received: PackedEvents) -> tuple[int, bool]:
        """Open a block whose events go into several batches; how many they are, and whether one closed."""
        events, now, window_end = unpack_events(received.bodies), self._clock.now(), received.window_end
        batches = self._resumed(key_state)
        closed = batches.add_chunk(
            events,
            0,
            now,
            window_end=window_end,
            closes_at=inboxes.closes_at(window_end, now),
            taken_at=received.taken_at,
        )
        inboxes.take_in(inbox, key_state, batches, closed, events, received.bodies)
        return len(events), bool(closed)

    def due(
        self, key: str, beam_state: BeamState, set_timer: SetTimer, budget: Budget | None = None
    ) -> Iterator[Result]:
        """Do what has become due: close what is old, see what became of an attempt, make the next ones.

        budget: what the bundle may still give out, over all its keys.
        """
        key_state = self._open(beam_state)
        if key_state is None:
            return
        key_state.wake_at = None
        sealed = list(key_state.sealed)
        batches = self._resumed(key_state)
        closed = batches.close_due(self._clock.now())
        inbox, backlog = self._attempts.known_keys.open(key, beam_state, key_state)
        inboxes.take_in(inbox, key_state, batches, closed)
        if not self._still_running(key, key_state) and (key_state.attempt_at or 0.0) <= self._clock.now():
            round_ = self._round(key, backlog, key_state, inbox, sealed, budget=budget or Budget())
            yield from round_.run(self._clock.monotonic() + ROUND_SECONDS, self._patience)
            round_.keep()
            self._still_running(key, key_state)
        inbox.move(inboxes.crowding(key_state), backlog)
        inbox.tidy()
        self._schedule(key_state, set_timer, sealed=bool(closed))
        self._show(key, key_state)
        self._write(key, beam_state, key_state, inbox, backlog)

    def end(
        self,
        key: str,
        beam_state: BeamState,
        set_end: Callable[[], object] = lambda: None,
        budget: Budget | None = None,
    ) -> Iterator[Result]:
        """The input is over, and with it the state: deliver everything, and what a destination does not take
        in its DrainTime becomes dead letters, so that it can be replayed.

        A bundle gives out some MB; then `set_end` is to bring the end again.
        """
        key_state = self._open(beam_state)
        if key_state is None:
            return
        budget = budget or Budget()
        batches = self._resumed(key_state)
        inbox, backlog = self._attempts.known_keys.open(key, beam_state, key_state)
        inboxes.take_in(inbox, key_state, batches, batches.flush())
        round_ = self._round(key, backlog, key_state, inbox, key_state.sealed, budget=budget, last=True)
        if self._attempts.drain.begin(key, goes_on=key_state.ending):
            self._attempts.forget_failed(key)
        key_state.ending = True
        yield from self._drain(round_, budget)
        if not budget.spent:
            if not round_.empty():
                self._attempts.drain.gave_up()
            yield from round_.give_up(
                f"not_delivered: the job was drained, and {self._name} did not take it in the time for that "
                f"({round_.outbox.last_error or key_state.why or 'no answer'}); replay it from here"
            )
        if round_.empty():
            self._show(key, KeyState())
            backlog.clear()
            beam_state.inbox.clear()
            beam_state.key_state.clear()
            return
        round_.keep()
        inbox.tidy()
        self._show(key, key_state)
        self._write(key, beam_state, key_state, inbox, backlog)
        set_end()

    def _drain(self, round_: Round, budget: Budget) -> Iterator[Result]:
        clock, outbox, drain = self._clock, round_.outbox, self._attempts.drain
        tried_last = False
        while (left := drain.left()) > 0 and not round_.empty() and not budget.spent:
            for result in round_.run(clock.monotonic(), left):
                drain.progressed()
                tried_last = False
                yield result
            if outbox.in_flight:
                continue  # it lasts, and others may have been given more time meanwhile
            due, now = round_.due(), clock.now()
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
        """Once a second at most, unless what is true of it changes, or nothing more will happen to it."""
        now = self._clock.monotonic()
        pending, size = key_state.pending(), key_state.size()
        HELD.note(self._name, key, pending, size, now, key_state.why)
        shown = {
            "in_flight": key_state.running is not None,
            "circuit_open": key_state.open_since is not None,
            "needs_you": key_state.open_since is not None and key_state.needs_you is True,
        }
        if self._attempts.shows(key, shown, now) or key_state.wake_at is None:
            self._counters.standing(key, pending, size, **shown)

    def _write(
        self, key: str, beam_state: BeamState, key_state: KeyState, inbox: Inbox, backlog: Backlog
    ) -> None:
        self._attempts.known_keys.keep(key, inbox, backlog, key_state)
        beam_state.write(key_state)

    def _open(self, beam_state: BeamState) -> KeyState | None:
        key_state = beam_state.read()
        if key_state is not None:
            key_state.set_back(self._clock.now())
        return key_state

    def _resumed(self, key_state: KeyState) -> OpenBatches:
        batches = OpenBatches(self._policy, self._sizes, self._partition)
        inboxes.resume(batches, key_state)
        return batches

    def _still_running(self, key: str, key_state: KeyState) -> bool:
        """The attempt of an earlier bundle goes on in this process; then says when to look again."""
        attempt = self._attempts.find((key, key_state.running)) if key_state.running else None
        if attempt is None or attempt.done.is_set():
            return False
        lasted = self._clock.monotonic() - attempt.started
        key_state.attempt_at = self._clock.now() + min(max(lasted, POLL_FIRST), POLL_LAST)
        return True

    def _schedule(self, key_state: KeyState, set_timer: SetTimer, *, sealed: bool) -> None:
        """Set the timer for what is due next; `sealed` says that there is a new batch to attempt."""
        now = self._clock.now()
        if sealed and key_state.open_since is None and key_state.running is None:
            key_state.attempt_at = max(now, key_state.not_before)
        deadlines = [min(each.closes_at, self._policy.deadline(each.opened_at)) for each in key_state.open]
        # A key without room stops the reading, and so all that it would be heard of by.
        heard_of = now + FORGET_SECONDS / 2 if key_state.size() >= ROOM else None
        times = [*deadlines, key_state.attempt_at, heard_of, now if inboxes.crowding(key_state) else None]
        wake = min((time for time in times if time is not None), default=None)
        if wake is None:
            return
        if key_state.wake_at is None or wake < key_state.wake_at or key_state.wake_at < now - LOST:
            key_state.wake_at = wake
            set_timer(wake)
