"""A lane: one destination's own small pipeline in its own thread, over the shared journal."""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, TaggedOutput

from pipelines.beam import LaneOptions, in_process_runner, leave_no_directory
from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk
from transforms.feed.journal import Journal
from transforms.feed.source import Feed, Source, Turn, read_journal
from transforms.in_process import Ticket
from transforms.retry import Backoff
from transforms.window import window_end
from transforms.write.contract import Destination
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.refusals import DeadLetterLimit
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.delivery.status import DeliveryStatus
from transforms.write.metrics import DeliveryCounters
from transforms.write.write_to import WriteResult, deliver

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
        there is much to read now. While there is no room the writers have enough for longer than 20 ms."""
        read, self._read_from = position - self._read_from, position
        until = self._last_turn + (FLOOD_SECONDS if read >= FLOOD else GATHER_SECONDS)
        end = 0  # of the journal, a look ago
        while (rest := until - self._clock.monotonic()) > 0 and self._drain_until is None:
            waiting = self._journal.end - max(position, self._passed)
            if waiting >= GATHER_EVENTS and self._current.room():
                return
            if waiting and end == self._journal.end and not self._current.unsent():
                return  # the flood is over, and the writers have nothing to do
            end = self._journal.end
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


class ReadInLane(beam.PTransform):  # type: ignore[type-arg]
    """A lane's beginning of the graph, in the place of ReadFromGrantex and under its label."""

    def __init__(self, name: str, source: Ticket[Source]) -> None:
        super().__init__("ReadFromGrantex")
        self._name, self._source = name, source

    def expand(self, pbegin: PBegin) -> Feed:
        return read_journal(pbegin, self._name, self._source)


class WriteInLane(beam.PTransform):  # type: ignore[type-arg]
    """A lane's sink: takes Chunks, an empty one of which is a tick. All of it stays in one bundle, so what
    follows `dead_letters` has happened before a receipt is recorded."""

    def __init__(self, delivery: Ticket[Delivery]) -> None:
        super().__init__()
        self._delivery = delivery

    def expand(self, chunks: Any) -> WriteResult:
        return deliver(chunks, DeliverInLane(self._delivery))


