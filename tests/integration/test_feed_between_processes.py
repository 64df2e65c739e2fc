"""A range of the feed moves between real processes, and outlives the one that held it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import msgspec
import pytest

from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from tests.integration.sdk_process import Done, SdkProcess
from transforms.feed.worker.range import FeedRange


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=0.5) as made:
        yield made


@pytest.fixture
def processes(feed: PracticeFeed) -> Iterator[list[SdkProcess]]:
    with SdkProcess(feed.url, feed.api_key) as one, SdkProcess(feed.url, feed.api_key) as other:
        yield [one, other]


class Runner:
    """Shows what is left of the range to a process, after the delay that was asked for."""

    def __init__(self) -> None:
        self.left: FeedRange | None = FeedRange(0)
        self.ids: list[str] = []
        self.causes: list[str] = []
        self._delay = 0.0

    def step(self, process: SdkProcess) -> Done:
        assert self.left is not None
        time.sleep(self._delay)
        done = process.bundle(self.left)
        self.ids += done.ids
        self.causes += done.causes
        self.left, self._delay = done.left, done.delay
        return done

    def until_ids(self, process: SdkProcess, count: int) -> None:
        until = time.monotonic() + 30
        while len(self.ids) < count:
            assert time.monotonic() < until, (self.ids, self.causes)
            self.step(process)


def test_a_range_that_wanders_between_two_processes_stays_with_the_one_that_has_the_stream(
    feed: PracticeFeed, processes: list[SdkProcess]
) -> None:
    dice = random.Random(7)
    runner = Runner()
    runner.step(processes[0])
    feed.wait_for_streams()
    events = list(islice(generate(), 40))
    for number, event in enumerate(events):
        feed.publish(event)
        until = time.monotonic() + 30
        while len(runner.ids) <= number:
            assert time.monotonic() < until
            runner.step(dice.choice(processes))
    assert runner.ids == [msgspec.json.decode(event)["id"] for event in events]
    assert (runner.causes, len(feed.streams)) == ([], 1)


def test_when_its_process_is_killed_another_one_takes_over_and_the_gap_is_on_record(
    feed: PracticeFeed, processes: list[SdkProcess]
) -> None:
    first, lost, second = (list(islice(generate(), 5)) for _ in range(3))
    runner = Runner()
    runner.step(processes[0])
    feed.wait_for_streams()
    feed.publish_many(first)
    runner.until_ids(processes[0], 5)
    processes[0].kill()
    feed.publish_many(lost)
    while len(feed.streams) < 2:
        runner.step(processes[1])
        feed.publish(lost[0])
    feed.wait_for_streams()
    while not runner.causes:
        runner.step(processes[1])
    feed.publish_many(second)
    runner.until_ids(processes[1], 10)
    assert set(runner.ids) - {msgspec.json.decode(lost[0])["id"]} == {
        msgspec.json.decode(event)["id"] for event in [*first, *second]
    }
    assert runner.causes == ["feed_gap: the process that read the feed did not come back"]


def test_a_drain_is_finished_by_the_process_that_has_the_stream(
    feed: PracticeFeed, processes: list[SdkProcess]
) -> None:
    events = list(islice(generate(), 2_000))
    runner = Runner()
    runner.step(processes[0])
    feed.wait_for_streams()
    feed.publish_many(events)
    runner.until_ids(processes[0], 1)
    assert runner.left is not None
    runner.left = replace(runner.left, draining=True)  # what `truncate` does
    runner.step(processes[1])
    while runner.left is not None:
        runner.step(processes[0])
    received = len(runner.ids)
    assert runner.ids == [msgspec.json.decode(event)["id"] for event in events[:received]]
    assert feed.open_streams == []
    assert runner.causes == []
