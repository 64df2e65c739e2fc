"""Streams that watch each other: what one brought and another has not makes that one suspect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transforms.feed.memory_intake import MemoryIntake
from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Event
from transforms.feed.coverage import Coverage
from transforms.feed.watch import LATE, LOOK_EVERY, LOOK_INTO, SpareSlot, Watch, Watched


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watch(clock: ManualClock) -> Watch:
    return Watch(clock)


def event(number: int) -> Event:
    return Event(f"evt_{number}", "t", "", b"{}")


def pass_by(watch: Watch, clock: ManualClock, seconds: float) -> None:
    """Let time pass, with a look every now and then."""
    for _ in range(round(seconds / LOOK_EVERY)):
        clock.advance(LOOK_EVERY)
        watch.look()


def two(watch: Watch, clock: ManualClock) -> tuple[Watched, Watched]:
    """Two streams, open for a while."""
    streams = watch.join(), watch.join()
    pass_by(watch, clock, 5)
    return streams


def bring(watch: Watch, stream: Watched, *numbers: int, new: bool) -> None:
    events = [event(number) for number in numbers]
    watch.brought(stream, events, events if new else [])


def test_what_another_stream_received_three_seconds_ago_makes_one_suspect(
    watch: Watch, clock: ManualClock
) -> None:
    one, deaf = two(watch, clock)
    bring(watch, one, 1, new=True)
    pass_by(watch, clock, LATE - LOOK_EVERY)
    assert not deaf.suspect
    pass_by(watch, clock, LOOK_EVERY)
    assert (bool(one.suspect), bool(deaf.suspect)) == (False, True)


def test_a_stream_that_has_it_first_or_a_little_later_is_not(watch: Watch, clock: ManualClock) -> None:
    one, other = two(watch, clock)
    for number in range(0, 40, 2):
        bring(watch, one, number, new=True)
        bring(watch, other, number + 1, new=True)
        pass_by(watch, clock, LATE - LOOK_EVERY)
        bring(watch, other, number, new=False)
        bring(watch, one, number + 1, new=False)
    assert (one.suspect, other.suspect) == ("", "")


def test_a_hole_is_found_though_events_go_on(watch: Watch, clock: ManualClock) -> None:
    one, holey = two(watch, clock)
    for number in range(20):
        bring(watch, one, number, new=True)
        if number != 7:
            bring(watch, holey, number, new=False)
        pass_by(watch, clock, LOOK_EVERY)
    assert holey.suspect
    assert not holey.fell_silent
    assert not one.suspect


def test_one_of_ten_missing_is_found_in_chunks_that_are_new_in_part(watch: Watch, clock: ManualClock) -> None:
    one, holey = two(watch, clock)
    chunk = [event(number) for number in range(10)]
    watch.brought(holey, chunk[:4] + chunk[5:], chunk[:4] + chunk[5:])
    watch.brought(one, chunk, [chunk[4]])
    pass_by(watch, clock, LATE)
    assert holey.suspect
    bring(watch, one, 9, new=False)
    assert not one.awaited


def test_a_process_that_stood_still_suspects_nobody(watch: Watch, clock: ManualClock) -> None:
    one, other = two(watch, clock)
    bring(watch, one, 1, new=True)
    clock.advance(3600)  # SIGSTOP, a machine that slept: the rest waits in the sockets
    watch.look()
    assert not other.suspect
    bring(watch, other, 1, new=False)
    pass_by(watch, clock, 2 * LATE)
    assert not other.suspect


def test_a_stream_is_not_asked_for_what_was_published_before_it_was_there(
    watch: Watch, clock: ManualClock
) -> None:
    one = watch.join()
    pass_by(watch, clock, 5)
    new = watch.join()
    bring(watch, one, 1, new=True)
    pass_by(watch, clock, 2 * LATE)
    assert not new.suspect


def test_a_suspect_stream_accuses_nobody(watch: Watch, clock: ManualClock) -> None:
    """It thaws, and brings what all others had an hour ago."""
    one, frozen = two(watch, clock)
    bring(watch, one, 1, new=True)
    pass_by(watch, clock, LATE)
    assert frozen.suspect
    bring(watch, frozen, 2, new=True)
    pass_by(watch, clock, LATE)
    assert not one.suspect


def test_a_stream_that_has_gone_is_awaited_no_more(watch: Watch, clock: ManualClock) -> None:
    one, other = two(watch, clock)
    watch.leave(other)
    bring(watch, one, 1, new=True)
    assert not other.awaited
    watch.leave(other)


def test_after_a_minute_a_hole_is_forgiven(watch: Watch, clock: ManualClock) -> None:
    """When no replacement could be had; it may be the only one that hears the next event."""
    one, holey = two(watch, clock)
    bring(watch, one, 1, new=True)
    for number in range(2, 150):
        bring(watch, one, number, new=True)
        bring(watch, holey, number, new=False)
        pass_by(watch, clock, LOOK_EVERY)
    assert not holey.suspect


class Counted(list[Event]):
    """Counts how often it is gone through."""

    looks = 0

    def __iter__(self) -> Iterator[Event]:
        self.looks += 1
        return super().__iter__()


@pytest.mark.parametrize(("size", "looks"), [(LOOK_INTO, 1), (LOOK_INTO + 1, 0), (450, 0)])
def test_comparing_costs_nothing_for_each_event(
    watch: Watch, clock: ManualClock, size: int, looks: int
) -> None:
    one, other = two(watch, clock)
    bring(watch, one, -1, new=True)
    chunk = Counted(event(number) for number in range(size))
    watch.brought(other, chunk, chunk)
    assert chunk.looks == looks
    assert len(one.awaited) == 1


def test_while_big_chunks_come_a_frozen_stream_is_found(watch: Watch, clock: ManualClock) -> None:
    one, frozen = two(watch, clock)
    for start in range(0, 4500, 450):
        bring(watch, one, *range(start, start + 450), new=True)
        pass_by(watch, clock, LOOK_EVERY)
    assert frozen.suspect


def test_without_ids_a_stream_is_found_that_is_silent_while_another_speaks(
    watch: Watch, clock: ManualClock
) -> None:
    """On a cluster's worker, whose rings know no ids."""
    one, other = two(watch, clock)
    for number in range(20):
        watch.brought(one, [event(number)], None)
        if number < 10:
            watch.brought(other, [event(number)], None)
        pass_by(watch, clock, LOOK_EVERY)
        assert bool(other.suspect) == (number >= 16)  # a second to be silent, and three
    assert not one.suspect


