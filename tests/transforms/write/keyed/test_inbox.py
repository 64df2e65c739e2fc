"""The inbox: blocks join batches unopened; what this process knows of it need not be read."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import pytest

from tests.transforms.write.drivers import OnTimers
from tests.transforms.write.keyed.cluster import KEY, delivered
from tests.transforms.write.service import events
from transforms.batch import BatchPolicy
from transforms.write.keyed import delivery

TEN = BatchPolicy(max_events=10, max_bytes=10_000, max_age=5.0)


@pytest.fixture
def cluster() -> Iterator[OnTimers]:
    cluster = OnTimers(TEN)
    yield cluster
    assert cluster.close()


def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks were opened on arrival, as an item each."""
    found: list[int] = []
    take_apart = delivery.KeyedDelivery._take_apart

    def noted(*arguments: object) -> object:
        found.append(1)
        return take_apart(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(delivery.KeyedDelivery, "_take_apart", noted)
    return found


def test_blocks_join_a_batch_unopened_until_one_does_not_fit(
    cluster: OnTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(monkeypatch)
    for first, count in ((0, 4), (4, 5), (9, 1)):
        cluster.arrive(events(first, count))
    assert found == []
    assert [each.count for each in cluster.key_state().sealed] == [10]
    cluster.arrive(events(10, 7))
    cluster.arrive(events(17, 7))  # cut: three fill the batch, four begin the next
    assert found == [1]
    assert [each.count for each in cluster.key_state().sealed] == [10, 10]
    assert [each.count for each in cluster.key_state().open] == [4]
    cluster.wait(5.0)
    assert [len(write.ids) for write in cluster.service.writes] == [10, 10, 4]
    assert delivered(cluster) == [one.id for one in events(0, 24)]


def test_a_full_block_is_a_batch_and_what_is_open_goes_before_it(
    cluster: OnTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(monkeypatch)
    cluster.arrive(events(0, 3))
    cluster.arrive(events(3, 25))
    assert found == []
    assert [each.count for each in cluster.key_state().sealed] == [3, 10, 10]
    assert [each.count for each in cluster.key_state().open] == [5]


def test_bytes_close_a_batch_as_events_do(cluster: OnTimers) -> None:
    cluster.add(events(0, 3, size=3000))
    cluster.add(events(3, 3, size=3000))
    assert [len(write.ids) for write in cluster.service.writes] == [3]
    cluster.wait(5.0)
    assert [len(write.ids) for write in cluster.service.writes] == [3, 3]


def test_a_later_window_says_that_the_earlier_ones_are_over(cluster: OnTimers) -> None:
    end = cluster.clock.now() + 100.0
    cluster.arrive(events(0, 3), window_end=end)
    cluster.arrive(events(3, 3), window_end=end + 100.0)
    assert [each.count for each in cluster.key_state().sealed] == [3]
    assert [each.window_end for each in cluster.key_state().open] == [end + 100.0]


def test_partitions_are_batches_of_their_own_and_many_of_them_are_sorted_by_the_delivery(
    cluster: OnTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(monkeypatch)
    few = [event for n in range(12) for event in events(n, 1, partition=f"p{n % 3}")]
    cluster.arrive(few)
    assert (found, len(cluster.key_state().open)) == ([], 3)
    many = [event for n in range(12, 52) for event in events(n, 1, partition=f"p{n}")]
    cluster.arrive(many)
    assert found == [1]
    cluster.wait(5.0)
    assert delivered(cluster) == [one.id for one in events(0, 52)]
    for write in cluster.service.writes:
        assert len({event.type for event in write.batch.events}) == 1


def test_what_this_process_took_in_is_not_read_to_be_attempted(cluster: OnTimers) -> None:
    for first in range(0, 100, 5):
        cluster.add(events(first, 5))
    assert delivered(cluster) == [one.id for one in events(0, 100)]
    assert cluster.bytes_read == 0


def test_another_process_reads_it(cluster: OnTimers) -> None:
    cluster.arrive(events(0, 13))
    cluster.new_process()
    cluster.settle()
    assert cluster.bytes_read > 0
    cluster.wait(5.0)
    assert delivered(cluster) == [one.id for one in events(0, 13)]


def test_what_a_bundle_that_failed_had_taken_in_is_forgotten(cluster: OnTimers) -> None:
    cluster.arrive(events(0, 5))
    with contextlib.suppress(ZeroDivisionError), cluster.bundle() as (at_work, beam_state):
        for element in cluster.sharded(events(5, 5)):
            at_work.receive(KEY, element, beam_state, lambda at: None)
        raise ZeroDivisionError
    cluster.arrive(events(20, 5))
    cluster.settle()
    assert delivered(cluster) == [one.id for one in [*events(0, 5), *events(20, 5)]]


def test_a_state_that_the_runner_went_back_to_is_what_counts(cluster: OnTimers) -> None:
    """Flink goes back to a checkpoint while the workers' process goes on."""
    cluster.arrive(events(0, 5))
    before, timer = copy.deepcopy(cluster.store), cluster.timer
    cluster.add(events(5, 5))
    cluster.add(events(10, 3))
    cluster.receipts.clear()
    cluster.store, cluster.timer = before, timer
    cluster.arrive(events(50, 5))
    cluster.settle()
    assert delivered(cluster) == [one.id for one in [*events(0, 5), *events(50, 5)]]


def test_what_is_delivered_is_not_held_in_memory_until_the_bag_is_cleared(cluster: OnTimers) -> None:
    cluster.add(events(0, 3, partition="slow"))
    cluster.add(events(3, 10, partition="quick"))
    key_state = cluster.key_state()
    assert key_state.done_with, "the bag has been cleared"
    with cluster.bundle() as (_, beam_state):
        inbox, _ = cluster.attempts.known_keys.open(KEY, beam_state, key_state)
    assert [part.count for part in inbox.known or ()] == [3]


def test_what_is_done_with_leaves_the_bag(cluster: OnTimers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.write.keyed.inbox.TIDY_BYTES", 1000)
    most = 0
    for first in range(0, 4000, 8):
        cluster.add(events(first, 4, size=300, partition="quick"))
        cluster.add(events(first + 4, 4, size=300, partition="slow" if first % 400 else "once"))
        most = max(most, sum(map(len, cluster.store.get("inbox", ()))))
    assert most < 6000
