"""A cluster in one process for one key: state that is committed with its bundle, timers, a manual clock."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from apache_beam.transforms.window import GlobalWindow, IntervalWindow
from apache_beam.utils.timestamp import Timestamp

from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.service import PATIENCE
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event, Receipt
from transforms.write.contract import Destination
from transforms.write.keyed.attempts import Attempts, DrainTime
from transforms.write.keyed.backlog import CELLS
from transforms.write.keyed.delivery import KeyedDelivery
from transforms.write.keyed.firing import Result
from transforms.write.keyed.shard import Shard
from transforms.write.keyed.state import BeamState, KeyState
from transforms.write.metrics import DeliveryCounters

KEY = "000"


class Gauges(DeliveryCounters):
    """What is shown of the key is kept to be looked at."""

    def __init__(self, destination: str, shown: dict[str, Any]) -> None:
        super().__init__(destination)
        self._shown = shown

    def standing(self, key: str, pending: int, size: int, **more: bool) -> None:
        super().standing(key, pending, size, **more)
        self._shown.update(more)


class FakeValue:
    def __init__(self, store: dict[str, Any]) -> None:
        self._store = store

    def read(self) -> Any:
        return self._store.get("book")

    def write(self, value: bytes) -> None:
        self._store["book"] = value

    def clear(self) -> None:
        self._store.pop("book", None)


class FakeBag:
    """Counts what is read of it, as that is what a backlog costs."""

    def __init__(self, store: dict[str, Any], name: str, cluster: Cluster) -> None:
        self._store, self._name, self._cluster = store, name, cluster

    def read(self) -> Iterable[bytes]:
        found = list(self._store.get(self._name, ()))
        self._cluster.bytes_read += sum(map(len, found))
        return found

    def add(self, value: bytes) -> None:
        self._cluster.note(len(value))
        self._store.setdefault(self._name, []).append(value)

    def clear(self) -> None:
        self._store.pop(self._name, None)


class Cluster:
    """Runs a KeyedDelivery. `settle` fires the timer as long as it is due."""

    bag: type[FakeBag] = FakeBag

    def __init__(
        self,
        destination: Destination,
        clock: ManualClock,
        uniform: Callable[[float, float], float],
        limit: int | None = None,
    ) -> None:
        self.clock = clock
        self.receipts: list[Receipt] = []
        self.letters: list[DeadLetter] = []
        self.shown: dict[str, Any] = {}
        self.bytes_read = self.bytes_written = self.bytes_given = 0
        # A commit is what a bundle writes and gives out.
        self.largest_element = self.largest_commit = 0
        self.store: dict[str, Any] = {}
        self.timer: float | None = None
        self.ends = 0  # timers for the end of the input
        self.fired = 0
        self._destination, self._uniform, self._limit = destination, uniform, limit
        self.drain_time = DrainTime()
        self.patience = PATIENCE
        self.new_process()

    def new_process(self) -> None:
        """The key moves to another worker, which knows nothing but the state."""
        name = self._destination.name
        self.attempts = Attempts(self._destination, name, self.clock, self._limit, self.drain_time)

    def arrive(self, events: Sequence[Event], window_end: float = math.inf) -> None:
        """A bundle with a chunk, as it is made ready for its key."""
        elements = self.sharded(events, window_end)
        with self.bundle() as (delivery, beam_state):
            for element in elements:
                self.ends += delivery.receive(KEY, element, beam_state, self._set)

    def sharded(self, events: Sequence[Event], window_end: float = math.inf) -> list[bytes]:
        """A chunk's elements, as they come to their key."""
        shard = Shard(self._destination, self._destination.name, 1, self.clock)
        shard.setup()
        shard.start_bundle()
        window = GlobalWindow() if window_end == math.inf else IntervalWindow(0, window_end)
        chunk = Chunk(events, 0, self.clock.now())
        found = list(shard.process(chunk, Timestamp(0), window))
        return [packed for _, packed in [*found, *(each.value for each in shard.finish_bundle())]]

    def fire(self) -> None:
        """A bundle with the timer."""
        self.fired += 1
        with self.bundle() as (delivery, beam_state):
            self.timer = None
            self.take(delivery.due(KEY, beam_state, self._set))

    def fail(self) -> None:
        """A bundle with the timer that does all its work, but does not get to its end."""
        with contextlib.suppress(ZeroDivisionError), self.bundle() as (delivery, beam_state):
            self.take(delivery.due(KEY, beam_state, self._set))
            raise ZeroDivisionError

    def settle(self) -> None:
        """Fire the timer until it is set to a time to come."""
        before = self.fired
        while self.timer is not None and self.timer <= self.clock.now():
            self.fire()
            assert self.fired - before < 10_000, "a timer that never rests"

    def end(self, key: str = KEY) -> None:
        """The input is over; the timer for its end fires as long as it is set again."""
        again = [True]
        while again:
            again.clear()
            with self.bundle() as (delivery, beam_state):
                self.take(delivery.end(key, beam_state, lambda: again.append(True)))

    @contextlib.contextmanager
    def bundle(self) -> Iterator[tuple[KeyedDelivery, BeamState]]:
        """State, timer and results are kept only when the bundle succeeds."""
        store, timer = self._copy(), self.timer
        before, written = (len(self.receipts), len(self.letters)), self.bytes_written + self.bytes_given
        delivery = KeyedDelivery(
            self._destination,
            self._destination.name,
            self.attempts,
            Gauges(self._destination.name, self.shown),
            self.clock,
            uniform=self._uniform,
            patience=self.patience,
        )
        try:
            yield delivery, self._beam_state()
        except BaseException:
            self.store, self.timer = store, timer
            del self.receipts[before[0] :], self.letters[before[1] :]
            raise
        self.largest_commit = max(self.largest_commit, self.bytes_written + self.bytes_given - written)

    def note(self, size: int) -> None:
        """An element of so many bytes is written."""
        self.bytes_written += size
        self.largest_element = max(self.largest_element, size)

    def _copy(self) -> dict[str, Any]:
        return {name: list(kept) if isinstance(kept, list) else kept for name, kept in self.store.items()}

    def _beam_state(self) -> BeamState:
        bags = [self.bag(self.store, name, self) for name in ("inbox", *map(str, range(CELLS)))]
        return BeamState(FakeValue(self.store), bags[0], bags[1:])

    def take(self, results: Iterator[Result]) -> None:
        for result in results:
            if isinstance(result, Receipt):
                self.receipts.append(result)
                self.bytes_given += sum(map(len, result.event_ids))
            else:
                self.letters.append(result)
                self.bytes_given += len(result.raw) + len(result.cause)

    def key_state(self) -> KeyState:
        """What is known of the key."""
        return BeamState(FakeValue(self.store), FakeBag({}, "", self)).read() or KeyState()

    def pending(self) -> int:
        return self.key_state().pending()

    def is_open(self) -> bool:
        return self.key_state().open_since is not None

    def close(self) -> bool:
        return self.attempts.close(PATIENCE)

    def _set(self, at: float) -> None:
        self.timer = at


def names(first: int, stop: int) -> tuple[str, ...]:
    """The ids of `service.events`."""
    return tuple(f"evt_{n:05d}" for n in range(first, stop))


def delivered(cluster: Cluster) -> list[str]:
    """The ids of what has arrived, sorted."""
    return sorted(event_id for receipt in cluster.receipts for event_id in receipt.event_ids)


def let_time_pass(cluster: Cluster) -> None:
    """Nobody waits for a time to come."""
    cluster.clock.wait = lambda event, timeout: let_pass(cluster, event, timeout)  # type: ignore[method-assign]


def let_pass(cluster: Cluster, event: threading.Event, timeout: float | None) -> bool:
    """Whoever waits for a time lets it pass; whoever waits for a writer waits for it."""
    if timeout is None or event.wait(0 if cluster.attempts._threads._slots == [] else 0.05):
        return event.wait(PATIENCE)
    cluster.clock.advance(timeout)
    return event.is_set()
