"""How much a delivery takes in ahead of its destination."""

from __future__ import annotations

from transforms.batch import BatchPolicy
from transforms.write.delivery.outbox import MAX_UNSETTLED_BATCHES, MAX_UNSETTLED_BYTES, max_unsettled, room

SMALL = BatchPolicy(max_events=100, max_bytes=1_000_000)
LARGE = BatchPolicy(max_events=10_000, max_bytes=64_000_000)


def test_small_batches_are_bounded_by_their_number() -> None:
    assert room(SMALL, 64, 0, 0, 280.0, waiting=False) == 6400
    assert room(SMALL, 64, 32, 32 * 28_000, 280.0, waiting=True) == 3200
    assert room(SMALL, 64, 64, 64 * 28_000, 280.0, waiting=True) == 0


def test_large_batches_are_bounded_by_their_bytes() -> None:
    assert room(LARGE, 64, 0, 0, 0.0, waiting=False) == MAX_UNSETTLED_BYTES // 300
    assert room(LARGE, 64, 2, MAX_UNSETTLED_BYTES, 280.0, waiting=True) == 0
    assert room(LARGE, 64, 2, MAX_UNSETTLED_BYTES // 2, 10_000.0, waiting=True) == 300


def test_one_full_batch_always_fits_when_nothing_waits() -> None:
    assert room(LARGE, 64, 0, 0, 10_000.0, waiting=False) == 6400
    assert room(SMALL, 64, 0, 0, 1e9, waiting=False) == 1


def test_nothing_more_is_taken_in_before_half_is_free() -> None:
    assert room(SMALL, 64, 33, 33 * 28_000, 280.0, waiting=True) == 0
    assert room(LARGE, 64, 10, MAX_UNSETTLED_BYTES * 5 // 8, 10_000.0, waiting=True) == 0


def test_many_writers_have_a_few_batches_each() -> None:
    assert max_unsettled(1) == MAX_UNSETTLED_BATCHES
    assert max_unsettled(40) == 160
