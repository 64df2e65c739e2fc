"""The two drivers of a delivery behind one face, moved by hand: ticks and threads, and state and timers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tests.transforms.write.keyed.cluster import Cluster
from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.service import FOUR, PATIENCE, Fake, Service, events
from transforms.batch import BatchPolicy
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event, Receipt
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.ledger import MemoryLedger

Uniform = Callable[[float, float], float]
longest: Uniform = lambda low, high: high  # noqa: E731 - the dice of all tests: full jitter at its longest


class Driver(Protocol):
    """Whatever is due has happened when a method returns."""

    service: Service
    clock: ManualClock
    receipts: list[Receipt]
    letters: list[DeadLetter]

    def add(self, events: Sequence[Event], window_end: float = math.inf) -> None:
        """A chunk arrives."""

    def wait(self, seconds: float) -> None:
        """Time passes."""

    def end(self) -> None:
        """The input is over: everything goes out."""

    def pending(self) -> int:
        """Events that are neither delivered nor dead letters."""

    def is_open(self) -> bool:
        """The circuit is open."""

    def needs_you(self) -> bool:
        """What is shown says that a person has to do something."""

    def move(self) -> None:
        """Another process goes on, where there are several."""

    def close(self) -> bool:
        """True when all writers have ended."""


class OnTicks:
    """A lane's driver."""

    def __init__(self, policy: BatchPolicy = FOUR, limit: int | None = None) -> None:
        self.service, self.clock = Service(), ManualClock()
        self.receipts: list[Receipt] = []
        self.letters: list[DeadLetter] = []
        self._bell = threading.Event()
        self._first = 0
        self._delivery = Delivery(
            Fake(self.service, policy),
            MemoryLedger(),
            clock=self.clock,
            uniform=longest,
            dead_letter_limit=limit,
            wake=self._bell.set,
        )

    def add(self, events: Sequence[Event], window_end: float = math.inf) -> None:
        self._delivery.add_chunk(Chunk(events, self._first, self.clock.now()), window_end)
        self._first += len(events)
        self._settle()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._settle()

    def end(self) -> None:
        self._delivery.flush()
        self._settle()

    def pending(self) -> int:
        return self._delivery.pending()

    def is_open(self) -> bool:
        return self._delivery.status().circuit.open

    def needs_you(self) -> bool:
        return self._delivery.status().circuit.needs_you

    def move(self) -> None:
        pass

    def close(self) -> bool:
        return self._delivery.close(PATIENCE)

    def _settle(self) -> None:
        while True:
            self._bell.clear()
            for result in self._delivery.tick():
                self.receipts.append(result) if isinstance(result, Receipt) else self.letters.append(result)
            if self._quiet():
                return
            assert self._delivery.ready() or self._bell.wait(PATIENCE), "no writer reported"

    def _quiet(self) -> bool:
        with self._delivery._lock:
            due = self._delivery._outbox.due()
            flying = self._delivery._outbox.in_flight
            later = due is None or due > self.clock.monotonic()
        deadline = self._delivery.deadline()
        return not flying and later and (deadline is None or deadline > self.clock.monotonic())


class OnTimers(Cluster):
    """A cluster's driver, with one key."""

    def __init__(self, policy: BatchPolicy = FOUR, limit: int | None = None) -> None:
        self.service = Service()
        super().__init__(Fake(self.service, policy), ManualClock(), longest, limit)

    def needs_you(self) -> bool:
        return bool(self.shown["needs_you"])

    def move(self) -> None:
        self.new_process()

    def add(self, events: Sequence[Event], window_end: float = math.inf) -> None:
        self.arrive(events, window_end)
        self.settle()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()


__all__ = ["Driver", "OnTicks", "OnTimers", "events"]
