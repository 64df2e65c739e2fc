"""What a standby heard, handed over: nothing missing, nothing twice, and a gap only where nobody heard."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipelines.local.standby_ring import EVENT_BYTES, ITEM_BYTES, StandbyRing
from tests.transforms.feed.journal.support import copy_files, event, events, open_journal, read_all
from tests.transforms.write.manual_clock import ManualClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.coverage import Coverage, Stream
from transforms.feed.journal import Journal, JournalError

PLENTY = 10_000_000


class Process:
    """What one process hears, without threads and network: the streams' side of `StreamReader`."""

    def __init__(self, intake: Journal | StandbyRing, clock: ManualClock) -> None:
        self.intake, self.clock = intake, clock
        self.coverage = Coverage(intake, clock)
        self.coverage.begin()
        self.stream: Stream | None = None

    def live(self) -> None:
        if self.stream is None:
            self.stream = self.coverage.live()

    def cut(self) -> None:
        if self.stream is not None:
            self.coverage.lost(self.stream, "the stream was cut off")
            self.stream = None

    def hear(self, *heard: Event, letters: tuple[DeadLetter, ...] = ()) -> None:
        if self.stream is not None:
            now = self.clock.monotonic()
            self.intake.append(heard, letters, self.coverage.reach(self.stream, now))
            self.coverage.heard(self.stream, now)

    def stop(self) -> None:
        if self.stream is not None:
            self.coverage.stopped(self.stream)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def ring(clock: ManualClock, most_bytes: int = PLENTY, horizon: float = 3600.0) -> StandbyRing:
    return StandbyRing(most_bytes, horizon, clock)


def delivered(journal: Journal) -> list[str]:
    return [one.id for one in read_all(journal)]


def gaps(journal: Journal, clock: ManualClock) -> list[tuple[float, float | None]]:
    """In seconds before now."""
    now = clock.now()
    return [
        (round(now - gap.since, 3), None if gap.until is None else round(now - gap.until, 3))
        for gap in journal.gaps()
    ]


def first_process(place: Path, clock: ManualClock, heard: list[Event]) -> None:
    """It hears something for ten seconds, and ends in order."""
    journal = open_journal(place, clock=clock)
    journal.cursor("files")
    one = Process(journal, clock)
    one.live()
    for each in heard:
        clock.advance(10.0 / len(heard))
        one.hear(each)
    one.stop()
    journal.close()


def taken_over(place: Path, clock: ManualClock, held: StandbyRing) -> Journal:
    journal = open_journal(place, clock=clock)
    journal.cursor("files")
    held.hand_over(journal)
    return journal


def test_a_ring_that_reaches_back_leaves_no_gap_and_known_ids_fall_out(
    tmp_path: Path, clock: ManualClock
) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 10))
    for each in events(5, 15):  # half of them the first process had, too
        standby.hear(each)
        clock.advance(0.1)
    journal = taken_over(tmp_path, clock, held)
    standby.hear(event(15))
    assert delivered(journal) == [one.id for one in events(0, 16)]
    assert gaps(journal, clock) == []
    assert not journal.gap_open
    journal.close()


def test_events_keep_their_bytes_and_go_on_in_many_small_appends_or_one_large(
    tmp_path: Path, clock: ManualClock
) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 1))
    several = events(100, 12_100, 20)
    standby.hear(*several[:6000])
    for each in several[6000:]:
        standby.hear(each)
    journal = taken_over(tmp_path, clock, held)
    assert read_all(journal, 1) == several
    journal.close()


def test_what_neither_heard_is_the_gap(tmp_path: Path, clock: ManualClock) -> None:
    first_process(tmp_path, clock, events(0, 10))
    clock.advance(3.0)
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    clock.advance(5.0)
    standby.hear(event(20))
    journal = taken_over(tmp_path, clock, held)
    assert gaps(journal, clock) == [(8.0, 5.0)]
    assert delivered(journal)[-1] == event(20).id
    journal.close()


def test_the_oldest_goes_first_and_the_gap_is_as_long_as_what_went(
    tmp_path: Path, clock: ManualClock
) -> None:
    size = ITEM_BYTES + EVENT_BYTES + len(event(0).raw)
    held = ring(clock, most_bytes=3 * size)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 1))
    for each in events(1, 9):
        clock.advance(1.0)
        standby.hear(each)
    assert held.events == 3
    assert held.bytes <= held.most_bytes
    clock.advance(1.0)
    assert held.reaches_back_to == clock.now() - 4.0
    journal = taken_over(tmp_path, clock, held)
    assert delivered(journal) == [one.id for one in (event(0), *events(6, 9))]
    assert gaps(journal, clock) == [(9.0, 4.0)]
    assert "--standby_bytes" in journal.gaps()[0].reason
    journal.close()


