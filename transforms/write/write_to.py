"""WriteTo(destination): what all sinks share. On its own, or driven by a lane on one machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from transforms import coders  # noqa: F401 - elements travel by them
from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Chunk
from transforms.metrics import DeliveryCounters
from transforms.window import window_end
from transforms.write.contract import Destination, Receipt
from transforms.write.delivery import Delivery
from transforms.write.elements import as_chunk
from transforms.write.ledger import MemoryLedger
from transforms.write.registry import registered

DEAD_LETTERS = "dead_letters"
# Long enough for a restart or a rate limit; a runner that sees nothing for longer suspects a stuck bundle.
GIVE_UP_AFTER = 300.0


class WriteResult(NamedTuple):
    """What a sink returns: PCollections of Receipt and of DeadLetter."""

    delivered: Any
    dead_letters: Any


class Undelivered(Exception):
    """A bundle's events did not all arrive in time: the runner retries the bundle."""


class WriteTo(beam.PTransform):  # type: ignore[type-arg]
    """Delivers events to `destination`, at least once, in batches by its policy.

    Takes Chunk, Event, bytes, str or dict elements (an event's JSON) and windows of any kind; batches
    never mix windows. Returns a WriteResult: `delivered` (Receipt, one for each attempt that got something
    through) and `dead_letters` (DeadLetter: rejected events, and elements that are no events).

    On its own it delivers all of a bundle before the bundle ends and retries outages inside it; after five
    minutes it raises Undelivered, and the runner retries the bundle, which may repeat events. An outage
    longer than that is for the driver on state and timers, which comes with the cluster runners.

    With `lane` it uses the delivery that this process registered under that name, and only Chunks: an
    empty one is a tick. The name alone is pickled, not the destination. Everything stays in one bundle:
    what follows `dead_letters` has happened before a receipt is recorded.
    """

    def __init__(
        self, destination: Destination, *, lane: str | None = None, dead_letter_limit: int | None = None
    ) -> None:
        super().__init__()
        self._destination = destination
        self._lane = lane
        self._dead_letter_limit = dead_letter_limit

    def default_label(self) -> str:
        """`WriteTo` and the destination's part of labels."""
        return f"WriteTo{label(self._destination)}"

    def expand(self, pcoll: Any) -> WriteResult:
        """Elements in, a WriteResult out."""
        deliver: beam.DoFn
        if self._lane is None:
            deliver = Deliver(self._destination, self._dead_letter_limit)
        else:
            deliver = DeliverInLane(self._lane)
        outputs = pcoll | "Deliver" >> beam.ParDo(deliver).with_outputs(DEAD_LETTERS, main="delivered")
        outputs.delivered.element_type = Receipt
        outputs[DEAD_LETTERS].element_type = DeadLetter
        return WriteResult(outputs.delivered, outputs[DEAD_LETTERS])

    def display_data(self) -> dict[str, Any]:
        """Name and policy, for the graph's viewers; nothing of the destination's settings."""
        policy = self._destination.policy
        return {
            "destination": _name(self._destination),
            "max_events": policy.max_events,
            "max_bytes": policy.max_bytes,
            "max_age": policy.max_age,
        }


@beam.typehints.with_input_types(Chunk)
class DeliverInLane(beam.DoFn):
    """Feeds the lane's delivery; ticks at each empty chunk, with which the source ends its bundles."""

    def __init__(self, lane: str) -> None:
        self._lane = lane

    def start_bundle(self) -> None:
        self._delivery = registered(self._lane)
        self._counters = DeliveryCounters(self._delivery.name)

    def process(self, element: Chunk, window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        delivery = self._delivery
        if element.events:
            delivery.add(element, window_end(window))
        if element.flush:
            delivery.flush()
        elif element.events:
            return
        for result in delivery.tick():
            self._counters.count(result)
            yield TaggedOutput(DEAD_LETTERS, result) if isinstance(result, DeadLetter) else result


class Deliver(beam.DoFn):
    """Delivers each bundle by itself, before the bundle ends."""

    def __init__(
        self,
        destination: Destination,
        dead_letter_limit: int | None = None,
        *,
        clock: Clock | None = None,
        give_up_after: float = GIVE_UP_AFTER,
    ) -> None:
        self._destination = destination
        self._dead_letter_limit = dead_letter_limit
        self._clock = clock or SystemClock()
        self._give_up_after = give_up_after

    def setup(self) -> None:
        self._name = _name(self._destination)
        self._counters = DeliveryCounters(self._name)
        self._bell = threading.Event()
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
        end = window_end(window)
        self._windows[end] = window
        self._delivery.add(chunk, end)
        if self._delivery.ready():
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
            dead_letter_limit=self._dead_letter_limit,
            wake=self._bell.set,
        )

    def _until(self, done: Any) -> Iterator[Any]:
        """Record what arrives until `done()`."""
        give_up = self._clock.monotonic() + self._give_up_after
        while not done():
            self._bell.clear()
            yield from self._results()
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


def label(destination: Destination) -> str:
    """A destination's part of a graph's labels: its name, with the capitals of its class where they are the
    same (BigQuery). Two destinations of one class have two names, and so two labels."""
    kind, words = type(destination).__name__, re.split(r"[-_]", destination.name)
    if "".join(words).lower() in ("", kind.lower()):
        return kind
    return "".join(word[:1].upper() + word[1:] for word in words)


def _name(destination: Destination) -> str:
    return destination.name or type(destination).__name__
