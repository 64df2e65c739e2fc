"""The packed id set, against a plain dict."""

from __future__ import annotations

import logging
import random
import struct

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from tests.transforms.feed.journal.support import event, events
from transforms.event import Event
from transforms.feed.journal import seen_ids
from transforms.feed.journal.seen_ids import VALUE_BITS, IdFilter, SeenIds, Sifted

HORIZON = 100.0


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing and merging happen after tens of ids instead of after tens of thousands."""
    monkeypatch.setattr(seen_ids, "RECENT", 16)
    monkeypatch.setattr(seen_ids, "RUN", 128)


def take(seen: SeenIds, taken: list[Event], first: int, now: float = 0.0) -> Sifted:
    result = seen.sort_out(taken)
    if result.fresh:
        seen.add(result, first + len(result.fresh) - 1, now)
    return result


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_a_dict_finds(seed: int) -> None:
    rng = random.Random(seed)
    seen, plain = SeenIds(HORIZON), dict[str, bytes]()
    end = 0
    for _ in range(60):
        taken = [
            event(rng.randint(0, 800), rng.choice([b"", b"", b"", b"x"])) for _ in range(rng.randint(1, 40))
        ]
        fresh: list[Event] = []
        conflicts: list[Event] = []
        duplicates = 0
        for one in taken:
            if one.id not in plain:
                plain[one.id] = one.raw
                fresh.append(one)
            elif plain[one.id] == one.raw:
                duplicates += 1
            else:
                conflicts.append(one)
        result = take(seen, taken, end)
        end += len(result.fresh)
        assert (list(result.fresh), result.conflicts, result.duplicates) == (fresh, conflicts, duplicates)
    assert len(seen) == len(plain) == end


@pytest.mark.parametrize("seed", range(10))
def test_loaded_ids_are_the_ones_that_were_packed(seed: int) -> None:
    rng = random.Random(seed)
    seen, rows, end = SeenIds(HORIZON), list[tuple[int, bytes]](), 0
    while end < 1000:
        result = take(seen, events(end, end + rng.randint(1, 60)), end)
        end += len(result.fresh)
        rows.append((end - 1, result.packed))
    loaded = SeenIds(HORIZON)
    loaded.load(rows, 0.0)
    assert len(loaded) == end
    again = loaded.sort_out([*events(0, end), event(end)])
    assert [one.id for one in again.fresh] == [event(end).id]
    assert again.duplicates == end
    assert loaded.sort_out([event(5, b"other")]).conflicts == [event(5, b"other")]


def test_a_journal_of_before_has_more_bits_of_each_event() -> None:
    keys, values = ([xxh3_64_intdigest(part) for part in parts] for parts in ([b"evt_1"], [b"{}"]))
    assert values[0] > VALUE_BITS
    seen = SeenIds(HORIZON)
    seen.load([(0, struct.pack("<2Q", *keys, *values))], 0.0)
    assert seen.sort_out([Event("evt_1", "", "", b"{}")]).duplicates == 1
    assert len(seen.sort_out([Event("evt_1", "", "", b"{} ")]).conflicts) == 1


def test_nothing_changes_until_the_events_are_added() -> None:
    seen = SeenIds(HORIZON)
    for _ in range(2):
        assert len(seen.sort_out(events(0, 10)).fresh) == 10
    assert len(seen) == 0


def test_ids_expire_together_with_their_run_and_only_when_trimmed() -> None:
    seen = SeenIds(HORIZON)
    for number in range(6):
        take(seen, events(number * 20, number * 20 + 20), number * 20, now=number * 10.0)
    assert seen.expire(HORIZON, trimmed=0) == 0
    assert seen.expire(HORIZON + 25.0, trimmed=120) == 60
    assert len(seen.sort_out(events(0, 120)).fresh) == 60
    assert seen.expire(HORIZON + 50.0, trimmed=99) == 80
    assert seen.expire(HORIZON + 50.0, trimmed=120) == 120
    assert len(seen) == 0


def test_more_ids_than_the_bound_forget_the_oldest_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    seen = SeenIds(HORIZON, most=300)
    with caplog.at_level(logging.WARNING, logger="grantex.journal"):
        for start in range(0, 2000, 20):
            take(seen, events(start, start + 20), start)
            assert len(seen) <= 300 + 20
    assert sum("--dedupe_horizon" in record.message for record in caplog.records) == 1
    assert seen.dropped_early >= 1700 - 20
    assert seen.sort_out(events(1950, 2000)).duplicates == 50
    assert seen.expire(0.0, trimmed=0) == seen.dropped_early  # their rows may go


def test_a_bounded_load_keeps_the_youngest() -> None:
    rows = [
        (start + 19, SeenIds(HORIZON).sort_out(events(start, start + 20)).packed)
        for start in range(0, 2000, 20)
    ]
    seen = SeenIds(HORIZON, most=300)
    seen.load(rows, 0.0)
    assert len(seen) <= 300
    assert seen.sort_out(events(1900, 2000)).duplicates == 100
    assert seen.expire(0.0, trimmed=0) == 2000 - len(seen)


def test_the_filter_never_leaves_out_an_id_that_was_marked() -> None:
    rng = np.random.default_rng(3)
    marked, others = (rng.integers(0, 2**64, 200_000, dtype=np.uint64) for _ in range(2))
    id_filter = IdFilter(ids=200_000)
    id_filter.mark(marked)
    assert (id_filter.may_hold(marked) == marked).all()
    assert len(id_filter.may_hold(others)) < 13_000


def test_the_filter_grows_with_the_ids_and_finds_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_ids, "LEAST_BITS", 8)
    seen, sizes = SeenIds(HORIZON), set()
    for start in range(0, 3000, 20):
        take(seen, events(start, start + 20), start)
        sizes.add(seen._filter.most)
        assert seen._filter.marked <= seen._filter.most
    assert sorted(sizes) == [128, 512, 2048, 8192]
    assert seen.sort_out(events(0, 3020)).duplicates == 3000


def test_the_filter_is_made_anew_before_forgotten_ids_fill_it() -> None:
    seen = SeenIds(HORIZON, most=300)
    for start in range(0, 5000, 20):
        take(seen, events(start, start + 20), start)
    assert seen._filter.marked <= 600 + 40
    assert seen.sort_out(events(4950, 5000)).duplicates == 50
