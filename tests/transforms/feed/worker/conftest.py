"""One worker process for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transforms.feed.worker.support import Process, StepClock


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def process(clock: StepClock) -> Iterator[Process]:
    made = Process(clock)
    yield made
    made.sessions.close()


@pytest.fixture
def other(clock: StepClock) -> Iterator[Process]:
    """A second worker process."""
    made = Process(clock)
    yield made
    made.sessions.close()