@pytest.mark.parametrize(
    ("pause", "events", "times"),
    [(2.0, 100, 8), (0.5, 1, 8), (0.5, 100, 4)],
    ids=["now and then", "some a second", "a burst"],
)
def test_a_quiet_feed_makes_no_stream_suspect(
    watch: Watch, clock: ManualClock, pause: float, events: int, times: int
) -> None:
    streams = two(watch, clock)
    for number in range(times):
        for stream in streams:
            bring(watch, stream, *range(number, number + events), new=stream is streams[0])
        pass_by(watch, clock, pause)
    pass_by(watch, clock, 60)
    assert [stream.suspect for stream in streams] == ["", ""]


def test_all_silent_after_a_steady_flow_makes_the_oldest_suspect_once(
    watch: Watch, clock: ManualClock
) -> None:
    first, second = two(watch, clock)
    for number in range(0, 30, 2):
        bring(watch, first, number, number + 1, new=True)
        bring(watch, second, number, number + 1, new=False)
        pass_by(watch, clock, LOOK_EVERY)
    pass_by(watch, clock, LATE - 2 * LOOK_EVERY)
    assert not first.suspect
    pass_by(watch, clock, LOOK_EVERY)
    assert (bool(first.suspect), bool(second.suspect)) == (True, False)
    bring(watch, first, 99, new=True)
    bring(watch, second, 99, new=False)
    pass_by(watch, clock, 60)
    assert (first.suspect, second.suspect) == ("", "")


def test_all_silent_again_as_soon_as_a_new_stream_has_brought_something(
    watch: Watch, clock: ManualClock
) -> None:
    streams = list(two(watch, clock))
    for number in range(0, 30, 2):
        for stream in streams:
            bring(watch, stream, number, number + 1, new=stream is streams[0])
        pass_by(watch, clock, LOOK_EVERY)
    for number in range(100, 104):  # each time both fall silent in the moment the replacement speaks
        pass_by(watch, clock, LATE)
        assert streams[0].suspect, number
        watch.leave(streams.pop(0))
        streams.append(watch.join())
        pass_by(watch, clock, LOOK_EVERY)
        bring(watch, streams[-1], number, new=True)


def test_a_keepalive_of_a_stream_that_lacks_events_says_nothing(clock: ManualClock) -> None:
    """Its subscription is gone in the service, and only keepalives come; then the other one is cut."""
    intake = MemoryIntake()
    watch = Watch(clock)
    coverage = Coverage(intake, clock, watch)
    coverage.begin()
    deaf, other = coverage.live(), coverage.live()
    pass_by(watch, clock, 5)
    coverage.took(other, clock.monotonic(), [event(1)], [event(1)])
    coverage.heard(deaf, clock.monotonic())
    heard = clock.now()
    pass_by(watch, clock, LATE)
    coverage.heard(deaf, clock.monotonic())
    coverage.lost(other, "cut")
    pass_by(watch, clock, 2)
    coverage.heard(deaf, clock.monotonic())
    coverage.live()
    coverage.replaced(deaf, "lacks")
    assert list(intake.closed[-1]) == pytest.approx([heard, clock.now()])


def test_one_turn_for_all_threads_and_for_all_processes_of_a_directory(tmp_path: Path) -> None:
    inside = SpareSlot()
    assert [inside.acquire(), inside.acquire()] == [True, False]
    inside.release()
    assert inside.acquire()
    one, other = (SpareSlot(tmp_path / "spare_slot") for _ in range(2))  # as in two processes
    assert [one.acquire(), other.acquire(), one.acquire()] == [True, False, False]
    one.release()
    assert other.acquire()
    assert (tmp_path / "spare_slot").stat().st_mode & 0o777 == 0o600


def test_a_turn_whose_file_cannot_be_opened_holds_up_no_replacement(tmp_path: Path) -> None:
    assert SpareSlot(tmp_path / "nowhere" / "spare_slot").acquire()


def test_bursts_that_end_are_taken_for_deafness_ever_more_rarely(watch: Watch, clock: ManualClock) -> None:
    streams = two(watch, clock)
    suspected = []
    for number in range(0, 10_000, 100):
        for _ in range(6):
            number += 10
            for stream in streams:
                bring(watch, stream, *range(number, number + 10), new=stream is streams[0])
            pass_by(watch, clock, LOOK_EVERY)
        pass_by(watch, clock, 10)
        suspected.append(bool(streams[0].suspect))
    assert suspected == [True] + [False] * 99
