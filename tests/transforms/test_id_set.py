"""Sets of ids in 16 bytes each, against Python's own sets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import ulid
from transforms.id_set import IdSet, among, as_bytes, key_of, keys_of

# Zeros at the end are what numpy takes off a text; ids of other forms stand by a hash.
PACKED = st.binary(min_size=16, max_size=16).map(lambda data: data[:12] + data[12:].replace(b"\x01", b"\0"))
IDS = st.one_of(
    PACKED.map(ulid.unpack),
    st.integers(0, 5).map(lambda n: ulid.unpack(bytes([1]) + b"\0" * (15 - n) + bytes(n))),
    st.text(min_size=1, max_size=5),
)


@settings(deadline=None)
@given(st.lists(IDS), st.lists(IDS))
def test_what_is_in_and_what_is_not(first: list[str], second: list[str]) -> None:
    known = IdSet()
    known.add(first)
    known.add(first[::2])
    keys = known.keys()
    assert len(keys) == len(set(first))
    assert {as_bytes(key) for key in keys} == {key_of(each) for each in first}
    assert among(keys_of(second), keys).tolist() == [each in set(first) for each in second]


def test_nothing_is_among_nothing() -> None:
    assert len(IdSet().keys()) == 0
    assert among(keys_of(["evt_1"]), keys_of([])).tolist() == [False]
