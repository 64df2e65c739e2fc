"""When a lane reads, ticks, waits and ends, on a clock that only moves when somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from pipelines.local import lane_source
from pipelines.local.lane_source import LaneSource
from transforms.dead_letter import DeadLetter
from transforms.feed.source import Turn

LETTER = (1, DeadLetter("feed", "", "not_json", b"x"))


@dataclass
class WaitingClock:
    """Time passes in `wait` alone. `meanwhile` is called before each wait and may wake who waits."""

    time: float = 1000.0
    waits: list[float] = field(default_factory=list)
    meanwhile: list[Callable[[], None]] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        assert timeout is not None, "a lane never waits for ever"
        if self.meanwhile:
            self.meanwhile.pop(0)()
        if not event.is_set():
            self.time += timeout
            self.waits.append(timeout)
        return event.is_set()


@dataclass
class StubJournal:
    end: int = 0
    listeners: list[Callable[[], None]] = field(default_factory=list)
    cursors: dict[str, Any] = field(default_factory=lambda: {"x": SimpleNamespace(position=0)})
    letters_left: Sequence[tuple[int, DeadLetter]] = ()
    trims: int = 0

    def dead_letters(self) -> Sequence[tuple[int, DeadLetter]]:
        return self.letters_left

    def trim(self) -> None:
        self.trims += 1


@dataclass
class StubDelivery:
    free: int = 100
    due: float | None = None
    has_results: bool = False
    is_idle: bool = True
    filters: bool = False
    left: int = 1

    def unsent(self) -> int:
        return self.left

    def room(self) -> int:
        return self.free

    def deadline(self) -> float | None:
        return self.due

    def ready(self) -> bool:
        return self.has_results

    def idle(self) -> bool:
        return self.is_idle


@dataclass
class Bench:
    """A lane's source between stubs; an hour has passed since anything happened."""

    clock: WaitingClock = field(default_factory=WaitingClock)
    journal: StubJournal = field(default_factory=StubJournal)
    delivery: StubDelivery = field(default_factory=StubDelivery)

    def __post_init__(self) -> None:
        self.source = LaneSource("x", cast(Any, self.journal), self.clock)
        self.source.begin(cast(Any, self.delivery))
        self.clock.time += 3600.0

    def wait(self, position: int = 0) -> tuple[Turn, float]:
        """The turn, and how long it took to come."""
        before = self.clock.time
        turn = self.source.first_turn(position)
        return turn, round(self.clock.time - before, 6)


def test_events_that_wait_are_read_at_once_as_far_as_there_is_room() -> None:
    bench = Bench()
    bench.journal.end = 7
    assert bench.wait() == (Turn(100), 0.0)


def test_with_nothing_to_do_a_bundle_ends_at_the_heartbeat_after_one_sleep() -> None:
    bench = Bench()
    assert bench.wait() == (Turn(), lane_source.HEARTBEAT)
    assert len(bench.clock.waits) == 1


def test_a_batch_that_becomes_old_is_ticked_at_its_time_and_not_polled_for() -> None:
    bench = Bench()
    bench.delivery.due = bench.clock.time + 1.25
    assert bench.wait() == (Turn(), 1.25)
    assert len(bench.clock.waits) == 1


def test_an_outcome_to_record_is_ticked_at_once() -> None:
    bench = Bench()
    bench.delivery.has_results = True
    assert bench.wait() == (Turn(), 0.0)


def test_without_room_events_wait_until_an_outcome_makes_some() -> None:
    bench = Bench()
    bench.journal.end = 7
    bench.delivery.free = 0

    def outcome() -> None:
        bench.delivery.free = 3
        bench.source.wake()

    assert bench.wait() == (Turn(), lane_source.HEARTBEAT)
    bench.clock.time += 1.0
    bench.clock.meanwhile = [outcome]
    assert bench.wait() == (Turn(3), 0.0)


def test_the_journal_wakes_it() -> None:
    bench = Bench()

    def appended() -> None:
        bench.journal.end = 1
        for listener in bench.journal.listeners:
            listener()

    bench.clock.meanwhile = [appended]
    assert bench.wait() == (Turn(100), 0.0)


def test_a_trickle_gathers_and_a_flood_does_not() -> None:
    bench = Bench()
    bench.journal.end = 1
    bench.wait()
    bench.journal.end = 2
    assert bench.wait(1) == (Turn(100), lane_source.GATHER_SECONDS)
    bench.journal.end = 2 + lane_source.GATHER_EVENTS
    assert bench.wait(2) == (Turn(100), 0.0)


def test_in_a_flood_a_turn_carries_thousands() -> None:
    bench = Bench()
    bench.journal.end = lane_source.FLOOD
    bench.wait()
    bench.journal.end += 1
    assert bench.wait(lane_source.FLOOD) == (Turn(100), lane_source.FLOOD_SECONDS)
    bench.journal.end += 1
    assert bench.wait(lane_source.FLOOD + 1) == (Turn(100), lane_source.GATHER_SECONDS), "the flood is over"


