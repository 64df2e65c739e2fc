"""The restriction of the feed: claimed by last offsets, split by nothing but a checkpoint."""

from __future__ import annotations

import pickle
from typing import cast

import pytest

from transforms.feed.source import (
    OPEN_END,
    FeedRestriction,
    FeedRestrictionCoder,
    FeedRestrictionTracker,
    ReadJournal,
    Source,
)
from transforms.in_process import Ticket


@pytest.fixture
def tracker() -> FeedRestrictionTracker:
    return FeedRestrictionTracker(FeedRestriction("splunk", 100), lambda position: 1_000 - position)


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


def test_progress_is_what_is_pending_and_not_the_open_range(tracker: FeedRestrictionTracker) -> None:
    assert tracker.current_progress().remaining_work == 900
    assert tracker.try_claim(149)
    assert tracker.current_progress().remaining_work == 850


class _Pending:
    def pending_bytes(self, position: int) -> int:
        return 1_000 - position


def test_the_dofn_is_its_own_restriction_provider_and_asks_its_source_once_it_is_set_up() -> None:
    ticket = Ticket(cast(Source, _Pending()))
    read = pickle.loads(pickle.dumps(ReadJournal(ticket)))
    whole = read.initial_restriction("splunk")
    assert whole == FeedRestriction("splunk")
    assert list(read.split("splunk", whole)) == [whole]
    assert read.restriction_size("splunk", FeedRestriction("splunk", 40)) == 0, "not set up yet"
    read.setup()
    assert read.restriction_size("splunk", FeedRestriction("splunk", 40)) == 960
    assert read.create_tracker(whole).current_progress().remaining_work == 1_000
    read.teardown()
    assert read.restriction_size("splunk", FeedRestriction("splunk", 40)) == 0


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
