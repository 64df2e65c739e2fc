"""A destination driven as its lane drives it, on a real journal, under a clock that the test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.transforms.write.manual_clock import ManualClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event, Receipt
from transforms.feed.journal import Journal
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import DeadLetterFile
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.status import DeliveryStatus

# Real seconds after which a test that hangs fails.
PATIENCE = 90.0
# Real seconds within which a thread that can do something has begun to.
MOMENT = 0.02
READ_AHEAD = 2000


class Lane:
    """One life of a destination's lane. What came out is in `receipts` and `letters`.

    The clock moves only while nothing is in flight, so no back-off is waited for in real time.
    """

    def __init__(self, directory: Path, destination: Destination, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.journal = Journal(directory / "state", feed_url="http://feed", clock=self.clock)
        self.cursor = self.journal.cursor(destination.name or type(destination).__name__)
        self.receipts: list[Receipt] = []
        self.letters: list[DeadLetter] = []
        self._file = DeadLetterFile(directory / "dead_letters", clock=self.clock)
        self._bell = threading.Event()
        self.delivery = Delivery(
            destination, self.cursor, clock=self.clock, uniform=lambda low, high: high, wake=self._bell.set
        )
        self.delivery.recover()
        self._position = self.cursor.position

    @property
    def status(self) -> DeliveryStatus:
        return self.delivery.status()

    @property
    def delivered(self) -> list[str]:
        """Ids of which a receipt says that they are delivered."""
        return [event_id for receipt in self.receipts for event_id in receipt.event_ids]

    @property
    def dead(self) -> list[str]:
        """Ids of which a dead letter was written."""
        return [letter.event_id for letter in self.letters]

    def take(self, events: Sequence[Event]) -> None:
        """Receive events: they are in the journal when this returns."""
        taken = self.journal.append(events, [])
        assert len(taken) == len(events), "the journal knew some of them"

    def tick(self) -> None:
        """What one bundle does: read, record, start."""
        room = self.delivery.room()
        if room and self._position < self.journal.end:
            for chunk in self.journal.read(self._position, min(room, READ_AHEAD)):
                self.delivery.add_chunk(chunk)
                self._position = chunk.end
        for result in self.delivery.tick():
            if isinstance(result, DeadLetter):
                self._file.write(result)
                self.letters.append(result)
            else:
                self.receipts.append(result)

    def wait(self, seconds: float = MOMENT) -> None:
        """Let the writers' threads work until one has something to record, at most so long."""
        self._bell.wait(seconds)
        self._bell.clear()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything that is due happen."""
        self.clock.advance(seconds)
        self.tick()
        self.wait()
        self.tick()

    def run(
        self, until: Callable[[], bool] | None = None, step: float = 2.0, patience: float = PATIENCE
    ) -> None:
        """Go on until `until` says so, or, without it, until everything received is settled.

        step: seconds that pass on the lane's clock whenever nothing is in flight.
        """
        done = until or (lambda: self.cursor.pending == 0)
        give_up = time.monotonic() + patience
        while not done():
            assert time.monotonic() < give_up, self.status
            self.tick()
            idle = self.status.in_flight == 0 and not self.delivery.ready()
            if idle and (self._position >= self.journal.end or not self.delivery.room()):
                if done():  # by what ended between the two looks
                    break
                self.clock.advance(step)
            self.wait()
        self.tick()

    def close(self, timeout: float = 5.0) -> bool:
        """The end of this life; True when all threads have ended."""
        ended = self.delivery.close(timeout)
        self.books = self.journal.books()[self.cursor.name]
        assert self.books.balanced, self.books
        self.journal.close()
        return ended
