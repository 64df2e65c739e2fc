"""The range and its tracker: checkpoints only, fixed bytes, sizes that are what waits."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from transforms.feed.worker.range import OPEN_END, FeedRange, FeedRangeCoder
from transforms.feed.worker.read import FeedRangeProvider, FeedRangeTracker

SESSION = bytes(range(16))
RANGE = FeedRange(1, SESSION, 100, complete_until=5.5)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99, 1.0])
def test_a_running_range_is_not_split(fraction: float) -> None:
    tracker = FeedRangeTracker(RANGE)
    assert tracker.try_claim(replace(RANGE, start=150))
    assert tracker.try_split(fraction) is None
    assert tracker.current_restriction() == RANGE
    assert tracker.try_claim(replace(RANGE, start=160))


def test_a_checkpoint_leaves_what_follows_the_last_claim() -> None:
    tracker = FeedRangeTracker(RANGE)
    left = replace(RANGE, start=150, complete_until=6.0)
    assert tracker.try_claim(left)
    primary, residual = tracker.try_split(0)
    assert residual == left
    assert (primary.session, primary.start, primary.stop) == (SESSION, 100, 150)
    assert tracker.current_restriction() == primary
    assert not tracker.try_claim(replace(left, start=160))
    assert tracker.try_split(0) is None
    assert tracker.check_done()


def test_a_checkpoint_before_any_claim_leaves_everything() -> None:
    tracker = FeedRangeTracker(RANGE)
    primary, residual = tracker.try_split(0)
    assert residual == RANGE
    assert primary.finished
    assert tracker.check_done()


def test_after_a_take_over_both_parts_name_the_new_session() -> None:
    tracker = FeedRangeTracker(RANGE)
    tracker.try_claim(replace(RANGE, session=b"n" * 16, start=7))
    primary, residual = tracker.try_split(0)
    assert (primary.session, primary.start, primary.stop) == (b"n" * 16, 0, 7)
    assert (residual.session, residual.start, residual.stop) == (b"n" * 16, 7, OPEN_END)


def test_it_is_unbounded_and_done_once_its_end_is_claimed() -> None:
    tracker = FeedRangeTracker(RANGE)
    assert not tracker.is_bounded()
    with pytest.raises(ValueError, match="not read to its end"):
        tracker.check_done()
    tracker.try_claim(RANGE.finish())
    assert tracker.check_done()
    assert tracker.try_split(0) is None


def test_progress_and_size_are_what_waits_in_this_process_and_not_the_open_range() -> None:
    provider = FeedRangeProvider()
    assert FeedRangeTracker(RANGE).current_progress().remaining_work == 0
    assert provider.restriction_size(1, RANGE) == 0
    assert list(provider.split(1, RANGE)) == [RANGE]
    assert provider.initial_restriction(3) == FeedRange(3)


def test_a_drain_marks_the_range_for_its_owner() -> None:
    assert FeedRangeProvider().truncate(1, RANGE) == replace(RANGE, draining=True)


@pytest.mark.parametrize(
    "value", [FeedRange(0), RANGE, FeedRange(4, SESSION, 2**62, 2**62 + 1, 1e9, 2e9, draining=True)]
)
def test_the_coder_gives_back_what_it_was_given(value: FeedRange) -> None:
    coder = pickle.loads(pickle.dumps(FeedRangeProvider().restriction_coder()))
    assert coder.decode(coder.encode(value)) == value


def test_the_coders_bytes_are_fixed() -> None:
    # A running job is updated with these bytes in its checkpoint.
    encoded = bytes.fromhex(
        "01 00 00000001 0000000000000064 7fffffffffffffff 4016000000000000 0000000000000000"
    )
    assert FeedRangeCoder().encode(RANGE) == encoded + SESSION
    assert FeedRangeCoder().encode(replace(RANGE, draining=True))[1] == 1


@pytest.mark.parametrize("other", [b"", bytes([2]) + bytes(38)])
def test_another_versions_bytes_are_refused(other: bytes) -> None:
    with pytest.raises(ValueError, match="this program reads 1"):
        FeedRangeCoder().decode(other)