def test_an_event_larger_than_the_ring_is_a_gap_and_no_fault(tmp_path: Path, clock: ManualClock) -> None:
    held = ring(clock, most_bytes=5_000)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 1))
    clock.advance(1.0)
    standby.hear(event(1, 6_000))
    assert (held.events, held.bytes) == (0, 0)
    clock.advance(1.0)
    standby.hear(event(2))
    journal = taken_over(tmp_path, clock, held)
    assert delivered(journal) == [event(0).id, event(2).id]
    assert gaps(journal, clock) == [(2.0, 1.0)]
    journal.close()


def test_what_the_standby_missed_while_the_other_heard_is_no_gap(tmp_path: Path, clock: ManualClock) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    standby.cut()
    clock.advance(2.0)
    standby.live()
    first_process(tmp_path, clock, events(0, 10))
    journal = taken_over(tmp_path, clock, held)
    assert gaps(journal, clock) == []
    journal.close()


def test_what_the_standby_missed_after_the_other_s_end_is_one(tmp_path: Path, clock: ManualClock) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 10))
    clock.advance(1.0)
    standby.hear(event(10))
    standby.cut()
    clock.advance(2.0)
    standby.live()
    clock.advance(4.0)
    standby.hear(event(11))
    journal = taken_over(tmp_path, clock, held)
    assert gaps(journal, clock) == [(6.0, 4.0)]
    assert delivered(journal) == [one.id for one in events(0, 12)]
    journal.close()


def test_a_standby_that_is_not_live_takes_over_with_an_open_gap_that_ends_when_it_is(
    tmp_path: Path, clock: ManualClock
) -> None:
    first_process(tmp_path, clock, events(0, 10))
    held = ring(clock)
    standby = Process(held, clock)
    clock.advance(1.0)
    journal = taken_over(tmp_path, clock, held)
    assert journal.gap_open
    clock.advance(1.0)
    standby.live()
    standby.hear(event(10))
    assert gaps(journal, clock) == [(2.0, 0.0)]
    assert not journal.gap_open
    journal.close()


def test_a_standby_that_was_just_cut_takes_over_with_the_gap_open(tmp_path: Path, clock: ManualClock) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 10))
    clock.advance(1.0)
    standby.hear(event(10))
    standby.cut()
    journal = taken_over(tmp_path, clock, held)
    assert journal.gap_open
    clock.advance(3.0)
    standby.live()
    assert gaps(journal, clock) == [(3.0, 0.0)]
    journal.close()


def blind_process(place: Path, clock: ManualClock) -> None:
    """The first process is cut off, and ends without ever having heard the feed again."""
    journal = open_journal(place, clock=clock)
    journal.cursor("files")
    one = Process(journal, clock)
    one.live()
    clock.advance(1.0)
    one.hear(event(0))
    one.cut()
    assert journal.gap_open
    clock.advance(5.0)
    journal.close()


def test_a_gap_that_the_other_left_open_is_none_when_the_standby_heard_it_all(
    tmp_path: Path, clock: ManualClock
) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    blind_process(tmp_path, clock)
    standby.hear(event(1))
    journal = taken_over(tmp_path, clock, held)
    assert not journal.gap_open
    assert gaps(journal, clock) == []
    assert journal.gap_total == 0
    assert delivered(journal) == [event(0).id, event(1).id]
    journal.close()
    again = open_journal(tmp_path, clock=clock)
    assert not again.gap_open
    again.close()


def test_a_gap_that_the_other_left_open_ends_where_the_ring_begins(
    tmp_path: Path, clock: ManualClock
) -> None:
    blind_process(tmp_path, clock)
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    clock.advance(2.0)
    standby.hear(event(1))
    journal = taken_over(tmp_path, clock, held)
    assert gaps(journal, clock) == [(7.0, 2.0)]
    journal.close()


def test_a_full_journal_is_waited_for_and_then_has_everything_in_order(
    tmp_path: Path, clock: ManualClock
) -> None:
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    first_process(tmp_path, clock, events(0, 20, 1000))
    for each in events(20, 30, 1000):
        standby.hear(each)
    journal = open_journal(tmp_path, clock=clock, max_bytes=15_000)
    cursor = journal.cursor("files")
    held.hand_over(journal)
    assert held.events == 10, "nothing is dropped"
    with pytest.raises(Exception, match="max_bytes"):
        held.append([event(30)], [])
    held.heard()
    heard = journal.heard_until
    journal.forget(cursor.name)
    journal.trim()
    journal.cursor("files")
    clock.advance(1.0)
    standby.hear(event(30))
    assert [one.id for one in read_all(journal, 20)] == [one.id for one in events(20, 31)]
    assert journal.heard_until > heard
    journal.close()


