"""When is a batch full or old: BatchPolicy, and the open batches that it governs."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any, TypeVar

from transforms.event import Batch, Event
from transforms.setting import setting
from transforms.shared_events import BatchEvents, SharedEvents

T = TypeVar("T")
# A chunk may touch many partitions (hours of `created_at`, or whatever a custom destination says); past
# these the oldest open batch goes early, so that memory stays bounded.
MAX_OPEN = 64
MAX_OPEN_BYTES = 16_000_000


@dataclass(frozen=True)
class BatchPolicy:
    """A batch is closed by whichever of the three comes first. Raises ValueError for a policy under which
    no batch could exist."""

    max_events: int = setting("Events in one batch.", 500, at_least=1)
    # Encoded, as `Destination.size` counts them.
    max_bytes: int = setting("Bytes in one batch.", 1_000_000, unit="bytes")
    # From its first event.
    max_age: float = setting("How long an event waits for others.", 1.0, unit="seconds")

    def __post_init__(self) -> None:
        if self.max_events < 1 or self.max_bytes < 1 or not self.max_age >= 0:
            raise ValueError(f"max_events and max_bytes start at 1 and max_age at 0, not {self}")

    def admits(self, ends: Sequence[int], start: int, stop: int, events: int, size: int) -> int:
        """The index up to which arriving events `start..stop` fit into a batch of `events` and `size` bytes.

        `ends` are the running totals of the arriving events' sizes. The answer is `start` when the next
        event would overflow the batch; an empty batch admits one event of any size, which then goes alone.
        """
        before = ends[start - 1] if start else 0
        most = min(stop, start + self.max_events - events)
        cut = bisect_right(ends, before + self.max_bytes - size, start, most)
        return start + 1 if cut == start and not events else cut

    def full(self, events: int, size: int) -> bool:
        """Nothing more can join a batch of `events` events and `size` encoded bytes."""
        return events >= self.max_events or size >= self.max_bytes

    def deadline(self, opened_at: float) -> float:
        """When a batch whose first event came at `opened_at` is old, on the same clock."""
        return opened_at + self.max_age


def batches(
    policy: BatchPolicy,
    where: str,
    *,
    compressed: bool = False,
    most_events: int | None = None,
    most_bytes: int | None = None,
) -> Any:
    """A destination's field `policy`, whose parts are settings: `where` is what a batch is there ("in one
    request"), `most_events` and `most_bytes` what the service takes."""
    before = ", before compression" if compressed else ""
    parts = {
        "max_events": {"help": f"Events {where}.", "at_most": most_events},
        "max_bytes": {"help": f"Bytes {where}{before}.", "at_most": most_bytes},
    }
    return setting("", policy, parts=parts)


@dataclass(slots=True)
class OpenBatch:
    """A batch that still takes events.

    `elsewhere` are those of its events that its driver keeps (on clusters, in keyed state): they count, but
    are not at hand. `number` is the driver's name for the batch, 0 for none.
    """

    opened_at: float
    closes_at: float
    taken_at: float
    events: BatchEvents = field(default_factory=BatchEvents)
    runs: list[range] = field(default_factory=list)  # of offsets, ascending
    size: int = 0
    elsewhere: int = 0
    number: int = 0

    @property
    def count(self) -> int:
        """All of its events."""
        return self.elsewhere + len(self.events)

    @property
    def offsets(self) -> Sequence[int]:
        """Of its events, ascending."""
        runs = self.runs
        return runs[0] if len(runs) == 1 else [offset for run in runs for offset in run]

    def add(self, arrivals: _Arrivals, start: int, stop: int, size: int) -> None:
        """Take the events [start, stop) of a chunk."""
        self.events.add(arrivals.events, start, stop, arrivals.shared)
        first, end = arrivals.first + start, arrivals.first + stop
        if self.runs and self.runs[-1].stop == first:
            first = self.runs.pop().start
        self.runs.append(range(first, end))
        self.size += size


@dataclass(slots=True)
class _Arrivals:
    """One chunk on its way into batches; `ends` are the running totals of the events' sizes.

    shared: None when too few of its events are wanted for a batch to hold all of them in memory.
    """

    events: Sequence[Event]
    shared: SharedEvents | None
    first: int
    ends: Sequence[int]
    now: float
    window_end: float
    closes_at: float
    taken_at: float


