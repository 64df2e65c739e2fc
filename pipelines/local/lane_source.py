"""A lane's source: when its destination has something to do, and what of the journal it reads for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

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
# Events and outcomes are left to gather for this long: each turn costs a commit and a pass through the graph
# whatever it carries. It is part of what an event may wait beyond `max_age`.
GATHER_SECONDS = 0.02
GATHER_EVENTS = 5_000  # with so many waiting, and room for them, there is nothing to gather for
FLOOD, FLOOD_SECONDS = 500, 0.1  # after a turn that read so many events they gather for longer
TRIM_EVERY = 0.5  # seconds


class LaneSource:
    """Reads the journal as fast as its delivery has room; wakes for data, deadlines, outcomes and drain."""

    def __init__(self, name: str, journal: Journal, clock: Clock) -> None:
        self._name = name
        self._journal = journal
        self._clock = clock
        self._woken = threading.Event()
        self._delivery: Delivery | None = None
        self._drain_until: float | None = None
        self._catch_up_to: int | None = None
        self._caught_up = self._flushed = False
        self._passed = 0  # nothing that is asked for lies between the position and this offset
        self._ahead: Sequence[Chunk] = ()  # read from there, and of the first of them something is asked for
        self._read_from = 0  # where the last turn began to
        self._last_turn = self._trimmed = clock.monotonic()
        journal.listeners.append(self.wake)

    @property
    def turned_at(self) -> float:
        """Monotonic seconds of its last turn."""
        return self._last_turn

    def wake(self) -> None:
        """There may be something to do; called from any thread."""
        if not self._woken.is_set():  # setting it anew costs a lock, for each lane at each append
            self._woken.set()

    def begin(self, delivery: Delivery) -> None:
        """A pipeline is about to run with this delivery."""
        self._delivery = delivery
        self._caught_up = self._flushed = False
        self._passed, self._ahead = 0, ()

    def catch_up(self, end: int) -> None:
        """Flush once when the journal is read up to the offset `end`, and go on."""
        self._catch_up_to = end
        self.wake()

    def drain(self, deadline: float) -> None:
        """Flush when the journal is read to its end; finish when all is settled or at `deadline`."""
        self._drain_until = deadline
        self.wake()

    def position(self, restriction_start: int) -> int:
        """A new pipeline begins at the cursor, which only receipts move; a resumed bundle where it left."""
        return max(restriction_start, self._journal.cursors[self._name].position)

    def first_turn(self, position: int) -> Turn:
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

    def next_turn(self, position: int, bundle_seconds: float) -> Turn | None:
        return None if bundle_seconds >= BUNDLE_SECONDS else self.first_turn(position)

    def _gather(self, position: int) -> None:
        """Let events and outcomes gather: a turn at most every 20 ms, or 100 in a flood that goes on, unless
        there is much to read now. While there is no room the writers have enough for longer than 20 ms. A
        flood pauses when nothing has come for a look; with writers that have nothing to do it is over."""
        read, self._read_from = position - self._read_from, position
        until = self._last_turn + (FLOOD_SECONDS if read >= FLOOD else GATHER_SECONDS)
        end = 0  # of the journal, a look ago
        while (rest := until - self._clock.monotonic()) > 0 and self._drain_until is None:
            before, end = end, self._journal.end
            waiting = end - max(position, self._passed)
            if waiting >= GATHER_EVENTS and self._current.room():
                return
            if waiting and end == before and not self._current.unsent():
                return  # the flood is over, and the writers have nothing to do
            self._clock.wait(threading.Event(), min(rest, GATHER_SECONDS))

    @property
    def _current(self) -> Delivery:
        assert self._delivery is not None
        return self._delivery

    def _due(self, position: int, now: float) -> Turn | None:
        delivery = self._current
        room = delivery.room() if self._journal.end > max(position, self._passed) else 0
        if room and delivery.filters:
            room = room if self._look_ahead(position, room) else 0
        position = max(position, self._passed)
        waiting = self._journal.end - position
        if self._drain_until is not None:
            return self._drain_turn(waiting, room, now)
        if self._catch_up_to is not None and position >= self._catch_up_to and not self._caught_up:
            self._caught_up = True
            return Turn(flush=True)
        return Turn(room) if room or _tick_due(delivery, now) else None

    def _look_ahead(self, position: int, room: int) -> bool:
        """Whether something is asked for of what comes next. What is not is passed over, here and now: it
        costs no turn, and no pass through the graph."""
        chunks = self._journal.read(max(position, self._passed), room)
        for number, chunk in enumerate(chunks):
            if not self._current.passes_over(chunk):
                self._ahead = chunks[number:]
                return True
            self._passed = chunk.end
        if self._journal.end > self._passed:
            self._woken.set()  # look again at once, once deadlines have been looked at
        return False

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

    def read(self, position: int, events: int) -> Iterable[Chunk]:
        return self._asked_for() if self._current.filters else self._journal.read(position, events)

    def _asked_for(self) -> Iterator[Chunk]:
        """What was read ahead, but for chunks of which nothing is asked for."""
        ahead, self._ahead = self._ahead, ()
        for chunk in ahead:
            if not self._current.passes_over(chunk):
                yield chunk
            self._passed = chunk.end

    def dead_letters(self) -> Sequence[tuple[int, DeadLetter]]:
        return ()  # what is the feed's rides on no destination's lane

    def drop_dead_letters(self, up_to: int) -> None:
        """There are none."""

    def finished(self, position: int) -> None:
        """Nothing to do: the lane closes its delivery, the journal outlives it."""

    def caught_up(self, position: int) -> bool:
        return self._journal.end <= max(position, self._passed)

    def pending_bytes(self, position: int) -> int:
        return self._journal.pending_bytes(max(position, self._passed))


def _tick_due(delivery: Delivery, now: float) -> bool:
    """Whether there is an outcome to record, or a batch old enough to close."""
    deadline = delivery.deadline()
    return delivery.ready() or (deadline is not None and deadline <= now)