def test_a_flood_that_has_ended_is_read_once_the_writers_have_nothing_to_do() -> None:
    bench = Bench()
    bench.journal.end = lane_source.FLOOD
    bench.wait()
    bench.journal.end += 1
    bench.delivery.left = 0

    def grown() -> None:
        bench.journal.end += 1

    bench.clock.meanwhile = [grown]
    assert bench.wait(lane_source.FLOOD) == (Turn(100), 2 * lane_source.GATHER_SECONDS), (
        "nothing has come for a look"
    )


def test_a_flood_that_has_been_read_gathers_outcomes() -> None:
    bench = Bench()
    bench.journal.end = lane_source.FLOOD
    bench.wait()
    bench.delivery.left, bench.delivery.has_results = 0, True
    assert bench.wait(lane_source.FLOOD) == (Turn(), lane_source.FLOOD_SECONDS)


def test_a_flood_that_grows_is_read_before_its_time() -> None:
    bench = Bench()
    bench.journal.end = lane_source.FLOOD
    bench.wait()

    def appended() -> None:
        bench.journal.end += lane_source.GATHER_EVENTS

    bench.clock.meanwhile = [lambda: None, appended]
    assert bench.wait(lane_source.FLOOD) == (Turn(100), 2 * lane_source.GATHER_SECONDS)


def test_outcomes_gather_while_a_flood_finds_no_room() -> None:
    bench = Bench()
    bench.journal.end = 2 * lane_source.GATHER_EVENTS
    bench.wait()
    bench.delivery.free, bench.delivery.has_results = 0, True
    assert bench.wait() == (Turn(), lane_source.GATHER_SECONDS)
    bench.delivery.free = 50
    assert bench.wait() == (Turn(50), 0.0)


def test_a_bundle_goes_on_for_its_time_waiting_for_events_in_it() -> None:
    bench = Bench()
    bench.journal.end = lane_source.GATHER_EVENTS
    assert bench.source.next_turn(0, 0.0) == Turn(100)
    bench.journal.end = 1
    assert bench.source.next_turn(1, 0.5) == Turn(), "a heartbeat, as nothing waits"
    assert bench.source.next_turn(0, lane_source.BUNDLE_SECONDS) is None, "it has run long enough"


def test_the_feed_s_dead_letters_are_no_lane_s() -> None:
    bench = Bench()
    bench.journal.letters_left = [LETTER]
    assert bench.wait() == (Turn(), lane_source.HEARTBEAT)
    assert list(bench.source.dead_letters()) == []


def test_a_drain_reads_the_rest_flushes_once_waits_for_outcomes_and_ends() -> None:
    bench = Bench()
    bench.journal.end = 5
    bench.delivery.is_idle = False
    bench.source.drain(bench.clock.time + 22.0)
    assert bench.wait(0) == (Turn(100), 0.0)
    assert bench.wait(5) == (Turn(flush=True), 0.0)

    def outcome() -> None:
        bench.delivery.has_results = True
        bench.source.wake()

    bench.clock.meanwhile = [outcome]
    assert bench.wait(5) == (Turn(), 0.0)
    bench.delivery.has_results, bench.delivery.is_idle = False, True
    assert bench.wait(5) == (Turn(done=True), 0.0)


def test_a_drain_ends_at_its_deadline_whatever_is_left() -> None:
    bench = Bench()
    bench.journal.end = 5
    bench.delivery.free, bench.delivery.is_idle = 0, False
    bench.source.drain(bench.clock.time + 2.0)
    assert bench.wait(0) == (Turn(done=True), 2.0)


def test_a_drain_in_the_middle_of_a_sleep_is_noticed() -> None:
    bench = Bench()
    bench.clock.meanwhile = [lambda: bench.source.drain(bench.clock.time + 2.0)]
    assert bench.wait() == (Turn(flush=True), 0.0)


def test_catching_up_flushes_once_when_it_is_there_and_goes_on() -> None:
    bench = Bench()
    bench.journal.end = 7
    bench.source.catch_up(5)
    assert bench.wait(0) == (Turn(100), 0.0), "not there yet"
    bench.clock.time += 1.0
    assert bench.wait(5) == (Turn(flush=True), 0.0)
    bench.clock.time += 1.0
    assert bench.wait(5) == (Turn(100), 0.0), "what came meanwhile"
    bench.clock.time += 1.0
    assert bench.wait(7) == (Turn(), lane_source.HEARTBEAT)
    bench.clock.time += 1.0
    bench.source.begin(cast(Any, bench.delivery))
    assert bench.wait(7) == (Turn(flush=True), 0.0), "a lane that was restarted does it again"


def test_a_new_pipeline_starts_at_the_cursor_and_a_resumed_one_where_it_was() -> None:
    bench = Bench()
    bench.journal.cursors["x"].position = 40
    assert bench.source.position(0) == 40
    assert bench.source.position(55) == 55


def test_the_journal_is_trimmed_now_and_then() -> None:
    bench = Bench()
    bench.journal.end = lane_source.GATHER_EVENTS
    for _ in range(50):
        bench.wait()
    assert bench.journal.trims == 1
    bench.clock.time += lane_source.TRIM_EVERY
    bench.wait()
    assert bench.journal.trims == 2
