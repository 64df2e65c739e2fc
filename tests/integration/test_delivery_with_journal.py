"""A delivery on the real journal through random outcomes and restarts: nothing lost, the books balance."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.transforms.write.manual_clock import ManualClock
from transforms.batch import BatchPolicy
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Event
from transforms.feed.journal import Journal
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.delivery.delivery import Delivery

SMALL = BatchPolicy(max_events=7, max_bytes=10_000, max_age=5.0)
PATIENCE = 20.0


@dataclass
class Service:
    """Moody, and it remembers what it took: `arrived` counts each event id."""

    dice: random.Random
    arrived: Counter[str] = field(default_factory=Counter)
    calm: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, batch: Batch) -> Outcome | None:
        with self.lock:
            mood = (
                "fine" if self.calm else self.dice.choice(["fine", "down", "partial", "too_large", "reset"])
            )
            count = len(batch.events)
            if mood == "down":
                return Outcome(later=range(count), cause="503")
            if mood == "too_large":
                return Outcome(later=range(count), too_large=True)
            if mood == "reset":
                raise ConnectionResetError("reset before anything was read")
            kinds = [self.dice.choice(["taken", "bad", "later"]) for _ in range(count)]
            kinds = ["taken"] * count if mood == "fine" else kinds
            self.arrived.update(batch.events[i].id for i, kind in enumerate(kinds) if kind == "taken")
            bad = {i: "bad: event" for i, kind in enumerate(kinds) if kind == "bad"}
            return Outcome(rejected=bad, later=[i for i, kind in enumerate(kinds) if kind == "later"])


class _Writer(Writer):
    def __init__(self, service: Service) -> None:
        self.service = service

    def write(self, batch: Batch) -> Outcome | None:
        return self.service.take(batch)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Moody(Destination):
    service: Service
    name = "moody"
    policy: BatchPolicy = SMALL
    concurrency: int = 3

    def partition(self, event: Event) -> str:
        return event.type

    def open(self) -> Writer:
        return _Writer(self.service)


@dataclass
class Run:
    """One life of the process between two restarts."""

    directory: Path
    service: Service
    clock: ManualClock
    letters: set[str] = field(default_factory=set)

    def live(self, new: list[Event], turns: int) -> Journal:
        """Append, read and deliver for some turns, then close as a lane does; the journal stays open."""
        journal = Journal(self.directory, feed_url="http://feed", clock=self.clock)
        cursor = journal.cursor("moody")
        journal.append(new, [])
        bell = threading.Event()
        dice = self.service.dice
        delivery = Delivery(
            Moody(self.service), cursor, clock=self.clock, uniform=dice.uniform, wake=bell.set
        )
        delivery.recover()
        position = cursor.position
        while turns > 0 and cursor.pending:
            turns -= 1
            room = delivery.room()
            for chunk in journal.read(position, min(room, 20)) if room else ():
                delivery.add_chunk(chunk)
                position = chunk.end
            delivery.flush()
            self.letters |= {one.event_id for one in delivery.tick() if isinstance(one, DeadLetter)}
            while not delivery.idle() and not bell.wait(0.01):
                self.clock.advance(30.0)  # whatever waits for its time has had it
            bell.clear()
            self.letters |= {one.event_id for one in delivery.tick() if isinstance(one, DeadLetter)}
        assert delivery.close(PATIENCE)
        return journal


@pytest.mark.parametrize("seed", range(6))
def test_every_event_is_settled_once_over_restarts(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    run = Run(tmp_path, Service(dice), ManualClock())
    placed: list[Event] = []
    for life in range(5):
        new = [
            Event(f"evt_{len(placed) + n:05d}", dice.choice("ab"), "", b"{%d}" % (len(placed) + n))
            for n in range(60)
        ]
        placed += new
        run.service.calm = life == 4
        journal = run.live(new, turns=1000 if life == 4 else dice.randint(1, 15))
        books = journal.books()["moody"]
        assert books.balanced
        journal.close()
    assert books.pending == 0
    assert books.received == len(placed) == 300
    assert set(run.service.arrived) | run.letters == {event.id for event in placed}
    assert not set(run.service.arrived) & run.letters
    assert books.delivered == len(run.service.arrived)
    assert set(run.service.arrived.values()) == {1}
