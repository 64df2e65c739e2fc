"""Sets of offsets as ranges, against plain sets."""

from __future__ import annotations

import random

import pytest

from transforms.feed.journal.ranges import (
    Range,
    merge,
    offsets_in,
    pack,
    size,
    subtract,
    to_ranges,
    unpack,
)


def some_offsets(rng: random.Random) -> set[int]:
    """Runs and single ones, dense and sparse."""
    top = rng.choice([10, 60, 300])
    return set(rng.sample(range(top), rng.randint(0, top)))


@pytest.mark.parametrize("seed", range(50))
def test_ranges_are_the_set_they_were_made_from(seed: int) -> None:
    rng = random.Random(seed)
    offsets = some_offsets(rng)
    ranges = to_ranges(sorted(offsets))
    assert list(offsets_in(ranges)) == sorted(offsets)
    assert size(ranges) == len(offsets)
    assert unpack(pack(ranges)) == ranges
    shuffled = rng.sample(ranges, len(ranges))
    assert merge(shuffled) == ranges


@pytest.mark.parametrize("seed", range(50))
def test_subtract_is_set_difference_whatever_the_order(seed: int) -> None:
    rng = random.Random(seed)
    left, gone = some_offsets(rng), some_offsets(rng)
    left_ranges, gone_ranges = to_ranges(sorted(left)), to_ranges(sorted(gone))
    difference = subtract(
        rng.sample(left_ranges, len(left_ranges)), rng.sample(gone_ranges, len(gone_ranges))
    )
    assert list(offsets_in(difference)) == sorted(left - gone)


@pytest.mark.parametrize("seed", range(30))
def test_merge_joins_what_touches(seed: int) -> None:
    rng = random.Random(seed)
    offsets = sorted(some_offsets(rng))
    cut: list[Range] = [(offset, offset + 1) for offset in offsets]
    assert merge(rng.sample(cut, len(cut))) == to_ranges(offsets)


def test_subtracting_many_ranges_from_many_takes_linear_time() -> None:
    """A batch of one partition of two has as many ranges as events: in quadratic time this takes minutes."""
    even = [(n, n + 1) for n in range(0, 200_000, 2)]
    assert subtract(even, even[1:]) == [(0, 1)]


def test_a_torn_set_is_found() -> None:
    with pytest.raises(ValueError, match="torn"):
        unpack(pack([(1, 2), (5, 9)])[:-8])
