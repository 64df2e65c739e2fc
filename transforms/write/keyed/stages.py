"""The Beam stages of a delivery on a cluster: events to a few keys, and the keys' state and timers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.windowed_value import WindowedValue

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.in_process import acquire, release
from transforms.parse import as_chunk
from transforms.refuse_splits import refuse_splits
from transforms.window import window_end
from transforms.write.contract import Destination
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.keyed.attempts import Attempts, DrainTime
from transforms.write.keyed.delivery import KeyedDelivery, Result
from transforms.write.keyed.state import CELLS, BeamState, PackedEvents, pack, pack_events
from transforms.write.metrics import DeliveryCounters

# Elements of one event cost five times what events in chunks do: they are put together within a bundle.
GATHER_EVENTS = 500
GATHER_BYTES = 1_000_000
# Of one element, raw; an event is at most 10 MB. Dataflow takes 80 MB, and refuses more for ever.
ELEMENT_BYTES = 16_000_000
CLOSE_SECONDS = 5.0


@beam.typehints.with_output_types(tuple[str, bytes])
class Shard(beam.DoFn):
    """Gives each chunk one of a few keys. One key for each event or batch would be a timer for each as well,
    which lags by seconds; and with few, only few probe a destination that is down."""

    def __init__(self, name: str, shards: int, clock: Clock | None = None) -> None:
        self._name, self._shards = name, shards
        self._clock = clock or SystemClock()

    def setup(self) -> None:
        self._counters = DeliveryCounters(self._name)

    def start_bundle(self) -> None:
        self._gathered: dict[tuple[Any, int], _Gathered] = {}

    def process(
        self, element: Any, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        chunk = as_chunk(element, self._name, self._clock.now())
        if isinstance(chunk, DeadLetter):
            self._counters.count(chunk)
            yield TaggedOutput(DEAD_LETTERS, chunk)
            return
        for events, size in in_parts(chunk.events, ELEMENT_BYTES):
            key = zlib.crc32(events[0].id.encode()) % self._shards
            gathered = self._gathered.setdefault((window, key), _Gathered())
            if gathered.events and gathered.size + size > ELEMENT_BYTES:
                yield gathered.element(key, window)
                gathered = self._gathered[window, key] = _Gathered()
            gathered.add(events, size, chunk.taken_at, timestamp)
            if len(gathered.events) >= GATHER_EVENTS or gathered.size >= GATHER_BYTES:
                del self._gathered[window, key]
                yield gathered.element(key, window)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for (window, key), gathered in self._gathered.items():
            yield WindowedValue(gathered.element(key, window), gathered.timestamp, (window,))


def in_parts(events: Sequence[Event], most: int) -> Iterator[tuple[Sequence[Event], int]]:
    """`events`, in parts of at most `most` raw bytes (or of one event), each with its raw bytes."""
    size = sum([len(event.raw) for event in events])
    if size <= most or len(events) < 2:
        if events:
            yield events, size
        return
    middle = len(events) // 2
    yield from in_parts(events[:middle], most)
    yield from in_parts(events[middle:], most)


class _Gathered:
    """Events of one window that go to one key."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.size = 0
        self.taken_at = 0.0
        self.timestamp: Any = None

    def add(self, events: Sequence[Event], size: int, taken_at: float, timestamp: Any) -> None:
        self.taken_at = min(self.taken_at, taken_at) if self.events else taken_at
        self.timestamp = timestamp
        self.events += events
        self.size += size

    def element(self, key: int, window: Any) -> tuple[str, bytes]:
        return f"{key:03d}", pack(PackedEvents(window_end(window), self.taken_at, pack_events(self.events)))


