"""BatchPolicy and the open batches, without Beam."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence

import pytest

from transforms.batch import MAX_OPEN, MAX_OPEN_BYTES, BatchPolicy, OpenBatches
from transforms.event import Batch, Event, batch_id


def event(number: int, size: int = 10, created_at: str = "") -> Event:
    return Event(f"evt_{number:04d}", "grant.created", created_at, b"x" * size)


def events(first: int, count: int, size: int = 10) -> list[Event]:
    return [event(number, size) for number in range(first, first + count)]


def raw_sizes(some: Sequence[Event]) -> list[int]:
    return [len(one.raw) for one in some]


def open_batches(max_events: int = 100, max_bytes: int = 10_000, max_age: float = 5.0) -> OpenBatches:
    return OpenBatches(BatchPolicy(max_events, max_bytes, max_age), raw_sizes)


def ids(batches: list[Batch]) -> list[list[str]]:
    return [[one.id for one in batch.events] for batch in batches]


def test_max_events_closes_within_and_across_chunks() -> None:
    batches = open_batches(max_events=3)
    assert [len(b.events) for b in batches.add_chunk(events(0, 7), 0, 0.0)] == [3, 3]
    closed = batches.add_chunk(events(7, 2), 7, 0.0)
    assert [list(b.offsets) for b in closed] == [[6, 7, 8]]
    assert batches.events == 0
    assert batches.deadline() is None


def test_max_bytes_is_never_exceeded() -> None:
    batches = open_batches(max_bytes=25)
    closed = batches.add_chunk(events(0, 5), 0, 0.0) + batches.flush()
    assert [sum(raw_sizes(b.events)) for b in closed] == [20, 20, 10]


def test_a_batch_of_exactly_max_bytes_closes_at_once() -> None:
    batches = open_batches(max_bytes=20)
    assert ids(batches.add_chunk(events(0, 2), 0, 0.0)) == [["evt_0000", "evt_0001"]]


def test_an_event_larger_than_max_bytes_goes_alone() -> None:
    batches = open_batches(max_bytes=25)
    chunk = [event(0), event(1, size=100), event(2)]
    closed = batches.add_chunk(chunk, 0, 0.0)
    assert ids(closed) == [["evt_0000"], ["evt_0001"]]
    assert ids(batches.flush()) == [["evt_0002"]]


def test_max_age_counts_from_the_first_event() -> None:
    batches = open_batches(max_age=5.0)
    batches.add_chunk(events(0, 1), 0, 100.0)
    batches.add_chunk(events(1, 1), 1, 104.0)
    assert batches.deadline() == 105.0
    assert batches.close_due(104.9) == []
    assert ids(batches.close_due(105.0)) == [["evt_0000", "evt_0001"]]


def test_the_end_of_the_window_closes() -> None:
    batches = open_batches(max_age=60.0)
    batches.add_chunk(events(0, 1), 0, 100.0, window_end=300.0, closes_at=110.0)
    assert batches.deadline() == 110.0
    (batch,) = batches.close_due(110.0)
    assert batch.window_end == 300.0


def test_a_later_windows_chunk_closes_earlier_windows_and_never_joins_them() -> None:
    batches = open_batches()
    batches.add_chunk(events(0, 2), 0, 0.0, window_end=300.0)
    assert ids(batches.add_chunk(events(2, 2), 2, 0.0, window_end=600.0)) == [["evt_0000", "evt_0001"]]
    batches.add_chunk(events(4, 1), 4, 0.0, window_end=300.0)  # out of order: a batch of its own
    assert sorted(b.window_end for b in batches.flush()) == [300.0, 600.0]


def test_partitions_never_mix() -> None:
    batches = OpenBatches(BatchPolicy(100, 10_000, 5.0), raw_sizes, lambda one: one.created_at[:13])
    chunk = [
        event(i, created_at=f"2026-03-01T{hour}:30:00Z") for i, hour in enumerate(["12", "12", "13", "12"])
    ]
    assert batches.add_chunk(chunk, 0, 0.0) == []
    closed = batches.flush()
    assert [(b.partition, list(b.offsets)) for b in closed] == [
        ("2026-03-01T12", [0, 1, 3]),
        ("2026-03-01T13", [2]),
    ]


def test_the_oldest_batch_closes_when_too_many_are_open() -> None:
    batches = OpenBatches(BatchPolicy(100, 10_000, 5.0), raw_sizes, lambda one: one.id)
    closed = batches.add_chunk(events(0, MAX_OPEN + 2), 0, 0.0)
    assert ids(closed) == [["evt_0000"], ["evt_0001"]]


def test_the_oldest_batch_closes_when_the_open_ones_hold_too_many_bytes() -> None:
    batches = OpenBatches(BatchPolicy(100, MAX_OPEN_BYTES, 5.0), raw_sizes, lambda one: one.id)
    big = MAX_OPEN_BYTES // 2 - 1
    assert batches.add_chunk([event(0, big), event(1, big)], 0, 0.0) == []
    assert ids(batches.add_chunk([event(2, 10)], 2, 0.0)) == [["evt_0000"]]


def test_sealed_offsets_are_left_out() -> None:
    batches = open_batches()
    batches.add_chunk(events(0, 6), 40, 0.0, skip={41, 44, 99})
    (batch,) = batches.flush()
    assert list(batch.offsets) == [40, 42, 43, 45]
    assert [one.id for one in batch.events] == ["evt_0000", "evt_0002", "evt_0003", "evt_0005"]
    assert batches.add_chunk(events(0, 2), 50, 0.0, skip=range(50, 52)) == []
    assert batches.deadline() is None


@pytest.mark.parametrize("seed", range(20))
def test_any_stream_is_cut_as_one_event_at_a_time_would_be(seed: int) -> None:
    dice = random.Random(seed)
    policy = BatchPolicy(dice.randint(1, 8), dice.randint(5, 60), 5.0)
    batches = OpenBatches(policy, raw_sizes, lambda one: one.created_at)
    arriving = [event(i, dice.randint(0, 40), dice.choice("ab")) for i in range(200)]
    closed: list[Batch] = []
    start = 0
    while start < len(arriving):
        stop = start + dice.randint(1, 30)
        closed += batches.add_chunk(arriving[start:stop], start, 0.0)
        start = stop
    closed += batches.flush()
    assert sorted(offset for batch in closed for offset in batch.offsets) == list(range(200))
    by_hand: dict[str, list[list[Event]]] = {"a": [[]], "b": [[]]}
    for one in arriving:
        current = by_hand[one.created_at][-1]
        size = sum(raw_sizes(current))
        if current and (size + len(one.raw) > policy.max_bytes or policy.full(len(current), size)):
            by_hand[one.created_at].append([])
        by_hand[one.created_at][-1].append(one)
    for partition, expected in by_hand.items():
        assert [b.events for b in closed if b.partition == partition] == expected


def test_the_identity_is_that_of_the_events_in_any_order() -> None:
    one, other = Batch(events(0, 3)), Batch(list(reversed(events(0, 3))))
    assert one.id == other.id == batch_id(["evt_0002", "evt_0000", "evt_0001"])
    assert one.id == "2a5347f3fe87dd429a1472bb751c2d0c"  # pinned: seals on disk hold it
    assert batch_id(["ab", "c"]) != batch_id(["a", "bc"])


@pytest.mark.parametrize("count", [0, 1, 75, 76, 1000])
def test_an_id_is_the_same_in_any_release_as_seals_on_disk_hold_it(count: int) -> None:
    ids = [f"evt_01hv3c9{number:016d}" for number in range(count)]
    lines = "".join(f"{one}\n" for one in ids).encode()
    assert batch_id(reversed(ids)) == hashlib.blake2b(lines, digest_size=16).hexdigest()


@pytest.mark.parametrize("wrong", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, -1.0), (1, 1, math.nan)])
def test_a_policy_under_which_no_batch_can_exist_is_refused(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="max_events"):
        BatchPolicy(*wrong)
