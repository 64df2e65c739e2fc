"""Gaps are what no stream heard: at once when none is open, afterwards when two were deaf together."""

from __future__ import annotations

import threading

import pytest

from tests.transforms.feed.memory_intake import MemoryIntake
from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Event
from transforms.feed.coverage import Coverage
from transforms.feed.stream_reader import StreamReader

START = 1_772_366_400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=START, monotonic=1000.0)


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


@pytest.fixture
def coverage(intake: MemoryIntake, clock: ManualClock) -> Coverage:
    made = Coverage(intake, clock)
    made.begin()
    return made


def recorded(intake: MemoryIntake) -> list[tuple[float, float]]:
    """The gaps after the first one, in seconds from the start."""
    return [
        (round(since - START, 3), round(until - START, 3))
        for since, until in intake.closed[1:]
        if since and until
    ]


def at(clock: ManualClock, seconds: float) -> float:
    """Move the clock there; returns its monotonic time."""
    clock.advance(START + seconds - clock.now())
    return clock.monotonic()


def test_a_stream_that_is_lost_leaves_a_gap_from_what_it_heard_last(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    stream = coverage.live()
    coverage.heard(stream, at(clock, 10))
    at(clock, 85)
    coverage.lost(stream, "silent")
    assert intake.gap_is_open
    at(clock, 86)
    coverage.live()
    assert recorded(intake) == [(10, 86)]
    assert intake.gaps == ["not running", "silent"]


def test_while_another_stream_hears_there_is_no_gap(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    dead, other = coverage.live(), coverage.live()
    coverage.heard(other, at(clock, 80))
    coverage.lost(dead, "silent")
    coverage.heard(other, at(clock, 81))
    assert recorded(intake) == []
    assert not intake.gap_is_open


def test_one_dead_without_a_word_while_the_other_reconnects_is_a_gap_recorded_afterwards(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    dead, cut = coverage.live(), coverage.live()
    coverage.heard(dead, at(clock, 5))
    coverage.heard(cut, at(clock, 20))
    coverage.lost(cut, "the stream was cut off")
    assert not intake.gap_is_open  # the other one may only be quiet
    at(clock, 23)
    again = coverage.live()
    assert coverage.heard(again, at(clock, 60)) == START + 20  # until that is known
    at(clock, 80)
    coverage.lost(dead, "silent")
    assert recorded(intake) == [(20, 23)]
    assert intake.gaps[-1] == "the stream was cut off"
    assert coverage.heard(again, at(clock, 81)) == START + 81


def test_a_quiet_stream_that_is_heard_again_was_never_deaf(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    quiet, cut = coverage.live(), coverage.live()
    coverage.heard(cut, at(clock, 20))
    coverage.lost(cut, "cut")
    at(clock, 23)
    again = coverage.live()
    coverage.heard(again, at(clock, 24))
    assert coverage.heard(quiet, at(clock, 30)) == START + 30
    coverage.lost(quiet, "silent")
    assert recorded(intake) == []


def test_both_frozen_one_after_the_other_with_a_cut_in_between(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    first, second = coverage.live(), coverage.live()
    coverage.heard(second, at(clock, 9))
    coverage.heard(first, at(clock, 10))  # frozen from here on
    coverage.heard(second, at(clock, 30))
    coverage.lost(second, "cut")
    at(clock, 31)
    third = coverage.live()
    coverage.heard(third, at(clock, 35))  # frozen from here on
    at(clock, 85)
    coverage.lost(first, "silent")
    assert recorded(intake) == [(30, 31)]
    at(clock, 86)
    fourth = coverage.live()
    coverage.heard(fourth, at(clock, 109))
    at(clock, 110)
    coverage.lost(third, "silent")
    assert recorded(intake) == [(30, 31), (35, 86)]
    assert coverage.heard(fourth, at(clock, 111)) == START + 111


def test_what_a_lost_stream_heard_still_counts(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    """Three streams hand over to each other while the first of all is deaf."""
    deaf, one = coverage.live(), coverage.live()
    coverage.heard(one, at(clock, 10))
    coverage.lost(one, "cut")
    at(clock, 12)
    two = coverage.live()
    at(clock, 15)
    three = coverage.live()
    coverage.heard(two, at(clock, 20))
    coverage.lost(two, "cut")
    coverage.heard(three, at(clock, 30))
    coverage.lost(deaf, "silent")
    assert recorded(intake) == [(10, 12)]
    assert coverage.frontier == START + 30


def test_a_corrected_wall_clock_changes_no_gap_s_length(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    stream = coverage.live()
    coverage.heard(stream, at(clock, 10))
    clock._now -= 3600
    coverage.lost(stream, "cut")
    clock.advance(2)
    coverage.live()
    assert recorded(intake) == [(10 - 3600, 12 - 3600)]


def test_the_time_that_the_machine_slept_belongs_to_the_gap(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    stream = coverage.live()
    coverage.heard(stream, at(clock, 10))
    clock._now += 3600  # the monotonic clock does not count it
    coverage.lost(stream, "reset")
    clock.advance(2)
    coverage.live()
    assert recorded(intake) == [(10, 3612)]


def test_a_stop_opens_no_gap_and_says_until_when_all_was_heard(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    stream = coverage.live()
    coverage.heard(stream, at(clock, 10))
    coverage.stopped(stream)
    assert not intake.gap_is_open
    assert coverage.frontier == START + 10


def test_a_stream_that_is_live_only_when_it_is_stopped_shows_no_gap_and_loses_nothing(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    """A replacement was on its way, and the others were closed first."""
    stream = coverage.live()
    coverage.heard(stream, at(clock, 10))
    stop = threading.Event()
    replacement = StreamReader(intake, coverage, stop, clock)
    stop.set()
    at(clock, 12)
    coverage.stopped(stream)
    replacement.went_live()
    replacement.add_frames([b'{"id":"a","type":"t","createdAt":"2026-03-01T12:00:12Z"}'], 50)
    replacement.hand_over(clock.monotonic())
    replacement.stopped()
    assert [event.id for event in intake.events] == ["a"]
    assert (intake.gaps, intake.gap_is_open) == (["not running"], False)
    assert coverage.frontier == START + 10


def test_the_end_of_the_input_ends_the_gap_once_all_were_told(
    coverage: Coverage, intake: MemoryIntake, clock: ManualClock
) -> None:
    coverage.begin()
    one, two = coverage.live(), coverage.live()
    coverage.lost(one, "ended")
    coverage.lost(two, "ended")
    coverage.finished()
    assert intake.gap_is_open
    at(clock, 1)
    coverage.finished()
    assert not intake.gap_is_open


def read(
    intake: MemoryIntake, clock: ManualClock, created: str, late: float, all_read: bool
) -> tuple[float | None, float]:
    """Until when all was heard, in seconds from the reading, once an event of that time is read."""
    reader = StreamReader(intake, Coverage(intake, clock), threading.Event(), clock)
    reader.went_live()
    clock.advance(late)
    reader.add_frames([b'{"id":"a","type":"t","createdAt":"%b"}' % created.encode()], 50)
    reader.hand_over(clock.monotonic() if all_read else None)
    return intake.heard_until, clock.now()


@pytest.mark.parametrize("all_read", [True, False])
def test_a_stream_is_heard_until_its_newest_event_was_created(
    intake: MemoryIntake, clock: ManualClock, all_read: bool
) -> None:
    """Not until it was read: after a stall, more waits behind it."""
    heard, _ = read(intake, clock, "2026-03-01T12:00:07.250Z", late=10, all_read=all_read)
    assert heard == pytest.approx(START + 7.249, abs=1e-6)


def test_a_clock_that_is_wrong_moves_a_gap_s_beginning_by_a_minute_at_most(
    intake: MemoryIntake, clock: ManualClock
) -> None:
    ahead, now = read(intake, clock, "2030-01-01T00:00:00Z", late=10, all_read=True)
    assert ahead == pytest.approx(now - 0.001, abs=1e-6)
    behind, now = read(intake, clock, "2020-01-01T00:00:00Z", late=1000, all_read=True)
    assert behind == now - 60


def test_events_without_a_time_are_heard_when_nothing_waits_behind_them(
    intake: MemoryIntake, clock: ManualClock
) -> None:
    heard, now = read(intake, clock, "", late=10, all_read=True)
    assert heard == now - 1
    heard, _ = read(intake, clock, "", late=10, all_read=False)
    assert heard == START + 10  # since it went live, nothing


def test_what_was_in_hand_when_the_intake_was_full_lies_in_the_gap(
    intake: MemoryIntake, clock: ManualClock
) -> None:
    class Hurried(ManualClock):
        def wait(self, event: threading.Event, timeout: float | None) -> bool:
            self.advance(timeout or 0.0)
            return event.is_set()

    clock = Hurried(now=START)
    coverage = Coverage(intake, clock)
    reader = StreamReader(intake, coverage, threading.Event(), clock)
    reader.went_live()
    clock.advance(3)
    intake.full = 4
    reader.add_frames([b'{"id":"a","type":"t","createdAt":"2026-03-01T12:00:03Z"}'], 50)
    reader.hand_over(clock.monotonic())
    assert [event.id for event in intake.events] == ["a"]
    assert recorded(intake) == []
    assert [(since, until) for since, until in intake.closed] == [(START, START + 7)]
    assert coverage.frontier == START + 7


def test_an_event_is_not_changed_by_its_time(intake: MemoryIntake, clock: ManualClock) -> None:
    read(intake, clock, "no time at all", late=1, all_read=True)
    assert intake.events == [
        Event("a", "t", "no time at all", b'{"id":"a","type":"t","createdAt":"no time at all"}')
    ]
