"""What is in hand when reading stops: kept if there is room by then, counted once if there is not."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.transforms.feed.memory_intake import MemoryIntake
from tests.transforms.write.manual_clock import ManualClock
from transforms.clock import Clock
from transforms.feed.coverage import Coverage
from transforms.feed.intake import Intake, JournalFull
from transforms.feed.stream_reader import StreamReader
from transforms.feed.worker.ring import Ring

THREE = [b'{"id":"evt_%d","type":"t","createdAt":""}' % n for n in range(3)]


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def take(intake: Intake, stop: threading.Event, clock: Clock) -> None:
    """Three events come."""
    reader = StreamReader(intake, Coverage(intake, clock), stop, clock)
    reader.went_live()
    reader.add_frames(THREE, 300)
    reader.hand_over()


class StoppedMeanwhile(ManualClock):
    """Reading is stopped while it waits for room."""

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        event.set()
        return True


def test_what_a_closed_ring_refuses_is_counted_once(stop: threading.Event) -> None:
    """Reading may offer it before it is told to stop, and again as it ends."""
    clock = StoppedMeanwhile()
    ring = Ring(10_000, clock)
    ring.close()
    take(ring, stop, clock)
    assert ring.refused == 3
    take(ring, stop, clock)
    assert ring.refused == 6


def test_room_that_comes_with_the_stop_is_used(stop: threading.Event) -> None:
    """A drain makes room and then says stop, just when the intake has said that it is full."""

    class RoomAtTheEnd(MemoryIntake):
        def append(self, *given: Any, **named: Any) -> None:
            if not stop.is_set():
                stop.set()
                raise JournalFull("no room for testing")
            super().append(*given, **named)

    intake = RoomAtTheEnd()
    take(intake, stop, ManualClock())
    assert intake.ids == ["evt_0", "evt_1", "evt_2"]
