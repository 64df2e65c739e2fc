"""A lane: one destination's own small pipeline in its own thread, over the shared journal."""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, TaggedOutput

from pipelines.beam import LaneOptions, in_process_runner, leave_no_directory
from pipelines.local.lane_source import LaneSource
from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk
from transforms.feed.journal import Journal
from transforms.feed.source import Feed, Source, read_journal
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

log = logging.getLogger("grantex.lane")
RESTART = Backoff(base=1.0, cap=60.0)
CLOSE_WAIT = 2.0  # seconds for writers to let go when a lane ends or restarts
HEALTHY = 60.0  # seconds of running after which a failure counts as the first again
KEEPS_FAILING = 5  # failures in a row, some 20 s, after which it is not expected to heal by itself
# Beam's pipeline construction keeps state of its own in module globals.
_building = threading.Lock()
Graph = Callable[[beam.Pipeline, "Lane"], None]


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
