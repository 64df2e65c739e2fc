"""ReadFromGrantex on workers, on a real runner: one stream a connection, nothing lost while it lives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import apache_beam as beam
import msgspec
import pytest

from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.feed_stream import Finish, Stream
from pipelines.practice.feed_websocket import SocketStream
from tests.integration import collect
from tests.integration.collect import wait_for
from tests.servers import prism
from transforms.feed.read import ReadFromGrantex
from transforms.feed.request import FeedSettings
from transforms.feed.worker import sessions
from transforms.secret import LiteralSecret

pytestmark = pytest.mark.own_network(needs=prism.program)

PATIENCE = 60_000  # milliseconds


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=1.0, events_per_chunk=50) as made:
        yield made


def running(feed: PracticeFeed, transport: str = "sse", **options: Any) -> Any:
    """The pipeline of these tests on Prism: reads, and leaves everything where the test sees it."""

    def build(pipeline: beam.Pipeline) -> None:
        settings = FeedSettings(feed.url, LiteralSecret(feed.api_key), transport=transport)
        read = pipeline | ReadFromGrantex(settings, **options)
        _ = read.chunks | beam.ParDo(collect.CollectChunks())
        _ = read.dead_letters | "CollectLetters" >> beam.ParDo(collect.CollectLetters())

    return prism.running(build)


def take(number: int) -> tuple[list[bytes], list[str]]:
    """Made-up events and their ids."""
    events = list(islice(generate(), number))
    return events, [msgspec.json.decode(event)["id"] for event in events]


def drain(result: Any) -> None:
    """Like a driver that was sent SIGTERM."""
    sessions.drain()
    assert result.wait_until_finish(duration=PATIENCE) == "DONE"


def metric(result: Any, name: str) -> int:
    found = prism.metrics(result)["counters"]
    return sum(one.result for one in found if one.key.metric.name == name)


def gauge(result: Any, name: str) -> int:
    """What it is now; 0 while it is not there."""
    found = [one for one in prism.metrics(result)["gauges"] if one.key.metric.name == name]
    return int(found[0].result.value) if found else 0


def test_events_and_strays_come_out_and_a_drain_flushes_what_was_received(feed: PracticeFeed) -> None:
    events, ids = take(20_000)
    with running(feed) as result:
        feed.wait_for_streams(timeout=30)
        feed.publish_many([b"no JSON", *events[:10_000]])
        wait_for(lambda: len(collect.ids) >= 10_000)
        feed.publish_many(events[10_000:])
        wait_for(lambda: gauge(result, "feed_connections_0") == 1)
        time.sleep(0.05)  # some of it is on its way: whatever was received before the drain must arrive
        drain(result)
        received = len(collect.ids)
        assert Counter(collect.ids) == Counter(ids[:received])
        assert received >= 10_000
        assert [letter.raw for letter in collect.letters if letter.cause.startswith("not_json")] == [
            b"no JSON"
        ]
        assert metric(result, "feed_events_received") == received
        assert metric(result, "feed_events_dead_lettered") == 1
        assert gauge(result, "feed_reconnects_0") == 0
        assert time.time() - 60 < gauge(result, "feed_last_event_epoch_seconds_0") <= time.time()
    assert len(feed.streams) == 1


@pytest.mark.alone
def test_one_event_at_a_time_is_out_within_half_a_second(feed: PracticeFeed) -> None:
    events, _ = take(20)
    with running(feed):
        feed.wait_for_streams(timeout=30)
        lags = []
        for number, event in enumerate(events):
            feed.publish(event)
            published = time.time()
            wait_for(lambda: len(collect.ids) > number)  # noqa: B023 - at once
            lags.append(collect.arrivals[-1] - published)
            time.sleep(0.02)
        assert sorted(lags[1:])[-2] < 0.5, lags


def test_a_blocked_stage_neither_splits_the_range_nor_fills_the_memory(feed: PracticeFeed) -> None:
    """Prism asks a bundle that stands still to split: then a second stream would appear."""
    feed.keep_ids = False
    events, ids = take(100_000)  # some 28 MB
    ring_bytes = 2_000_000
    collect.gate.clear()
    with running(feed, ring_bytes=ring_bytes) as result:
        feed.wait_for_streams(timeout=30)
        feed.publish_many(events)
        wait_for(lambda: bool(sessions.PROCESS._open) and _ring().bytes > ring_bytes / 2)
        held = []
        for _ in range(20):
            time.sleep(0.1)
            held.append(_ring().bytes)
        assert max(held) <= ring_bytes
        assert held[-1] == held[-5]  # it stands still: the socket is held up
        assert [letter.cause for letter in collect.letters] == []
        collect.gate.set()
        wait_for(lambda: len(collect.ids) >= len(ids))
        drain(result)
    assert Counter(collect.ids) == Counter(ids)
    assert len(feed.streams) == 1
    causes = [letter.cause for letter in collect.letters]
    assert causes == [
        "feed_gap: the worker's memory for the feed was full"
    ]  # the service may have given up on a slow reader


def _ring() -> Any:
    return next(iter(sessions.PROCESS._open.values())).ring


def test_a_cut_stream_is_opened_again_and_the_gap_is_on_record(feed: PracticeFeed) -> None:
    events, ids = take(2)
    with running(feed) as result:
        feed.wait_for_streams(timeout=30)
        feed.publish(events[0])
        wait_for(lambda: len(collect.ids) == 1)
        feed.finish_streams(Finish.CUT)
        feed.wait_for(lambda: len(feed.streams) == 2, 30)
        wait_for(lambda: len(collect.letters) == 1)  # live with the first keepalive
        feed.publish(events[1])
        wait_for(lambda: len(collect.ids) == 2)
        drain(result)
        assert metric(result, "feed_gaps") == 1
    assert Counter(collect.ids) == Counter(ids)
    assert [letter.cause for letter in collect.letters] == ["feed_gap: the stream was cut off"]


def test_the_end_of_the_input_ends_the_job(feed: PracticeFeed) -> None:
    events, ids = take(100)
    with running(feed) as result:
        feed.wait_for_streams(timeout=30)
        feed.publish_many(events)
        feed.end_input()
        assert result.wait_until_finish(duration=PATIENCE) == "DONE"
    assert Counter(collect.ids) == Counter(ids)


def test_two_connections_give_each_event_once_and_keep_a_contradiction_aside(feed: PracticeFeed) -> None:
    """One by each transport: they do not know of each other."""
    events, ids = take(5_000)
    with running(feed, transport="both", connections=2) as result:
        feed.wait_for_streams(2, timeout=30)
        feed.publish_many(events)
        wait_for(lambda: len(collect.ids) >= 5_000)
        feed.publish(events[0].replace(b'"data"', b'"Data"'))
        wait_for(lambda: len(collect.letters) >= 1)
        drain(result)
        assert metric(result, "feed_events_received") == 2 * 5_001
    assert Counter(collect.ids) == Counter(ids)
    assert {letter.cause.split(":")[0] for letter in collect.letters} == {"id_conflict"}
    assert {type(stream) for stream in feed.streams} == {Stream, SocketStream}
    assert len(feed.streams) == 2


def test_an_id_is_forgotten_after_the_horizon_and_a_drain_does_not_wait_for_it(
    feed: PracticeFeed, streams_end_at_once: None
) -> None:
    """Two streams that a drain holds until they are old enough are read further apart than the horizon."""
    [event], [event_id] = take(1)
    with running(feed, connections=2, horizon=0.5) as result:
        feed.wait_for_streams(2, timeout=30)
        feed.publish(event)
        wait_for(lambda: len(collect.ids) == 1)
        until = time.monotonic() + 30
        while len(collect.ids) == 1:  # each copy that is dropped is not remembered, so this ends
            assert time.monotonic() < until
            time.sleep(0.6)
            feed.publish(event)
        drain(result)
    assert set(collect.ids) == {event_id}
    assert len(collect.ids) == 2
