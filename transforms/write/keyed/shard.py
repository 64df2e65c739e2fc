"""Events to the few keys of a delivery on a cluster, as packed blocks that say what is in them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from transforms.batch import BatchPolicy, runs_of
from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.parse import as_chunk
from transforms.window import window_end
from transforms.write.contract import Destination
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.keyed.packing import pack_events, pack_part
from transforms.write.keyed.state import PackedEvents, pack
from transforms.write.metrics import DeliveryCounters
from transforms.write.pseudonyms import measures

# Of one element, raw; an event is at most 10 MB. Dataflow takes 80 MB, and refuses more for ever.
ELEMENT_BYTES = 16_000_000
# Events that make an element, at most, and their bytes; elements of one event cost five times what these do.
# A batch is a whole number of full elements, so that nothing need be opened to fill it.
GATHER_EVENTS = 2_000
GATHER_BYTES = 1_000_000
# Parts of a chunk are packed once for all destinations, as long as these cut it at the same places.
PART_EVENTS = 500
WORTH_SHARING = 50  # events; fewer are packed together with others
# Events of one bundle that go to one key before the next one has its turn: twice as many as a bundle of the
# feed has. Prism 2.77 lets the timers of keys wait that have elements, and asks without a pause whether it
# may fire them (its internal/engine: `handleProcessingTimeTimer`). With elements for all keys in each bundle
# that was 6 of 9 s of its CPU for 400,000 events, and no batch was attempted meanwhile; a key whose turn it
# is not has time for its timer.
TURN_EVENTS = 20_000
# Partitions of one chunk from which on it is left to the delivery to sort them.
MOST_PARTITIONS = 16
# A batch that waits is one value of state, and its dead letters are one commit: whatever max_bytes says.
BATCH_BYTES = 32_000_000


def on_cluster(policy: BatchPolicy) -> BatchPolicy:
    """A destination's policy, within what a cluster's state takes."""
    return replace(policy, max_bytes=min(policy.max_bytes, BATCH_BYTES))


@beam.typehints.with_output_types(tuple[str, bytes])
class Shard(beam.DoFn):
    """Gives each block of events one of a few keys, and the blocks of a bundle the same one. One key for each
    event or batch would be a timer for each as well, which lags by seconds; and with few, only few probe a
    destination that is down.

    A block says how many its events are, how large and of which partition, so that nobody opens it before its
    batch is attempted.
    """

    def __init__(self, destination: Destination, name: str, shards: int, clock: Clock | None = None) -> None:
        self._destination, self._name, self._shards = destination, name, shards
        self._clock = clock or SystemClock()

    def setup(self) -> None:
        self._counters = DeliveryCounters(self._name)
        self._types = self._destination.asked.type_filter()
        self._policy = on_cluster(self._destination.policy)
        most = self._policy.max_events
        self._most = math.ceil(most / math.ceil(most / GATHER_EVENTS))
        self._sizes, self._partition, _ = measures(self._destination)
        self._turn = random.randrange(self._shards)  # noqa: S311 - not all workers begin with one
        self._since_turn = 0

    def start_bundle(self) -> None:
        self._blocks: dict[tuple[Any, str], _Block] = {}
        self._next_turn()
        if self._types is not None:
            self._counters.filtered(0)

    def process(
        self, element: Any, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        chunk = as_chunk(element, self._name, self._clock.now())
        if isinstance(chunk, DeadLetter):
            self._counters.count(chunk)
            yield TaggedOutput(DEAD_LETTERS, chunk)
            return
        asked = chunk.events
        if self._types is not None:  # here, so that what is not asked for is never packed, shuffled or kept
            asked = self._types.asked(asked)
            self._counters.filtered(len(chunk.events) - len(asked))
        for events in in_parts(asked, ELEMENT_BYTES):
            runs = self._runs(events)
            if len({partition for partition, _, _ in runs}) > MOST_PARTITIONS:
                block = _Block("", timestamp, chunk.taken_at)
                block.add(events, 0, len(events))
                yield self._element(block, window, opened=True)
                continue
            ends = list(accumulate(self._sizes(events)))
            part = _Part(events, ends, chunk.taken_at, timestamp, window)
            for partition, start, stop in runs:
                yield from self._gather(part, partition, start, stop)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for (window, _), block in self._blocks.items():
            yield WindowedValue(self._element(block, window), block.timestamp, (window,))

    def _next_turn(self) -> None:
        if self._since_turn:
            self._turn, self._since_turn = (self._turn + 1) % self._shards, 0

    def _element(self, block: _Block, window: Any, opened: bool = False) -> tuple[str, bytes]:
        if self._since_turn >= TURN_EVENTS:
            self._next_turn()
        self._since_turn += block.count
        return f"{self._turn:03d}", block.packed(window, opened)

    def _runs(self, events: Sequence[Event]) -> list[tuple[str, int, int]]:
        """Neighbours of one partition: where they begin and end."""
        if self._partition is None:
            return [("", 0, len(events))]
        return list(runs_of(map(self._partition, events)))

    def _gather(self, part: _Part, partition: str, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        key, policy = (part.window, partition), self._policy
        while start < stop:
            block = self._blocks.get(key)
            if block is None:
                block = self._blocks[key] = _Block(partition, part.timestamp, part.taken_at)
            most = min(stop, start + PART_EVENTS, start + self._most - block.count)
            cut = policy.admits(part.ends, start, most, block.count, block.size)
            raw = sum([len(event.raw) for event in part.events[start:cut]])
            if cut > start and (block.raw + raw <= ELEMENT_BYTES or not block.count):
                block.taken_at = min(block.taken_at, part.taken_at)
                size = part.ends[cut - 1] - (part.ends[start - 1] if start else 0)
                block.add(part.events, start, cut, size, raw)
                start = cut
                is_full = block.count >= self._most or policy.full(block.count, block.size)
                if not is_full and block.raw < GATHER_BYTES:
                    continue
            del self._blocks[key]
            yield self._element(block, part.window)


@dataclass(frozen=True)
class _Part:
    """Events on their way into blocks; `ends` are the running totals of their encoded sizes."""

    events: Sequence[Event]
    ends: Sequence[int]
    taken_at: float
    timestamp: Any
    window: Any


def in_parts(events: Sequence[Event], most: int) -> Iterator[Sequence[Event]]:
    """`events`, in parts of at most `most` raw bytes (or of one event)."""
    if len(events) < 2 or sum([len(event.raw) for event in events]) <= most:
        if events:
            yield events
        return
    middle = len(events) // 2
    yield from in_parts(events[:middle], most)
    yield from in_parts(events[middle:], most)


class _Block:
    """Events of one window and partition that go to one key: parts of the lists that they came in."""

    def __init__(self, partition: str, timestamp: Any, taken_at: float) -> None:
        self.partition, self.timestamp, self.taken_at = partition, timestamp, taken_at
        self.count = self.size = self.raw = 0
        self._parts: list[tuple[Sequence[Event], int, int]] = []

    def add(self, events: Sequence[Event], start: int, stop: int, size: int = 0, raw: int = 0) -> None:
        self._parts.append((events, start, stop))
        self.count += stop - start
        self.size += size
        self.raw += raw

    def packed(self, window: Any, opened: bool) -> bytes:
        """opened: it has events of several partitions, and is to be opened."""
        body, *more = self._bodies()
        count, size = (0, 0) if opened else (self.count, self.size)
        return pack(PackedEvents(window_end(window), self.taken_at, body, self.partition, count, size, more))

    def _bodies(self) -> list[bytes]:
        bodies: list[bytes] = []
        few: list[Event] = []
        for events, start, stop in self._parts:
            if stop - start < WORTH_SHARING:
                few += events[start:stop]
            else:
                bodies.append(pack_part(events, start, stop))
        return [*bodies, pack_events(few)] if few else bodies
