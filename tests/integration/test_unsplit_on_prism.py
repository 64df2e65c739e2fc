"""Prism splits a slow keyed bundle and loses the state of one half; ours it is not allowed to split.

Each test runs in a process of its own, in which only the stage under test can have refused the splits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.worker.bundle_processor import BundleProcessor

from tests.integration import collect
from tests.integration.intake import Server, ToIntake
from tests.integration.steady_source import Pace, event, steady
from tests.servers import prism
from transforms.feed import deduplicate
from transforms.feed.deduplicate import Deduplicate
from transforms.write.keyed import stages
from transforms.write.keyed.delivery import KeyedDelivery
from transforms.write.write_to import WriteTo

pytestmark = pytest.mark.own_network(needs=prism.program)

PATIENCE = 60_000  # milliseconds
SLOW = 0.3  # seconds for an element: Prism asks for a split after two ticks of 0.1 s without progress
EVENTS = 20_000
ELEMENTS = 6  # that are slow


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The answers by which Beam has split a keyed bundle."""
    seen: list[Any] = []
    beams = BundleProcessor.try_split

    def asked(processor: Any, request: Any) -> Any:
        answer = beams(processor, request)
        if processor.timers_info and answer.channel_splits:
            seen.append(answer)
        return answer

    monkeypatch.setattr(BundleProcessor, "try_split", asked)
    return seen


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(["one"])
    yield made
    made.close()


def slowly(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """The first calls take SLOW."""
    original, left = getattr(owner, name), iter(range(ELEMENTS))

    def slow(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is not None:
            time.sleep(SLOW)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, slow)


def refusing_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "refuse_splits", lambda: False)


def deliver(server: Server) -> int:
    """EVENTS through a sink of one key; how many have arrived when the job is drained."""
    pace = Pace(10_000.0, EVENTS)

    def build(pipeline: beam.Pipeline) -> None:
        _ = steady(pipeline, "source", pace) | WriteTo(ToIntake(server.url, "one"), shards=1)

    drained(build)
    return len(server.intakes["one"].arrived)


def drained(build: Callable[[beam.Pipeline], None]) -> None:
    with prism.running(build) as result:
        assert result.wait_until_finish(duration=PATIENCE) == "DONE"


def test_a_sink_is_not_split_and_delivers_everything(
    server: Server, splits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, KeyedDelivery, "receive")
    assert deliver(server) == EVENTS
    assert server.intakes["one"].repeats == 0
    assert splits == []


def test_split_it_would_lose_events(
    server: Server, splits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should this fail with a newer Beam, Prism may have been mended, and nothing need be refused."""
    refusing_nothing(monkeypatch)
    slowly(monkeypatch, KeyedDelivery, "receive")
    assert deliver(server) < EVENTS
    assert splits


def test_deduplicate_is_not_split_and_knows_every_id(
    splits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no sink in the process."""
    slowly(monkeypatch, deduplicate, "sort_out")
    pace = Pace(5_000.0, 5_000)

    def build(pipeline: beam.Pipeline) -> None:
        twice = steady(pipeline, "source", pace) | beam.FlatMap(lambda chunk: [chunk, chunk])
        _ = (twice | Deduplicate()).chunks | beam.ParDo(collect.CollectChunks())

    drained(build)
    assert Counter(collect.ids) == Counter(event(number).id for number in range(5_000))
    assert splits == []
