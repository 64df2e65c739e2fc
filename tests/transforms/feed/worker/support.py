"""A process in small: sessions whose connections are the test's, on a clock that it moves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from apache_beam.utils.timestamp import Duration, Timestamp

from tests.transforms.write.manual_clock import ManualClock
from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event
from transforms.feed.intake import Intake
from transforms.feed.request import FeedSettings
from transforms.feed.status import ConnectionStatus
from transforms.feed.watch import Watch
from transforms.feed.worker.range import FeedRange
from transforms.feed.worker.read import FeedRangeTracker, read_bundle
from transforms.feed.worker.sessions import Sessions, WorkerFeed
from transforms.secret import LiteralSecret

FEED = WorkerFeed(
    FeedSettings("http://127.0.0.1:1", LiteralSecret("key")), "reader", ring_bytes=100_000, idle_seconds=0.0
)


def events(*numbers: int) -> list[Event]:
    """Events whose ids are these numbers."""
    return [Event(f"evt_{n}", "t", "", b'{"id":"evt_%d"}' % n) for n in numbers]


class StepClock(ManualClock):
    """Moved by the test; who waits looks again at once, so that a watch sees what it was moved to."""

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        return event.wait(0.005)


class FakeConnection:
    """Receives what the test says."""

    def __init__(self, settings: FeedSettings) -> None:
        self.settings = settings
        self.failure: BaseException | None = None
        self.status = ConnectionStatus()
        self.started, self._end = threading.Event(), threading.Event()
        self.intake: Intake | None = None
        self.looks = 0
        self.at_the_end: Sequence[Event] = ()  # what it has in hand when it is told to stop

    def run(self, intake: Intake, stop: threading.Event) -> None:
        self.intake = intake
        self.started.set()
        self._end.wait()
        if self.at_the_end:
            intake.append(self.at_the_end, ())
        if self.failure is not None:
            raise self.failure

    def interrupt(self) -> None:
        self._end.set()

    def look(self) -> None:
        self.looks += 1

    def live(self) -> None:
        """The response's headers came."""
        assert self.started.wait(10)
        assert self.intake is not None
        self.intake.close_gap()
        self.intake.heard()

    def receive(self, *numbers: int, letters: Sequence[DeadLetter] = ()) -> None:
        assert self.started.wait(10)
        assert self.intake is not None
        self.intake.append(events(*numbers), letters)


class Process:
    """A worker process: its sessions, the connections they made, in order, and how often it was shown a range
    that it does not read."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.connections: list[FakeConnection] = []
        self.watches: list[Watch] = []  # that they were given
        self.sessions = Sessions(clock=self.clock, connect=self._connect)
        self.elsewhere = 0

    def _connect(self, feed: WorkerFeed, clock: Clock, name: str, watch: Watch) -> FakeConnection:
        self.watches.append(watch)
        self.connections.append(FakeConnection(feed.feed))
        return self.connections[-1]

    def _elsewhere(self) -> None:
        self.elsewhere += 1

    def bundle(
        self, wanted: FeedRange, feed: WorkerFeed = FEED, checkpoint_after: int | None = None
    ) -> Bundle:
        """Run one bundle; `checkpoint_after` so many outputs the runner takes the rest away."""
        tracker = TrackerView(wanted)
        watermark = Watermark()
        outputs: list[Chunk | DeadLetter] = []
        for output in read_bundle(self.sessions, feed, tracker, watermark, self.clock, self._elsewhere):
            outputs.append(output)
            if len(outputs) == checkpoint_after:
                tracker.checkpoint()
        tracker.tracker.check_done()
        return Bundle(outputs, tracker.residual, tracker.delay, watermark.at)


@dataclass
class Bundle:
    """What a bundle did: outputs, what is left for later (None: nothing), after which delay."""

    outputs: list[Chunk | DeadLetter]
    residual: FeedRange | None
    delay: float
    watermark: float | None

    @property
    def ids(self) -> list[int]:
        chunks = [one for one in self.outputs if isinstance(one, Chunk)]
        return [int(event.id[4:]) for chunk in chunks for event in chunk.events]

    @property
    def causes(self) -> list[str]:
        return [one.cause for one in self.outputs if isinstance(one, DeadLetter)]

    @property
    def left(self) -> FeedRange:
        assert self.residual is not None
        return self.residual


@dataclass
class TrackerView:
    """Beam's view of the tracker, as far as the source uses it."""

    wanted: FeedRange
    residual: FeedRange | None = None
    delay: float = 0.0
    tracker: FeedRangeTracker = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = FeedRangeTracker(self.wanted)

    def current_restriction(self) -> FeedRange:
        return self.tracker.current_restriction()

    def try_claim(self, position: FeedRange) -> bool:
        return self.tracker.try_claim(position)

    def defer_remainder(self, delay: Duration | None = None) -> None:
        self.delay = float(delay.micros) / 1e6 if delay else 0.0
        self.checkpoint()

    def checkpoint(self) -> None:
        split: Any = self.tracker.try_split(0)
        if split is not None:
            self.residual = split[1]


class Watermark:
    """Beam's manual estimator."""

    def __init__(self) -> None:
        self.at: float | None = None

    def current_watermark(self) -> Timestamp | None:
        return None if self.at is None else Timestamp.of(self.at)

    def set_watermark(self, timestamp: Timestamp) -> None:
        self.at = float(timestamp)
