"""The restriction of the feed: claimed by last offsets, split by nothing but a checkpoint."""

from __future__ import annotations

import pickle

import pytest

from transforms.feed.source import (
    OPEN_END,
    FeedRestriction,
    FeedRestrictionCoder,
    FeedRestrictionProvider,
    FeedRestrictionTracker,
)


@pytest.fixture
def tracker() -> FeedRestrictionTracker:
    return FeedRestrictionTracker(FeedRestriction("splunk", 100))


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99, 1.0])
def test_a_running_restriction_is_not_split(tracker: FeedRestrictionTracker, fraction: float) -> None:
    assert tracker.try_claim(149)
    assert tracker.try_split(fraction) is None
    assert tracker.current_restriction() == FeedRestriction("splunk", 100)


def test_a_checkpoint_leaves_what_follows_the_last_claimed_chunk(tracker: FeedRestrictionTracker) -> None:
    assert tracker.try_claim(149)  # a chunk of offsets 100 to 149
    primary, residual = tracker.try_split(0)
    assert (primary.start, primary.stop) == (100, 150)
    assert residual == FeedRestriction("splunk", 150)
    assert not tracker.try_claim(199)
    tracker.check_done()


def test_a_checkpoint_before_any_claim_leaves_everything(tracker: FeedRestrictionTracker) -> None:
    primary, residual = tracker.try_split(0)
    assert (primary.start, primary.stop) == (100, 100)
    assert residual == FeedRestriction("splunk", 100)
    tracker.check_done()


def test_it_is_unbounded_and_done_once_its_last_offset_is_claimed(tracker: FeedRestrictionTracker) -> None:
    assert not tracker.is_bounded()
    tracker.try_claim(OPEN_END - 1)
    tracker.check_done()


def test_progress_and_size_are_what_is_pending_and_not_the_open_range(
    tracker: FeedRestrictionTracker,
) -> None:
    assert tracker.current_progress().remaining_work == 0  # no source of that name in this process
    assert FeedRestrictionProvider().restriction_size("splunk", FeedRestriction("splunk")) == 0
    assert list(FeedRestrictionProvider().split("splunk", FeedRestriction("splunk"))) == [
        FeedRestriction("splunk")
    ]


@pytest.mark.parametrize("restriction", [FeedRestriction("a"), FeedRestriction("lane/ü", 2**62, 2**62 + 1)])
def test_the_coder_gives_back_what_it_was_given(restriction: FeedRestriction) -> None:
    coder = pickle.loads(pickle.dumps(FeedRestrictionCoder()))
    assert coder.decode(coder.encode(restriction)) == restriction


def test_the_coders_bytes_are_fixed() -> None:
    # A running job is updated with these bytes in its checkpoint.
    encoded = bytes.fromhex("01 000000000000000a 7fffffffffffffff") + b"splunk"
    assert FeedRestrictionCoder().encode(FeedRestriction("splunk", 10)) == encoded


def test_another_versions_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        FeedRestrictionCoder().decode(bytes([2]) + bytes(16))
