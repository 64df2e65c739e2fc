"""The time that all keys of a process share at the end of the input."""

from __future__ import annotations

from tests.transforms.write.manual_clock import ManualClock
from transforms.write.keyed.attempts import Drain, DrainTime


def test_keys_of_a_destination_that_takes_nothing_share_the_time_of_the_first() -> None:
    clock = ManualClock()
    drain = Drain(DrainTime(idle=10.0), clock)
    clock.advance(1000.0)
    drain.begin("000")
    assert drain.left() == 10.0
    clock.advance(10.0)
    drain.gave_up()
    drain.begin("001")
    assert drain.left() == 0.0
    clock.advance(9.0)
    drain.begin("002")
    assert drain.left() == -9.0


def test_keys_of_one_that_takes_what_it_is_given_have_their_time_each() -> None:
    clock = ManualClock()
    drain = Drain(DrainTime(idle=10.0, at_most=15.0), clock)
    drain.begin("000")
    clock.advance(8.0)
    drain.begin("001")
    assert drain.left() == 7.0
    clock.advance(30.0)
    drain.begin("002")
    assert drain.left() == drain.for_last_try == 2.0, "long after the limit it is tried once"


def test_a_key_that_ends_again_starts_it_anew_for_all() -> None:
    clock = ManualClock()
    drain = Drain(DrainTime(idle=10.0, at_most=15.0), clock)
    for key in ("000", "001"):
        assert not drain.begin(key)
    clock.advance(100.0)
    drain.gave_up()
    assert drain.begin("000")
    assert drain.left() == 10.0
    clock.advance(8.0)
    drain.gave_up()
    assert drain.begin("001")
    assert drain.left() == 2.0
    drain.progressed()
    assert drain.left() == 7.0


def test_progress_gives_the_time_anew_and_never_more_than_the_limit() -> None:
    clock = ManualClock()
    drain = Drain(DrainTime(idle=10.0, at_most=25.0), clock)
    drain.begin("000")
    for left in (10.0, 9.0, 1.0):
        clock.advance(8.0)
        drain.progressed()
        assert drain.left() == left


def test_without_a_limit_progress_goes_on() -> None:
    clock = ManualClock()
    drain = Drain(DrainTime(idle=10.0), clock)
    drain.begin("000")
    for _ in range(1000):
        assert drain.left() == 10.0
        clock.advance(9.0)
        drain.progressed()
