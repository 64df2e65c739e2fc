"""When a lane's pipeline reads, ticks, waits and ends: the source behind its splittable DoFn."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk
from transforms.feed.journal import Journal
from transforms.feed.source import Turn
from transforms.write.delivery.delivery import Delivery

HEARTBEAT = 5.0  # seconds after which a bundle ends though nothing happened
# A bundle costs some 5 ms whatever it carries, and nothing here waits for its end: receipts are recorded and
# dead letters written as they come. So it goes on while there is something to do, and ends now and then to
# give Beam its metrics and the restriction that is left.
BUNDLE_SECONDS = 5.0
# Events are left to gather for this long: each turn costs a commit and a pass through the graph whatever it
# carries. It is part of what an event may wait beyond `max_age`.
GATHER_SECONDS = 0.02
GATHER_EVENTS = 5_000  # with so many waiting there is nothing to gather for
TRIM_EVERY = 0.5  # seconds


class LaneSource:
    """Reads the journal as fast as its delivery has room; wakes for data, deadlines, outcomes and drain."""

    def __init__(self, name: str, journal: Journal, clock: Clock, carries_strays: bool) -> None:
        self._name = name
        self._journal = journal
        self._clock = clock
        self._carries_strays = carries_strays
        self._woken = threading.Event()
        self._delivery: Delivery | None = None
        self._drain_until: float | None = None
        self._flushed = False
        self._last_turn = self._trimmed = clock.monotonic()
        journal.listeners.append(self.wake)

    def wake(self) -> None:
        """There may be something to do; called from any thread."""
        if not self._woken.is_set():  # setting it anew costs a lock, for each lane at each append
            self._woken.set()

    def begin(self, delivery: Delivery) -> None:
        """A pipeline is about to run with this delivery."""
        self._delivery = delivery
        self._flushed = False

    def drain(self, deadline: float) -> None:
        """Flush when the journal is read to its end; finish when all is settled or at `deadline`."""
        self._drain_until = deadline
        self.wake()

    def position(self, restriction_start: int) -> int:
        """A new pipeline begins at the cursor, which only receipts move; a resumed bundle where it left."""
        return max(restriction_start, self._journal.cursors[self._name].position)

    def wait(self, position: int) -> Turn:
        heartbeat = self._clock.monotonic() + HEARTBEAT
        self._gather(position)
        while True:
            self._woken.clear()
            now = self._clock.monotonic()
            turn = self._due(position, now)
            if turn is None and now >= heartbeat:
                turn = Turn()
            if turn is not None:
                self._last_turn = now
                self._trim(now)
                return turn
            self._clock.wait(self._woken, self._sleep(now, heartbeat))

    def next(self, position: int, bundle_seconds: float) -> Turn | None:
        return None if bundle_seconds >= BUNDLE_SECONDS else self.wait(position)

    def _gather(self, position: int) -> None:
        """Let events gather: a turn at most every 20 ms unless there is much to do."""
        rest = self._last_turn + GATHER_SECONDS - self._clock.monotonic()
        if rest > 0 and self._journal.end - position < GATHER_EVENTS and self._drain_until is None:
            self._clock.wait(threading.Event(), rest)

    @property
    def _current(self) -> Delivery:
        assert self._delivery is not None
        return self._delivery

    def _due(self, position: int, now: float) -> Turn | None:
        delivery = self._current
        waiting = self._journal.end - position
        room = delivery.room() if waiting else 0
        if self._drain_until is not None:
            return self._drain_turn(waiting, room, now)
        return Turn(room) if room or _tick_due(delivery, now) or self.strays() else None

    def _drain_turn(self, waiting: int, room: int, now: float) -> Turn | None:
        assert self._drain_until is not None
        delivery = self._current
        if now >= self._drain_until or (self._flushed and not waiting and delivery.idle()):
            return Turn(done=True)
        if room:
            return Turn(room)
        if not self._flushed and not waiting:
            self._flushed = True
            return Turn(flush=True)
        return Turn() if _tick_due(delivery, now) else None

    def _sleep(self, now: float, heartbeat: float) -> float:
        times = [heartbeat]
        deadline = self._current.deadline()
        if deadline is not None:
            times.append(deadline)
        if self._drain_until is not None:
            times.append(self._drain_until)
        return max(0.0, min(times) - now)

    def _trim(self, now: float) -> None:
        if now - self._trimmed >= TRIM_EVERY:
            self._trimmed = now
            self._journal.trim()

    def read(self, position: int, events: int) -> Sequence[Chunk]:
        return self._journal.read(position, events)

    def strays(self) -> Sequence[tuple[int, DeadLetter]]:
        return self._journal.strays() if self._carries_strays else ()

    def drop_strays(self, up_to: int) -> None:
        self._journal.drop_strays(up_to)

    def finished(self, position: int) -> None:
        """Nothing to do: the lane closes its delivery, the journal outlives it."""

    def caught_up(self, position: int) -> bool:
        return self._journal.end <= position

    def pending_bytes(self, position: int) -> int:
        return self._journal.pending_bytes(position)


def _tick_due(delivery: Delivery, now: float) -> bool:
    """Whether there is an outcome to record, or a batch old enough to close."""
    deadline = delivery.deadline()
    return delivery.ready() or (deadline is not None and deadline <= now)
