"""A connection that is kept: its replacement is live before it is closed, and slots are respected."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest

from tests.transforms.feed.memory_intake import MemoryIntake
from tests.transforms.feed.test_connection import until
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.connection import FeedConnection
from transforms.feed.coverage import Coverage
from transforms.feed.kept import PROVEN_AFTER, RARELY, SLOTS, KeptConnection
from transforms.feed.reconnect import Ending, EndingKind
from transforms.feed.status import ConnectionStatus, Phase, State
from transforms.feed.watch import LOOK_EVERY, SpareSlot, Watch


class Made:
    """A connection that the test moves. closed: by whom it was ended."""

    def __init__(self, clock: ManualClock, watch: Watch) -> None:
        self._clock, self._watch = clock, watch
        self.status = ConnectionStatus(Phase.CONNECTING)
        self.stream: SimpleNamespace | None = None
        self.failure: BaseException | None = None
        self.age = 0.0
        self.closed = ""
        self._over = threading.Event()

    def run(self, intake: object, stop: threading.Event) -> None:
        self._over.wait(10)
        self.status = replace(self.status, phase=Phase.STOPPED)
        if self.failure is not None:
            raise self.failure

    def interrupt(self) -> None:
        self.closed = self.closed or "interrupted"
        self._over.set()

    def retire(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._over.set()

    def live(self) -> None:
        self.status = replace(self.status, phase=Phase.LIVE, live_since=self._clock.now())
        self.stream = SimpleNamespace(watched=self._watch.join())

    def waits(self, seconds: float, why: str = "cut") -> None:
        self.stream = None
        until = self._clock.now() + seconds
        self.status = replace(self.status, phase=Phase.WAITING, until=until, why=why)

    def ends(self, failure: BaseException | None = None) -> None:
        """By itself."""
        self.failure = failure
        self.status = replace(self.status, end_of_input=failure is None)
        self._over.set()

    def suspect(self) -> None:
        assert self.stream is not None
        self.stream.watched.suspect = "the stream lacks what another one received"


class Keeper:
    """A kept connection in its thread."""

    def __init__(self, clock: ManualClock, watch: Watch) -> None:
        self.clock = clock
        self.made: list[Made] = []
        self.error: BaseException | None = None
        self._watch = watch
        self.kept = KeptConnection(self._connect, watch, clock)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: self.kept.statuses[0].state is State.CONNECTING)

    def _connect(self, coverage: Coverage) -> FeedConnection:
        self.made.append(Made(self.clock, self._watch))
        return cast(FeedConnection, self.made[-1])

    def _run(self) -> None:
        try:
            self.kept.run(MemoryIntake(), threading.Event())
        except OSError as error:
            self.error = error

    def pass_by(self, seconds: float) -> bool:
        """True, for conditions."""
        for _ in range(round(seconds / LOOK_EVERY)):
            self.clock.advance(LOOK_EVERY)
            self.kept.look()
        return True

    def await_slot(self) -> None:
        """What was replaced ends in a thread, and nothing new is opened before it has."""
        until(self._watch.spare.acquire)
        self._watch.spare.release()

    def end(self) -> None:
        self.kept.interrupt()
        self.join()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def states(self) -> list[State | None]:
        return [status.state for status in self.kept.statuses]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watch(clock: ManualClock) -> Watch:
    made = Watch(clock)
    made.keeper(1)  # another connection beside it
    return made


@pytest.fixture
def keeper(clock: ManualClock, watch: Watch) -> Iterator[Keeper]:
    made = Keeper(clock, watch)
    yield made
    made.end()


def test_a_suspect_is_closed_once_its_replacement_was_live_for_two_seconds(keeper: Keeper) -> None:
    [old] = keeper.made
    old.live()
    keeper.pass_by(60)
    old.suspect()
    keeper.pass_by(LOOK_EVERY)
    new = keeper.made[1]
    assert keeper.states == [State.SUSPECT, State.REPLACING]
    keeper.pass_by(30)
    assert not old.closed  # make before break
    new.live()
    keeper.pass_by(PROVEN_AFTER)
    assert not old.closed
    keeper.pass_by(LOOK_EVERY)
    until(lambda: old.closed == "the stream lacks what another one received")
    assert keeper.states == [State.LIVE]
    assert keeper.kept.status.reconnects == 1
    assert keeper.kept.status.last_problem == "the stream lacks what another one received"


def test_one_that_is_cut_meanwhile_is_not_waited_for(keeper: Keeper) -> None:
    [old] = keeper.made
    old.live()
    keeper.pass_by(1)
    old.suspect()
    keeper.pass_by(LOOK_EVERY)
    old.waits(0.3)
    keeper.pass_by(LOOK_EVERY)
    until(lambda: old.closed)
    assert keeper.states == [State.CONNECTING]
    assert len(keeper.made) == 2


def test_without_a_free_slot_the_stream_stays_and_another_try_comes_rarely(keeper: Keeper) -> None:
    [old] = keeper.made
    old.live()
    keeper.pass_by(60)
    old.suspect()
    keeper.pass_by(LOOK_EVERY)
    refused = keeper.made[1]
    refused.waits(320, "all five stream slots of this account are taken")
    keeper.pass_by(LOOK_EVERY)
    until(lambda: refused.closed)
    assert not old.closed
    keeper.pass_by(RARELY - 2 * LOOK_EVERY)
    assert len(keeper.made) == 2
    until(lambda: keeper.pass_by(LOOK_EVERY) and len(keeper.made) == 3)


def test_a_replacement_that_is_not_live_within_a_minute_is_given_up(keeper: Keeper) -> None:
    [old] = keeper.made
    old.live()
    keeper.pass_by(1)
    old.suspect()
    keeper.pass_by(62)
    until(lambda: keeper.made[1].closed)
    assert not old.closed


def test_a_stream_is_replaced_before_the_age_at_which_the_last_three_were_cut(
    keeper: Keeper, watch: Watch
) -> None:
    for lived in (300.2, 303.0, 301.0):
        watch.cut_age.ended("sse", Ending(EndingKind.CUT, lived=lived, was_live=True))
    [old] = keeper.made
    old.live()
    old.age = 290.0
    keeper.pass_by(LOOK_EVERY)
    assert len(keeper.made) == 1
    old.age = 290.2
    keeper.pass_by(LOOK_EVERY)
    keeper.made[1].live()
    keeper.pass_by(PROVEN_AFTER + LOOK_EVERY)
    until(lambda: old.closed)


@pytest.mark.parametrize("neighbours", [0, SLOTS - 1])
def test_one_alone_and_five_are_never_replaced_beside_themselves(clock: ManualClock, neighbours: int) -> None:
    """A ceiling of one is one; and a sixth stream would be refused."""
    watch = Watch(clock)
    watch.keeper(neighbours)
    keeper = Keeper(clock, watch)
    keeper.made[0].live()
    keeper.made[0].suspect()
    keeper.pass_by(5)
    assert len(keeper.made) == 1
    keeper.end()


def test_one_at_a_time_is_replaced(clock: ManualClock) -> None:
    watch = Watch(clock, SpareSlot())
    pair = [Keeper(clock, watch) for _ in range(2)]
    for each in pair:
        each.made[0].live()
        each.made[0].suspect()
    for _ in range(10):
        for each in pair:
            each.pass_by(LOOK_EVERY)
    assert [len(each.made) for each in pair] == [2, 1]
    pair[0].made[1].live()
    pair[0].pass_by(PROVEN_AFTER + LOOK_EVERY)
    until(lambda: pair[0].made[0].closed)
    until(lambda: pair[1].pass_by(LOOK_EVERY) and len(pair[1].made) == 2)
    for each in pair:
        each.end()


def test_what_is_suspect_again_and_again_is_replaced_ever_more_rarely(keeper: Keeper) -> None:
    """All that land on one instance of the service lack its events."""
    opened: list[float] = []
    for number in range(12):
        if number:
            opened.append(keeper.clock.monotonic())
        keeper.made[-1].live()
        keeper.pass_by(3)
        keeper.made[-1].suspect()
        until(lambda number=number: keeper.pass_by(5) and len(keeper.made) == number + 2)  # type: ignore[misc]
        keeper.made[-1].live()
        keeper.pass_by(PROVEN_AFTER + LOOK_EVERY)
        keeper.await_slot()
    waits = [later - before for before, later in pairwise(opened)]
    assert max(waits[:2]) < 20
    assert min(waits[-2:]) > 200


def test_one_that_fell_silent_is_replaced_at_once_however_often(keeper: Keeper) -> None:
    for number in range(10):
        current = keeper.made[-1]
        current.live()
        assert current.stream is not None
        current.stream.watched.fell_silent = True
        current.suspect()
        keeper.pass_by(LOOK_EVERY)
        assert len(keeper.made) == number + 2
        keeper.made[-1].live()
        keeper.pass_by(PROVEN_AFTER + LOOK_EVERY)
        until(lambda current=current: current.closed)  # type: ignore[misc]
        until(lambda: keeper.kept._watch.spare.acquire())
        keeper.kept._watch.spare.release()


def test_the_end_ends_both(keeper: Keeper) -> None:
    keeper.made[0].live()
    keeper.made[0].suspect()
    keeper.pass_by(LOOK_EVERY)
    keeper.end()
    assert [each.closed for each in keeper.made] == ["interrupted", "interrupted"]


def test_the_end_of_the_input_is_told_to_each(keeper: Keeper) -> None:
    keeper.made[0].live()
    keeper.made[0].suspect()
    keeper.pass_by(LOOK_EVERY)
    keeper.made[1].live()
    keeper.made[0].ends()
    until(lambda: keeper.states == [State.LIVE])
    keeper.made[1].ends()
    keeper.join()
    assert keeper.kept.status.end_of_input


@pytest.mark.parametrize("which", [0, 1])
def test_a_failure_of_either_ends_both(keeper: Keeper, which: int) -> None:
    keeper.made[0].live()
    keeper.made[0].suspect()
    keeper.pass_by(LOOK_EVERY)
    keeper.made[which].ends(OSError("disk"))
    until(lambda: keeper.made[which].status.phase is Phase.STOPPED)
    until(lambda: keeper.pass_by(LOOK_EVERY) and keeper.made[1 - which].closed)
    keeper.join()
    assert str(keeper.error) == "disk"
    assert str(keeper.kept.failure) == "disk"
