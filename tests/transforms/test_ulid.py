"""Event ids as 16 bytes and back."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from pipelines.practice.events import generate
from transforms import ulid


def test_ids_come_back_as_they_were_with_their_time() -> None:
    ids = [json.loads(event)["id"] for event in islice(generate(1, now=1_772_366_400.123), 1000)]
    packed = [ulid.pack(each) or b"" for each in ids]
    assert [ulid.unpack(each) for each in packed] == ids
    assert {ulid.seconds(each) for each in packed} == {1_772_366_400.123}
    assert sorted(ids) == [ulid.unpack(each) for each in sorted(packed)]


@pytest.mark.parametrize("text", ["0" * 26, "7" + "Z" * 25])
def test_the_smallest_and_the_largest(text: str) -> None:
    packed = ulid.pack(f"evt_{text}")
    assert packed is not None
    assert len(packed) == ulid.SIZE
    assert ulid.unpack(packed) == f"evt_{text}"


@pytest.mark.parametrize(
    "other", ["", "evt_1", "evt_" + "0" * 25 + "I", "evt_" + "a" * 26, "evt_8" + "Z" * 25, "grnt_" + "0" * 26]
)
def test_an_id_of_another_form_has_no_bytes(other: str) -> None:
    assert ulid.pack(other) is None
