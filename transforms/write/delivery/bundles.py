"""A delivery of its own for each bundle: for bounded pipelines, and runners on which timers are no help."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Chunk, Receipt
from transforms.parse import as_chunk
from transforms.window import window_end
from transforms.write.contract import Destination, name_of
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.ledger import MemoryLedger
from transforms.write.delivery.refusals import DeadLetterLimit
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.metrics import DeliveryCounters

# Long enough for a restart or a rate limit; a runner that sees nothing for longer suspects a stuck bundle.
GIVE_UP_AFTER = 300.0


class Undelivered(Exception):
    """A bundle's events did not all arrive in time: the runner retries the bundle."""


class Deliver(beam.DoFn):
    """Delivers each bundle by itself, before the bundle ends."""

    def __init__(
        self,
        destination: Destination,
        dead_letter_limit: int | None = None,
        *,
        clock: Clock | None = None,
        give_up_after: float | None = None,
    ) -> None:
        self._destination = destination
        self._dead_letter_limit = dead_letter_limit
        self._clock = clock or SystemClock()
        self._give_up_after = GIVE_UP_AFTER if give_up_after is None else give_up_after

    def setup(self) -> None:
        self._name = name_of(self._destination)
        self._counters = DeliveryCounters(self._name)
        self._bell = threading.Event()
        # A bundle ends with what it has: no other event may come that would show who is to blame.
        self._limit = DeadLetterLimit(self._dead_letter_limit, believed=math.inf)
        self._types = self._destination.asked.type_filter()
        self._delivery = self._new()

    def start_bundle(self) -> None:
        self._windows: dict[float, Any] = {}
        if not self._delivery.idle():  # the bundle before was given up: it comes again in full
            self._delivery.close(timeout=1.0)
            self._delivery = self._new()

    def process(self, element: Any, window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        chunk = as_chunk(element, self._name, self._clock.now())
        if isinstance(chunk, DeadLetter):
            self._counters.count(chunk)
            yield TaggedOutput(DEAD_LETTERS, chunk)
            return
        if chunk.events:  # else it is a tick: time to look at the clock
            if self._types is not None:
                asked = self._types.asked(chunk.events)
                self._counters.filtered(len(chunk.events) - len(asked))
                chunk = Chunk(asked, chunk.first, chunk.taken_at)
            end = window_end(window)
            self._windows[end] = window
            self._delivery.add_chunk(chunk, end)
        deadline = self._delivery.deadline()
        if deadline is not None and deadline <= self._clock.monotonic():
            yield from self._results()
            yield from self._until(lambda: self._delivery.room() > 0)

    def finish_bundle(self) -> Iterator[Any]:
        self._delivery.flush()
        yield from self._until(self._delivery.idle)

    def teardown(self) -> None:
        self._delivery.close(timeout=5.0)

    def _new(self) -> Delivery:
        return Delivery(
            self._destination,
            MemoryLedger(),
            clock=self._clock,
            dead_letter_limit=self._limit,
            wake=self._bell.set,
        )

    def _until(self, done: Any) -> Iterator[Any]:
        """Record what arrives until `done()`. Raises Undelivered when nothing has for long."""
        give_up = self._clock.monotonic() + self._give_up_after
        while not done():
            self._bell.clear()
            for result in self._results():
                yield result
                give_up = self._clock.monotonic() + self._give_up_after  # something goes through
            left = give_up - self._clock.monotonic()
            if done():
                return
            if left <= 0:
                raise Undelivered(self._why())
            self._clock.wait(self._bell, left)

    def _results(self) -> Iterator[Any]:
        for batch, result in self._delivery.steps():
            self._counters.count(result)
            tagged = isinstance(result, DeadLetter)
            value = self._in_window(batch, result)
            yield TaggedOutput(DEAD_LETTERS, value) if tagged else value

    def _in_window(self, batch: Batch, result: DeadLetter | Receipt) -> WindowedValue:
        window = self._windows[batch.window_end]
        return WindowedValue(result, window.max_timestamp(), (window,))

    def _why(self) -> str:
        status = self._delivery.status()
        return (
            f"{self._name}: {status.pending} events of a bundle were not delivered within "
            f"{self._give_up_after:.0f} s: {status.last_error or 'no answer'}; the runner retries the bundle"
        )