def test_what_the_other_took_longer_ago_than_ids_are_known_does_not_come_twice(
    tmp_path: Path, clock: ManualClock
) -> None:
    held = ring(clock, horizon=600.0)
    standby = Process(held, clock)
    standby.live()
    journal = open_journal(tmp_path, clock=clock, dedupe_horizon=600.0)
    journal.cursor("files")
    one = Process(journal, clock)
    one.live()
    letter = DeadLetter("feed", "", "not_json", b"no JSON", at=clock.now())
    for process in (one, standby):
        process.hear(*events(0, 10), letters=(letter,))
    journal.forget("files")
    for _ in range(30):
        clock.advance(60.0)
        one.hear()
        standby.hear()
        journal.trim()
    one.stop()
    journal.close()
    journal = taken_over(tmp_path, clock, held)
    assert journal.end == 10, "their ids are forgotten, and they were not appended again"
    assert len(journal.dead_letters()) == 1
    journal.close()


def test_another_account_s_events_are_not_handed_over(tmp_path: Path, clock: ManualClock) -> None:
    held = ring(clock)
    held.check_account("dev_b")
    journal = open_journal(tmp_path, clock=clock)
    journal.check_account("dev_a")
    with pytest.raises(JournalError, match="dev_b"):
        held.hand_over(journal)
    journal.close()


@pytest.mark.parametrize("step", [-3600.0, 30.0])
def test_a_wall_clock_that_is_set_hides_no_gap(tmp_path: Path, clock: ManualClock, step: float) -> None:
    first_process(tmp_path, clock, events(0, 10))
    clock.advance(2.0)
    held = ring(clock)
    standby = Process(held, clock)
    standby.live()
    clock.advance(1.0)
    standby.hear(event(10))
    clock._now += step
    journal = taken_over(tmp_path, clock, held)
    assert delivered(journal) == [one.id for one in events(0, 11)]
    if step > 0:  # set back, the end of the first process lies in the future: nobody can tell how long it was
        ((since, until),) = gaps(journal, clock)
        assert until is not None
        assert until <= 1.0
        assert since - until >= 2.0
    journal.close()


class Story:
    """Two processes and their streams at random, an event every tenth of a second."""

    def __init__(self, place: Path, clock: ManualClock, dice: random.Random) -> None:
        self.place, self.clock, self.dice = place, clock, dice
        self.published: list[tuple[float, Event]] = []
        self.held = ring(clock, most_bytes=dice.choice((2_000, 8_000, PLENTY)))
        self.killed = dice.random() < 0.5
        self.standby: Process | None = None

    def run(self) -> Journal:
        """The journal of the process that took over, at the end."""
        journal = open_journal(self.place / "first", clock=self.clock)
        journal.cursor("files")
        first = Process(journal, self.clock)
        first.live()
        end, over = self.dice.randrange(20, 60), self.dice.randrange(60, 80)
        for number in range(120):
            self.clock.advance(0.1)
            if number == end:
                state = self._end(first, journal)
            if number == over:
                journal = taken_over(state, self.clock, self.held)
            self._step(number, first if number < end else None)
        self.standby = self.standby or Process(self.held, self.clock)
        self.standby.live()
        return journal

    def _end(self, first: Process, journal: Journal) -> Path:
        self.ended = self.clock.now()
        if self.killed:
            state = copy_files(self.place / "first", self.place / "killed")
        else:
            state = self.place / "first"
            first.stop()
        journal.close()
        return state

    def _step(self, number: int, first: Process | None) -> None:
        if self.standby is None and self.dice.random() < 0.05:
            self.standby = Process(self.held, self.clock)
        self.published.append((self.clock.now(), event(number)))
        for process in (first, self.standby):
            if process is not None:
                if self.dice.random() < 0.2:
                    self.dice.choice((process.live, process.live, process.cut))()
                process.hear(event(number))


@pytest.mark.parametrize("seed", range(60))
def test_at_random_every_event_is_there_once_or_in_a_gap_in_which_nobody_heard_anything(
    tmp_path: Path, clock: ManualClock, seed: int
) -> None:
    story = Story(tmp_path, clock, random.Random(seed))
    journal = story.run()
    taken, recorded = delivered(journal), journal.gaps()
    journal.close()
    assert len(taken) == len(set(taken))
    for at, each in story.published:
        inside = any(gap.since <= at and (gap.until is None or at <= gap.until + 1e-3) for gap in recorded)
        assert each.id in taken or inside, f"{each.id} is neither there nor in a gap: {recorded}"
    if story.killed or story.held.most_bytes != PLENTY:
        return  # what was heard may lie in a gap: it begins some seconds early, or went with others
    for gap in recorded:
        if gap.since >= story.ended - 0.11 and gap.until is not None:
            heard = [
                each
                for at, each in story.published
                if gap.since + 0.05 < at < gap.until - 0.05 and each.id in taken
            ]
            assert not heard, f"{gap} was heard"
