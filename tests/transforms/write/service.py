"""A destination whose writers do what a test says, whichever driver calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.write.contract import Destination, Outcome, Writer

Script = Callable[[Batch], "Outcome | None"]
FOUR = BatchPolicy(max_events=4, max_bytes=10_000, max_age=5.0)
PATIENCE = 10.0  # seconds after which a test that hangs fails


@dataclass(frozen=True)
class Write:
    """One attempt, as it was made: the batch itself changes afterwards."""

    batch: Batch
    id: str
    ids: tuple[str, ...]
    attempts: int
    memo: bytes | None


@dataclass
class Service:
    """Every write is noted, then does what the test says."""

    script: Script = lambda batch: None
    writes: list[Write] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    refuse: Exception | None = None

    def ids(self) -> list[tuple[str, ...]]:
        """The events of each write."""
        return [write.ids for write in self.writes]


class FakeWriter(Writer):
    def __init__(self, service: Service) -> None:
        self.service = service

    def write(self, batch: Batch) -> Outcome | None:
        ids = tuple(event.id for event in batch.events)
        self.service.writes.append(Write(batch, batch.id, ids, batch.attempts, batch.memo))
        return self.service.script(batch)

    def close(self) -> None:
        self.service.closed += 1


@dataclass(frozen=True)
class Fake(Destination):
    """Events' types are their partitions."""

    service: Service
    name = "fake"
    policy: BatchPolicy = FOUR
    concurrency: int = 1

    def partition(self, event: Event) -> str:
        return event.type

    def open(self) -> Writer:
        if self.service.refuse is not None:
            raise self.service.refuse
        self.service.opened += 1
        return FakeWriter(self.service)


def events(first: int, count: int, *, size: int = 2, partition: str = "") -> list[Event]:
    """Events `evt_<number>` of `size` bytes."""
    return [Event(f"evt_{n:05d}", partition, "", b"x" * size) for n in range(first, first + count)]
