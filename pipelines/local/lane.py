"""A lane: one destination's own small pipeline in its own thread, over the shared journal."""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections.abc import Callable, Sequence

import apache_beam as beam

from pipelines.local.pace import LaneSource
from pipelines.local.runner import LaneOptions, in_process_runner, leave_no_directory
from transforms.backoff import Backoff
from transforms.clock import Clock
from transforms.feed import source
from transforms.feed.journal import Journal
from transforms.write.contract import Destination
from transforms.write.delivery import registry
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.status import DeliveryStatus
from transforms.write.outbox.circuit import DeadLetterLimit

log = logging.getLogger("grantex.lane")

RESTART = Backoff(base=1.0, cap=60.0)
CLOSE_WAIT = 2.0  # seconds for writers to let go when a lane ends or restarts
HEALTHY = 60.0  # seconds of running after which a failure counts as the first again

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
        beam_args: Sequence[str] = (),
        dead_letter_limit: int | None = None,
        carries_feed_dead_letters: bool = False,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.name = destination.name
        self.destination = destination
        self.cursor = journal.cursor(self.name)
        self.restarts = 0
        self.failure = ""  # the last unexpected error in one line, until the lane runs again
        self._graph = graph
        self._clock = clock
        self._uniform = uniform
        self._beam_args = list(beam_args)
        self._limit = DeadLetterLimit(dead_letter_limit)  # restarts do not reset it
        self._source = LaneSource(self.name, journal, clock, carries_feed_dead_letters)
        self._delivery = self._new_delivery()
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
    def drained(self) -> bool:
        """Everything the journal holds for this destination is delivered or a dead letter."""
        return self.cursor.pending == 0

    def start(self) -> None:
        """Run until `drain`, in a thread of its own."""
        self._thread.start()

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
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                self._run_once()
                return
            except BaseException as error:  # noqa: BLE001 - whatever it was, the other lanes go on
                failures = 1 if self._clock.monotonic() - started >= HEALTHY else failures + 1
                if self._stop.is_set() or not self._wait_after(error, failures):
                    return

    def _run_once(self) -> None:
        if self.restarts:
            ended = self.status
            self._delivery, self._before = self._new_delivery(), ended
        delivery = self._delivery
        self._source.begin(delivery)
        source.register(self.name, self._source)
        registry.register(self.name, delivery)
        try:
            delivery.recover()
            with _building:
                pipeline = beam.Pipeline(in_process_runner(), LaneOptions(self._beam_args))
                self._graph(pipeline, self)
            leave_no_directory(pipeline)
            self.failure = ""
            pipeline.run()
        finally:
            source.unregister(self.name)
            registry.unregister(self.name)
            delivery.close(CLOSE_WAIT)

    def _wait_after(self, error: BaseException, failures: int) -> bool:
        """Log the error (its traceback once) and wait; False when a drain came meanwhile."""
        self.restarts += 1
        self.failure = f"{type(error).__name__}: {_first_line(error)}"
        wait = RESTART.wait(failures, self._uniform)
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
        return not self._clock.wait(self._stop, wait)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else traceback.format_exception_only(error)[-1].strip()