@beam.typehints.with_input_types(tuple[str, bytes])
class DeliverOnTimers(beam.DoFn):
    """Delivers what its keys are given; no bundle waits for a destination. See KeyedDelivery.

    In the global window, so that a key has one state and one circuit whatever the windows of its events are;
    the timer at the global window's end is what a drain sets off.
    """

    KEY_STATE = ReadModifyWriteStateSpec("book", BytesCoder())
    INBOX = BagStateSpec("inbox", BytesCoder())
    CELL = tuple(BagStateSpec(f"cell_{number}", BytesCoder()) for number in range(CELLS))
    DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(
        self,
        destination: Destination,
        name: str,
        shared: str,
        dead_letter_limit: int | None = None,
        drain: DrainTime = DrainTime(),  # noqa: B008 - frozen
        clock: Clock | None = None,
    ) -> None:
        self._destination, self._name, self._shared = destination, name, shared
        self._limit, self._drain = dead_letter_limit, drain
        self._clock = clock or SystemClock()

    def setup(self) -> None:
        refuse_splits()
        self._counters = DeliveryCounters(self._name)
        self._attempts = acquire(self._shared, self._new_attempts)
        self._delivery = KeyedDelivery(
            self._destination, self._name, self._attempts, self._counters, self._clock
        )

    def teardown(self) -> None:
        if release(self._shared):
            self._attempts.close(CLOSE_SECONDS)

    def process(
        self,
        element: tuple[str, bytes],
        window: Any = beam.DoFn.WindowParam,
        key_state: Any = beam.DoFn.StateParam(KEY_STATE),
        inbox: Any = beam.DoFn.StateParam(INBOX),
        due: Any = beam.DoFn.TimerParam(DUE),
        end: Any = beam.DoFn.TimerParam(END),
    ) -> None:
        if self._delivery.receive(element[1], BeamState(key_state, inbox), due.set):
            end.set(window.max_timestamp())

    @on_timer(DUE)  # type: ignore[untyped-decorator]
    def on_due(
        self,
        key: Any = beam.DoFn.KeyParam,
        key_state: Any = beam.DoFn.StateParam(KEY_STATE),
        inbox: Any = beam.DoFn.StateParam(INBOX),
        cell_0: Any = beam.DoFn.StateParam(CELL[0]),
        cell_1: Any = beam.DoFn.StateParam(CELL[1]),
        cell_2: Any = beam.DoFn.StateParam(CELL[2]),
        cell_3: Any = beam.DoFn.StateParam(CELL[3]),
        cell_4: Any = beam.DoFn.StateParam(CELL[4]),
        cell_5: Any = beam.DoFn.StateParam(CELL[5]),
        cell_6: Any = beam.DoFn.StateParam(CELL[6]),
        cell_7: Any = beam.DoFn.StateParam(CELL[7]),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Any]:
        cells = (cell_0, cell_1, cell_2, cell_3, cell_4, cell_5, cell_6, cell_7)
        yield from self._outputs(self._delivery.due(key, BeamState(key_state, inbox, cells), due.set))

    @on_timer(END)  # type: ignore[untyped-decorator]
    def on_end(
        self,
        key: Any = beam.DoFn.KeyParam,
        key_state: Any = beam.DoFn.StateParam(KEY_STATE),
        inbox: Any = beam.DoFn.StateParam(INBOX),
        cell_0: Any = beam.DoFn.StateParam(CELL[0]),
        cell_1: Any = beam.DoFn.StateParam(CELL[1]),
        cell_2: Any = beam.DoFn.StateParam(CELL[2]),
        cell_3: Any = beam.DoFn.StateParam(CELL[3]),
        cell_4: Any = beam.DoFn.StateParam(CELL[4]),
        cell_5: Any = beam.DoFn.StateParam(CELL[5]),
        cell_6: Any = beam.DoFn.StateParam(CELL[6]),
        cell_7: Any = beam.DoFn.StateParam(CELL[7]),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Any]:
        cells = (cell_0, cell_1, cell_2, cell_3, cell_4, cell_5, cell_6, cell_7)
        yield from self._outputs(self._delivery.end(key, BeamState(key_state, inbox, cells)))
        due.clear()

    def _new_attempts(self) -> Attempts:
        return Attempts(self._destination, self._name, self._clock, self._limit, self._drain)

    def _outputs(self, results: Iterator[Result]) -> Iterator[Any]:
        for result in results:
            self._counters.count(result)
            yield TaggedOutput(DEAD_LETTERS, result) if isinstance(result, DeadLetter) else result