class OpenBatches:
    """Batches that still take events, one for each window and partition. Knows no clock, does no I/O.

    sizes: encoded bytes of each of some events. partition: None when it is the same for all, which is much
    cheaper. form: what the sizes depend on besides the events, None for what nobody else knows.
    Whatever closes is returned by the call that closed it, oldest first.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        sizes: Callable[[Sequence[Event]], Iterable[int]],
        partition: Callable[[Event], str] | None = None,
        form: Hashable = None,
    ) -> None:
        self._policy = policy
        self._sizes = sizes
        self._partition = partition
        self._form = form
        self.open: dict[tuple[float, str], OpenBatch] = {}  # by window and partition
        self.latest_window = -math.inf
        self.events = 0
        self.size = 0

    def resume(self, batches: Mapping[tuple[float, str], OpenBatch], latest_window: float) -> None:
        """Go on with what another instance had open (`open`, `latest_window`)."""
        self.open = dict(batches)
        self.latest_window = latest_window
        self.events = sum(batch.count for batch in self.open.values())
        self.size = sum(batch.size for batch in self.open.values())

    def add_chunk(
        self,
        events: Sequence[Event],
        first: int,
        now: float,
        *,
        window_end: float = math.inf,
        closes_at: float = math.inf,
        taken_at: float = 0.0,
        skip: Collection[int] = (),
        shared: SharedEvents | None = None,
    ) -> list[Batch]:
        """Add events with the offsets `first..`, leaving out the offsets in `skip`; returns what closed.

        `now` and `closes_at` (when the window's end will be reached) are monotonic seconds; `window_end`
        names the window, in seconds since the epoch. shared: these events in the hands of others, too.
        """
        kept = [(0, len(events))] if not skip else _kept(first, len(events), skip)
        if not events or not kept:
            return []
        closed = self._close_windows_before(window_end)
        ends = self._ends(events, shared)
        if shared is not None and self._partition is None and not _is_most(kept, len(events)):
            shared = None
        arrivals = _Arrivals(events, shared, first, ends, now, window_end, closes_at, taken_at)
        for start, stop in kept:
            self._fill_runs(arrivals, start, stop, closed)
        while self.size > max(MAX_OPEN_BYTES, self._policy.max_bytes):
            closed.append(self._close(next(iter(self.open))))
        return closed

    def _ends(self, events: Sequence[Event], shared: SharedEvents | None) -> Sequence[int]:
        def made(events: Sequence[Event]) -> list[int]:
            return list(accumulate(self._sizes(events)))

        if shared is None or self._form is None:
            return made(events)
        return shared.once(("ends", self._form), made)

    def close_due(self, now: float) -> list[Batch]:
        """Close what is old at `now`, or belongs to a window whose end has been reached."""
        due = [key for key, batch in self.open.items() if self._deadline(batch) <= now]
        return [self._close(key) for key in due]

    def flush(self) -> list[Batch]:
        """Close everything."""
        return [self._close(key) for key in list(self.open)]

    def deadline(self) -> float | None:
        """When the next batch must close, in monotonic seconds; None while nothing is open."""
        return min(map(self._deadline, self.open.values()), default=None)

    def oldest_taken_at(self) -> float | None:
        """When the oldest event held here was received, in seconds since the epoch."""
        return min((batch.taken_at for batch in list(self.open.values())), default=None)

    def _deadline(self, batch: OpenBatch) -> float:
        return min(batch.closes_at, self._policy.deadline(batch.opened_at))

    def _fill_runs(self, arrivals: _Arrivals, start: int, stop: int, closed: list[Batch]) -> None:
        if self._partition is None:
            self._fill(arrivals, "", start, stop, closed)
            return
        whole, shared = len(arrivals.events), arrivals.shared
        partitions = map(self._partition, arrivals.events[start:stop])
        for partition, first, end in runs_of(partitions, start):
            arrivals.shared = shared if _is_most([(first, end)], whole) else None
            self._fill(arrivals, partition, first, end, closed)
        arrivals.shared = shared

    def _fill(self, arrivals: _Arrivals, partition: str, start: int, stop: int, closed: list[Batch]) -> None:
        key = (arrivals.window_end, partition)
        ends = arrivals.ends
        while start < stop:
            batch = self.open.get(key)
            if batch is None:
                if len(self.open) >= MAX_OPEN:
                    closed.append(self._close(next(iter(self.open))))
                batch = self.open[key] = OpenBatch(arrivals.now, arrivals.closes_at, arrivals.taken_at)
            count = batch.count
            cut = self._policy.admits(ends, start, stop, count, batch.size)
            if cut > start:
                added = ends[cut - 1] - (ends[start - 1] if start else 0)
                batch.add(arrivals, start, cut, added)
                self.size += added
                self.events += cut - start
            if cut == start or self._policy.full(count + cut - start, batch.size):
                closed.append(self._close(key))
            start = cut

    def _close_windows_before(self, window_end: float) -> list[Batch]:
        # Arrival times never go back, so a later window's chunk says that the earlier windows are over.
        if window_end <= self.latest_window:
            return []
        self.latest_window = window_end
        return [self._close(key) for key in list(self.open) if key[0] < window_end]

    def _close(self, key: tuple[float, str]) -> Batch:
        batch = self.open.pop(key)
        self.size -= batch.size
        self.events -= batch.count
        window_end, partition = key
        return Batch(
            batch.events,
            batch.offsets,
            partition,
            seal=batch.number,
            taken_at=batch.taken_at,
            window_end=window_end,
        )


def runs_of(keys: Iterable[T], start: int = 0) -> Iterator[tuple[T, int, int]]:
    """Neighbours that are equal: what they are, where they begin (the first at `start`), where they end."""
    for key, run in groupby(keys):
        stop = start + sum(1 for _ in run)
        yield key, start, stop
        start = stop


def _kept(first: int, count: int, skip: Collection[int]) -> list[tuple[int, int]]:
    """Which of the events with the offsets `first..` are not in `skip`, as runs of their numbers."""
    skipped = map(skip.__contains__, range(first, first + count))
    return [(start, stop) for is_skipped, start, stop in runs_of(skipped) if not is_skipped]


def _is_most(runs: Sequence[tuple[int, int]], count: int) -> bool:
    """Whether the runs are half of a chunk of `count` events, or more."""
    return 2 * sum([stop - start for start, stop in runs]) >= count
