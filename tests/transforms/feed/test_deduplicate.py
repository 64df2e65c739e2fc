"""Deduplicate's thinking: keys by second, packed ids, what is new and what contradicts."""

from __future__ import annotations

import pickle

import pytest

from transforms.event import Chunk, Event
from transforms.feed import deduplicate
from transforms.feed.deduplicate import HASHED_KEYS, PackedIdsCoder, by_second, key_of, sort_out

# 2026-03-01T12:00:00Z in milliseconds, as the ten characters of a ULID
TIME = 1_772_366_400_000
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(milliseconds: int, tail: str = "0" * 16) -> str:
    digits = ""
    for _ in range(10):
        digits = DIGITS[milliseconds % 32] + digits
        milliseconds //= 32
    return f"evt_{digits}{tail}"


def event(event_id: str, raw: bytes = b"{}") -> Event:
    return Event(event_id, "t", "", raw)


@pytest.mark.parametrize("milliseconds", [0, 999, TIME, TIME + 999, 2**48 - 1])
def test_the_key_of_a_ulid_is_its_second(milliseconds: int) -> None:
    assert key_of(ulid(milliseconds)) == milliseconds // 1000


def test_every_digit_of_the_alphabet_counts() -> None:
    keys = {key_of(ulid(0)[:11] + digit + "00" + "0" * 16) for digit in DIGITS}
    assert len(keys) == 32
    assert all(key >= 0 for key in keys)


@pytest.mark.parametrize(
    "event_id", ["evt_1", "", "evt_ü", ulid(TIME).lower(), ulid(TIME)[:-1], "evt_U1JXYZ0000" + "0" * 16]
)
def test_an_id_that_is_no_ulid_has_one_of_few_keys_below_zero(event_id: str) -> None:
    assert -HASHED_KEYS <= key_of(event_id) < 0
    assert key_of(event_id) == key_of(event_id)


def test_ids_without_a_time_are_spread() -> None:
    assert len({key_of(f"evt_{number}") for number in range(1000)}) == HASHED_KEYS


def test_a_chunk_is_cut_by_second_and_keeps_the_rest_of_itself() -> None:
    first, second, third = event(ulid(TIME)), event(ulid(TIME + 1000)), event(ulid(TIME + 1))
    parts = dict(by_second(Chunk([first, second, third], 7, 5.5)))
    assert parts == {
        TIME // 1000: Chunk([first, third], 7, 5.5),
        TIME // 1000 + 1: Chunk([second], 7, 5.5),
    }
    whole = Chunk([first, third])
    [(_, part)] = by_second(whole)
    assert part is whole
    assert list(by_second(Chunk())) == []


def test_copies_are_dropped_also_within_one_chunk_and_contradictions_kept_aside() -> None:
    known: dict[int, int] = {}
    a, b, other = event("a", b"1"), event("b", b"2"), event("a", b"3")
    assert sort_out([a, b, a], known)[:2] == ([a, b], [])
    fresh, conflicts, packed = sort_out([b, other, a], known)
    assert (fresh, conflicts, packed) == ([], [other], b"")


def test_what_was_packed_is_known_again() -> None:
    events = [event(str(number), b"%d" % number) for number in range(100)]
    _, _, packed = sort_out(events[:60], {})
    _, _, more = sort_out(events[60:], {})
    assert len(packed) == 60 * 16
    coder = pickle.loads(pickle.dumps(PackedIdsCoder()))
    known = deduplicate._unpack(coder.decode(coder.encode(block)) for block in (packed, more))
    assert sort_out(events, known)[:2] == ([], [])


def test_the_packed_bytes_are_fixed() -> None:
    # A running job is updated with these bytes in its state.
    _, _, packed = sort_out([event("evt_1", b"{}")], {})
    assert PackedIdsCoder().encode(packed).hex() == "015fb04ae18de16bd1165c7027e1cd4913"


@pytest.mark.parametrize("other", [b"", b"\x02abc"])
def test_another_versions_bytes_are_refused(other: bytes) -> None:
    with pytest.raises(ValueError, match="this program reads 1"):
        PackedIdsCoder().decode(other)
