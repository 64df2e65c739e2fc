"""ReadFromArchive: archived events as a bounded PCollection; and those of them for one destination."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import apache_beam as beam
import msgspec
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from transforms import coders  # noqa: F401 - elements travel by them
from transforms.archive.choice import Archive, Choice
from transforms.archive.sources import Shard
from transforms.dead_letter import DeadLetter, id_conflict
from transforms.direct_runner import is_in_process
from transforms.event import Chunk, Event
from transforms.in_process import Ticket
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.metrics import NAMESPACE


class Interrupted(Exception):
    """The reading was told to end before the archive's end."""


class Watcher(Protocol):
    """Who looks on while an archive is read in this process."""

    def may_go_on(self) -> bool:
        """False ends the reading in good order. Raises Interrupted to end it without a last flush."""

    def read(self, shard: Shard, counts: Counter[str]) -> None:
        """All of a shard has been read; what was found in all so far."""

    def chose(self, counts: Counter[str]) -> None:
        """What has been chosen for the destination in all so far; may wait."""


class ReadFromArchive(beam.PTransform):  # type: ignore[type-arg]
    """Archived events, in their order on a runner inside this process.

    Gives tuples of where events belong (EVERYWHERE, or a destination's name for dead letters) and a Chunk
    with them, their raw bytes as they were archived (see `bigquery_rows` for a table). What is none, or not
    asked for, is counted and left out. Raises ArchiveError when the archive cannot be read.

    watcher: of a reading inside this process.
    """

    def __init__(self, archive: Archive, watcher: Ticket[Any] | None = None) -> None:
        super().__init__()
        self._archive, self._watcher = archive, watcher

    def expand(self, begin: Any) -> Any:
        """A pipeline in, tuples out."""
        shards = begin | "Archive" >> beam.Create([self._archive]) | "List" >> beam.ParDo(_List())
        if not is_in_process(begin.pipeline):  # where it would only cost
            shards = shards | "Spread" >> beam.Reshuffle()
        return shards | "Read" >> beam.ParDo(_Read(self._archive, self._watcher))

    def display_data(self) -> dict[str, Any]:
        """What is read, for the graph's viewers."""
        return {"archive": str(self._archive.source)}


class _List(beam.DoFn):
    def process(self, element: Archive) -> Iterator[Shard]:
        yield from element.shards()


@beam.typehints.with_output_types(tuple[str, Chunk])
class _Read(beam.DoFn):
    def __init__(self, archive: Archive, watcher: Ticket[Any] | None) -> None:
        self._archive, self._ticket = archive, watcher

    def setup(self) -> None:
        self._counts: Counter[str] = Counter()
        self._counters = Counters("archive")

    def process(self, element: Shard) -> Iterator[tuple[str, Chunk]]:
        watcher: Watcher | None = self._ticket.live if self._ticket else None
        for where, events in self._archive.read(element, self._counts):
            if watcher is not None and not watcher.may_go_on():
                return
            yield where, Chunk(events, taken_at=time.time())
        self._counters.count(self._counts)
        if watcher is not None:
            watcher.read(element, self._counts)


class ChooseFor(beam.PTransform):  # type: ignore[type-arg]
    """Of what ReadFromArchive gives, the events for one destination, each id once: in `main` as Chunk or
    Event. Under DEAD_LETTERS those whose id came before with other bytes.

    choice: made where it is used, with `once`: inside this process it looks for repeats itself; elsewhere ids
    are grouped.
    """

    def __init__(self, name: str, choice: Callable[..., Choice], watcher: Ticket[Any] | None = None) -> None:
        super().__init__()
        self._name, self._choice, self._watcher = name, choice, watcher

    def expand(self, pcoll: Any) -> Any:
        """Tuples in, a DoOutputsTuple with `main` and DEAD_LETTERS out."""
        inside = is_in_process(pcoll.pipeline)
        chosen = pcoll | "Choose" >> beam.ParDo(
            _Choose(self._name, self._choice, inside, self._watcher)
        ).with_outputs(DEAD_LETTERS, main="main")
        chosen.main.element_type = Chunk
        chosen[DEAD_LETTERS].element_type = DeadLetter
        if inside:
            return chosen
        by_id = chosen.main | "ById" >> beam.FlatMap(_by_id).with_output_types(tuple[str, Event])
        once = (
            by_id
            | "Group" >> beam.GroupByKey()
            | "Once" >> beam.ParDo(_Once(self._name)).with_outputs(DEAD_LETTERS, main="main")
        )
        once.main.element_type = Event
        once[DEAD_LETTERS].element_type = DeadLetter
        return once


class _Choose(beam.DoFn):
    def __init__(
        self, name: str, choice: Callable[..., Choice], once: bool, watcher: Ticket[Any] | None
    ) -> None:
        self._name, self._make, self._once, self._ticket = name, choice, once, watcher

    def setup(self) -> None:
        self._choice = self._make(once=self._once)
        self._counters = Counters(self._name)

    def process(self, element: tuple[str, Chunk]) -> Iterator[Any]:
        where, chunk = element
        events, conflicts = self._choice.of(where, chunk.events)
        for event in conflicts:
            yield TaggedOutput(DEAD_LETTERS, conflict(self._name, event))
        if events:
            yield Chunk(events, taken_at=chunk.taken_at)
        if self._ticket is not None:
            self._ticket.live.chose(self._choice.counts)

    def finish_bundle(self) -> None:
        self._counters.count(self._choice.counts)


def _by_id(chunk: Chunk) -> Iterator[tuple[str, Event]]:
    for event in chunk.events:
        yield event.id, event


class _Once(beam.DoFn):
    """Of the events of one id the first in the order of their bytes, whatever the runner's order."""

    def __init__(self, name: str) -> None:
        self._name = name

    def setup(self) -> None:
        self._counters = Counters(self._name)
        self._counts: Counter[str] = Counter()

    def process(self, element: tuple[str, Any]) -> Iterator[Any]:
        events = sorted(element[1], key=lambda event: event.raw)
        yield events[0]
        for before, event in itertools.pairwise(events):
            if event.raw == before.raw:
                self._counts["repeats"] += 1
            else:
                self._counts["id_conflict"] += 1
                yield TaggedOutput(DEAD_LETTERS, conflict(self._name, event))

    def finish_bundle(self) -> None:
        self._counters.count(self._counts)


def conflict(name: str, event: Event) -> DeadLetter:
    """The dead letter of an event that was not sent because its id came before with other bytes."""
    return msgspec.structs.replace(id_conflict(event, time.time()), stage="write", destination=name)


class Counters:
    """Beam's counters of what was found or chosen, `replay_<of>_<what>`; for totals that only grow."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._told: Counter[str] = Counter()

    def count(self, totals: Counter[str]) -> None:
        """Add what has come to the totals since the last time; on the bundle's own thread."""
        for what, number in (totals - self._told).items():
            Metrics.counter(NAMESPACE, f"replay_{self._of}: {what}").inc(number)
        self._told = totals.copy()