@beam.typehints.with_input_types(Chunk)
class DeliverInLane(beam.DoFn):
    """Feeds the lane's delivery; ticks at each empty chunk, with which the source ends its bundles."""

    def __init__(self, delivery: Ticket[Delivery]) -> None:
        self._ticket = delivery

    def start_bundle(self) -> None:
        self._delivery = self._ticket.live
        self._counters = DeliveryCounters(self._delivery.name)

    def process(self, element: Chunk, window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        delivery = self._delivery
        if element.events:
            delivery.add_chunk(element, window_end(window))
        if element.flush:
            delivery.flush()
        elif element.events:
            return
        delivered = 0
        try:
            for result in delivery.tick():
                if isinstance(result, DeadLetter):
                    self._counters.count(result)
                    yield TaggedOutput(DEAD_LETTERS, result)
                else:
                    delivered += len(result.event_ids)
                    yield result
        finally:
            if delivered:  # once for all of them: to count takes as long as to hand a receipt on
                self._counters.delivered(delivered)


log = logging.getLogger("grantex.lane")
RESTART = Backoff(base=1.0, cap=60.0)
CLOSE_WAIT = 2.0  # seconds for writers to let go when a lane ends or restarts
HEALTHY = 60.0  # seconds of running after which a failure counts as the first again
KEEPS_FAILING = 5  # failures in a row, some 20 s, after which it is not expected to heal by itself
# Beam's pipeline construction keeps state of its own in module globals.
_building = threading.Lock()
Graph = Callable[[beam.Pipeline, "Lane"], None]


class Lane:
    """Runs `graph` for one destination and restarts it from its seals after an unexpected error.

    A hung or broken destination holds up its own cursor only.
    """

    def __init__(
        self,
        destination: Destination,
        journal: Journal,
        graph: Graph,
        *,
        clock: Clock,
        options: LaneOptions | None = None,
        dead_letter_limit: int | None = None,
        on_broken: Callable[[], None] = lambda: None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """on_broken: called when it has ended on what only a restart of the process cures."""
        self.name = destination.name
        self.destination = destination
        self.cursor = journal.cursor(self.name, destination.exactly_once())
        self.restarts = 0
        self.failure = ""  # the last unexpected error in one line, until the lane runs again
        self._journal = journal
        self._graph = graph
        self._clock = clock
        self._on_broken = on_broken
        self._failures = 0  # in a row
        self._rests = False  # until its next try
        self._started = clock.monotonic()
        self._uniform = uniform
        self._options = LaneOptions([]) if options is None else options
        self._limit = DeadLetterLimit(dead_letter_limit)  # restarts do not reset it
        self._source = LaneSource(self.name, journal, clock)
        self._delivery = self._new_delivery()
        self.source: Ticket[Source] = Ticket(self._source)
        self.delivery = Ticket(self._delivery)
        self._before: DeliveryStatus | None = None
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lane-{self.name}", daemon=True)

    @property
    def status(self) -> DeliveryStatus:
        """What its deliveries are doing; the totals include those before a restart."""
        status = self._delivery.status()
        return status if self._before is None else status.after(self._before)

    @property
    def draining(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    @property
    def drained(self) -> bool:
        """Everything the journal holds for this destination is delivered or a dead letter."""
        return self.cursor.pending == 0

    def start(self) -> None:
        """Run until `drain`, in a thread of its own."""
        self._thread.start()

    @property
    def keeps_failing(self) -> bool:
        """It has ended again and again on unexpected errors, and not run for long since."""
        return self._failures >= KEEPS_FAILING and bool(self.failure or not self._has_run_long)

    @property
    def has_recovered(self) -> bool:
        """It has run for long enough that what failed before is over."""
        return not self.failure and self._has_run_long

    def quiet_for(self) -> float:
        """Seconds since its thread last came round; 0 when it has ended, or waits before it starts anew. It
        never waits for its destination: an outage is no silence."""
        if self._rests or not self._thread.is_alive():
            return 0.0
        return self._clock.monotonic() - max(self._started, self._source.turned_at)

    @property
    def is_well(self) -> bool:
        """It runs, and its destination is not left alone: worth waiting for."""
        return not self.failure and not self.status.circuit.open

    def catch_up(self, end: int) -> None:
        """Deliver what the journal holds below the offset `end` without waiting for more; then go on."""
        self._source.catch_up(end)

    def drain(self, deadline: float) -> None:
        """Deliver what the journal holds and end, at the latest at `deadline` (monotonic seconds)."""
        self._stop.set()
        self._source.drain(deadline)

    def join(self, timeout: float) -> bool:
        """Wait for its end; True when it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _new_delivery(self) -> Delivery:
        return Delivery(
            self.destination,
            self.cursor,
            name=self.name,
            clock=self._clock,
            uniform=self._uniform,
            dead_letter_limit=self._limit,
            wake=self._source.wake,
        )

    def _run(self) -> None:
        while True:
            self._started = self._clock.monotonic()
            try:
                self._run_once()
                return
            except BaseException as error:  # noqa: BLE001 - whatever it was, the other lanes go on
                self._failures = 1 if self._has_run_long else self._failures + 1
                if self._stop.is_set() or not self._wait_after(error):
                    return

    def _run_once(self) -> None:
        if self.restarts:
            ended = self.status
            self._delivery, self._before = self._new_delivery(), ended
            self.delivery = Ticket(self._delivery)
        delivery = self._delivery
        self._source.begin(delivery)
        try:
            delivery.recover()
            with _building:
                pipeline = beam.Pipeline(in_process_runner(), self._options)
                self._graph(pipeline, self)
            leave_no_directory(pipeline)
            self.failure = ""
            pipeline.run()
        finally:
            self.delivery.void()
            delivery.close(CLOSE_WAIT)

    @property
    def _has_run_long(self) -> bool:
        return self._clock.monotonic() - self._started >= HEALTHY

    def _wait_after(self, error: BaseException) -> bool:
        """Log the error (its traceback once) and wait; False when it is not to run again."""
        self.failure = f"{type(error).__name__}: {_first_line(error)}"
        if self._journal.is_suspect:
            log.error("%s: its lane cannot read the journal, which is damaged: %s", self.name, self.failure)
            self._on_broken()
            return False
        self.restarts += 1
        wait = RESTART.seconds(self._failures, self._uniform)
        known = self.failure in self._seen
        self._seen.add(self.failure)
        log.error(
            "%s: its lane stopped on an unexpected error and starts again in %.1f s; its events are kept, "
            "the other destinations go on: %s",
            self.name,
            wait,
            self.failure,
            exc_info=None if known else error,
        )
        self._rests = True
        try:
            return not self._clock.wait(self._stop, wait)
        finally:
            self._started, self._rests = self._clock.monotonic(), False


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else traceback.format_exception_only(error)[-1].strip()
