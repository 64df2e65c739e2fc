"""The suite's own judge: a destination that loses, repeats or lies does not pass it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.case import SMALL, Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.contract import Destination, Outcome, Writer

COUNT = 10
Behaviour = Callable[["Store", Batch], "Outcome | None"]


@dataclass
class Store(Writer):
    """What arrived, and how the next batches are treated."""

    behaviours: list[Behaviour]
    there: list[tuple[str, bytes]] = field(default_factory=list)

    def take(self, batch: Batch) -> None:
        self.there += [(event.id, event.raw) for event in batch.events]

    def write(self, batch: Batch) -> Outcome | None:
        return (self.behaviours.pop(0) if self.behaviours else faithful)(self, batch)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class InMemory(Destination):
    store: Store
    policy: BatchPolicy = SMALL
    name = "memory"

    def open(self) -> Writer:
        return self.store


class InMemoryCase(Case):
    name = "memory"

    def __init__(self, *behaviours: Behaviour) -> None:
        self.store = Store(list(behaviours))

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return self.store.there


def faithful(store: Store, batch: Batch) -> None:
    store.take(batch)


def loses_one(store: Store, batch: Batch) -> None:
    store.take(batch)
    del store.there[-1]


def says_later_and_takes_it(store: Store, batch: Batch) -> Outcome:
    store.take(batch)
    return Outcome(later=range(len(batch.events)))


def admits_that_it_may_have_taken_it(store: Store, batch: Batch) -> Outcome:
    store.take(batch)
    return Outcome(later=range(len(batch.events)), unknown=True)


def rejects_what_it_took(store: Store, batch: Batch) -> Outcome:
    store.take(batch)
    return Outcome(rejected={0: "bad: event"})


def makes_things_up(store: Store, batch: Batch) -> None:
    store.take(batch)
    store.there.append(("evt_nobody", b"{}"))


def account(directory: Path, case: InMemoryCase, once: bool = False) -> Tally:
    tally = Tally()
    case.once = once  # type: ignore[misc]
    lane = Lane(directory, InMemory(case.store))
    lane.take(events(0, COUNT))
    lane.run()
    lane.close()
    tally.account(case, "none", events(0, COUNT), lane)
    return tally


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        (loses_one, "evt_01JXYZ00000000000000000009"),
        (says_later_and_takes_it, "10 repeats, of which 0 were counted"),
        (rejects_what_it_took, "not apart"),
        (makes_things_up, "nobody sent"),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, behaviour: Behaviour, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        account(tmp_path, InMemoryCase(behaviour))


def test_a_counted_repeat_is_excused_unless_there_must_be_none(tmp_path: Path) -> None:
    tally = account(tmp_path / "at least once", InMemoryCase(admits_that_it_may_have_taken_it))
    assert tally.table()[2:] == ["| memory | none | 10 | 0 | 10 | 0 |"]
    with pytest.raises(AssertionError, match="10 repeats, of which 0"):
        account(tmp_path / "once", InMemoryCase(admits_that_it_may_have_taken_it), once=True)


def test_what_differs_is_named() -> None:
    case = InMemoryCase()
    first, second, third = events(0, 3)
    case.store.there = [(first.id, first.raw), (second.id, second.raw + b" ")]
    assert case.differing([first, second, third]) == [second.id]
