"""Exactly at each limit and one beyond it: of batches, of requests, and of single events."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from transforms.batch import BatchPolicy


def deliver(case: Case, directory: Path, policy: BatchPolicy, count: int) -> list[int]:
    """How many events each batch had."""
    lane = Lane(directory, case.destination(policy))
    lane.take(events(0, count))
    lane.run()
    assert lane.close()
    assert lane.status.retries == 0, lane.status.last_error
    assert case.ids().keys() == {event.id for event in events(0, count)}
    return [len(receipt.event_ids) for receipt in lane.receipts]


def test_max_events_exactly_and_one_more(case: Case, tmp_path: Path) -> None:
    assert deliver(case, tmp_path, BatchPolicy(max_events=12, max_age=1.0), 25) == [12, 12, 1]


@pytest.mark.parametrize(("less", "batches"), [(0, [8]), (1, [7, 1])])
def test_max_bytes_exactly_and_one_less(case: Case, tmp_path: Path, less: int, batches: list[int]) -> None:
    size = sum(map(case.destination().size, events(0, 8)))
    policy = BatchPolicy(max_bytes=size - less, max_age=1.0)
    assert deliver(case, tmp_path, policy, 8) == batches


def test_the_largest_requests_are_taken(case: Case, tmp_path: Path) -> None:
    """As many events as the service takes at a time and one more; none is refused for its request's size."""
    policy = case.biggest_policy()
    count = policy.max_events
    batches = deliver(case, tmp_path, policy, count + 1)
    assert batches == [count, 1]


def test_an_event_of_the_largest_size_and_one_byte_more(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("size")
    fits, over = case.largest(1), case.too_large(2)
    received = [*events(10, 3), fits, over, *events(20, 3)]
    lane = Lane(tmp_path, case.destination())
    lane.take(received)
    lane.run()
    assert lane.close()
    assert fits.id not in lane.dead
    assert fits.id not in case.differing(received)
    if case.cuts:
        assert case.differing(received) == [over.id]
        assert case.is_marked_as_cut(over)
    else:
        assert lane.dead == [over.id]
        assert "too_large" in lane.letters[0].cause or case.name.startswith("custom")
    row = tally.account(case, "oversized event", received, lane)
    assert row.repeated == 0
