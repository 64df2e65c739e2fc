"""What keys hold: said when it is much, and reading waits past the bound, never for long."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.transforms.write.manual_clock import ManualClock
from transforms.feed import pubsub
from transforms.feed.pubsub import ToChunks
from transforms.held import BOUND, FORGET_SECONDS, MUCH, ROOM, SLOW_SECONDS, Held
from transforms.write.keyed import backlog


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_it_is_said_at_each_doubling_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    caplog.set_level(logging.INFO, "grantex.write")
    sizes = [MUCH - 1, MUCH, MUCH + 1, 2 * MUCH - 1, 2 * MUCH, 9 * MUCH, 1, 0, 0, MUCH]
    said = []
    for at, size in enumerate(sizes):
        held.note("splunk", "003", size // 100, size, float(at), "Splunk answered 503")
        said.append([line.split(",")[0] for line in lines(caplog)])
    has = [len(each) for each in said]
    assert has == [0, 1, 0, 0, 1, 1, 0, 1, 0, 1]
    assert said[1] == [f"splunk has not taken {MUCH // 100} events of key 003"]
    assert said[7] == ["splunk: nothing is left of key 003"]


def test_the_warning_says_why_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    Held().note("splunk", "003", 5, BOUND, 0.0, "Splunk answered 503")
    [line] = lines(caplog)
    for words in (
        "128 MB",
        "Splunk answered 503",
        "drain",
        "cancelling it loses",
        "from Pub/Sub less is read",
    ):
        assert words in line


def test_past_its_room_a_key_stops_the_reading_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    held, clock = Held(), ManualClock()
    held.note("a", "000", 1, ROOM - 1, clock.monotonic())
    assert held.full(clock.monotonic()) == ""
    assert "straight from the feed nothing more once it is 2000 MB" in lines(caplog)[-1]
    held.note("b", "001", 1, ROOM, clock.monotonic(), "answered 503")
    assert held.full(clock.monotonic()) == "b has not taken 2000 MB of key 001 (answered 503)"
    assert "nothing is read straight from the feed" in lines(caplog)[-1]
    clock.advance(FORGET_SECONDS)
    assert held.full(clock.monotonic()) == ""
    assert Held().full(clock.monotonic()) == ""


def test_a_key_s_blocks_have_the_room_that_reading_counts_on() -> None:
    large = backlog.CELLS - backlog.SMALL_BLOCKS - backlog.SPARE
    assert backlog.SMALL_BLOCKS * backlog.SMALL_BLOCK_BYTES + large * backlog.BLOCK_BYTES >= ROOM


def waits(held: Held, clock: ManualClock) -> tuple[threading.Thread, list[bool]]:
    slowed: list[bool] = []
    thread = threading.Thread(target=lambda: slowed.append(held.slow_down(clock)))
    thread.start()
    return thread, slowed


def test_reading_waits_past_the_bound_for_some_seconds() -> None:
    held, clock = Held(), ManualClock()
    held.note("a", "000", 1, BOUND - 1, clock.monotonic())
    assert not held.slow_down(clock)
    held.note("b", "001", 1, BOUND, clock.monotonic())
    thread, slowed = waits(held, clock)
    while thread.is_alive():  # it may not wait yet
        clock.advance(SLOW_SECONDS)
        thread.join(0.01)
    assert slowed == [True]


def test_reading_goes_on_at_once_when_there_is_room() -> None:
    held, clock = Held(), ManualClock()
    for key in ("000", "001"):
        held.note("a", key, 1, BOUND, clock.monotonic())
    thread, slowed = waits(held, clock)
    held.note("a", "000", 1, 5, clock.monotonic())
    thread.join(0.05)
    assert thread.is_alive(), "the other key holds as much"
    while thread.is_alive():  # the room may have been made before it began to wait
        held.note("a", "001", 1, 5, clock.monotonic())
        thread.join(0.01)
    assert slowed in ([True], [False])
    assert not held.slow_down(clock)


def test_a_key_that_has_moved_to_another_worker_slows_nothing_down() -> None:
    held, clock = Held(), ManualClock()
    held.note("a", "000", 1, BOUND, clock.monotonic())
    clock.advance(FORGET_SECONDS)
    assert held.size(clock.monotonic()) == 0
    assert not held.slow_down(clock)


def test_a_bundle_from_pubsub_begins_with_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    held, clock = Held(), ManualClock()
    monkeypatch.setattr(pubsub, "HELD", held)
    chunks = ToChunks(clock)
    chunks.start_bundle()
    held.note("a", "000", 1, BOUND, clock.monotonic())
    thread = threading.Thread(target=chunks.start_bundle)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    while thread.is_alive():
        clock.advance(SLOW_SECONDS)
        thread.join(0.01)
    [chunk] = [*chunks.process(b'{"id":"a","type":"t"}'), *chunks.finish_bundle()]
    assert [event.id for event in chunk.value.events] == ["a"]
