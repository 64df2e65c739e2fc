"""Ids as numbers, many at once: the same as one by one."""

from __future__ import annotations

import random

import pytest

from transforms import ulid
from transforms.feed.journal.id_blocks import parse_ulids, ulid_texts

ULID = "evt_0123456789ABCDEFGHJKMNPQRS"


def some_ids(chance: random.Random, count: int, damaged: float) -> list[str]:
    """Ids of which so many are of another form: a character changed, added or taken away."""
    ids = []
    for _ in range(count):
        text = "evt_" + chance.choice("01234567") + "".join(chance.choices(ulid.CROCKFORD, k=25))
        if chance.random() < damaged:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(("", *"\n\0\x05 0Ie_é\ud800")) + text[at + chance.randrange(2) :]
        ids.append(text)
    return ids


def check_against_one_by_one(ids: list[str]) -> None:
    good, times, chosen = parse_ulids(ids)
    packed = [ulid.pack(each) for each in ids]
    assert good.tolist() == [each is not None for each in packed]
    rows = [int(at).to_bytes(6, "big") + row.tobytes() for at, row in zip(times, chosen, strict=True)]
    assert rows == [each for each in packed if each is not None]
    assert ulid_texts(times, chosen) == [text for text, fits in zip(ids, good, strict=True) if fits]


@pytest.mark.parametrize("damaged", [0.0, 0.1, 0.5, 1.0])
def test_many_ids_are_read_as_one_by_one(damaged: float) -> None:
    chance = random.Random(7)
    for count in [0, 1, 2, 3, 400, *range(100)]:
        check_against_one_by_one(some_ids(chance, count, damaged))


@pytest.mark.parametrize(
    "ids",
    [
        [f"{ULID}\n{ULID}", "", ULID[:-1]],  # as many characters as three ids, and two that look like ids
        [ULID[:-1], f"0{ULID}"],
        ["", f"{ULID}\n{ULID[:-1]}"],
        [f"{ULID}\n", ULID[:-1]],
        [ULID, "evt_8" + ULID[5:]],  # more than 128 bits
        ["evt_7" + "Z" * 25, "evt_" + "0" * 26],
    ],
)
def test_an_id_is_read_by_itself_whatever_the_others_are(ids: list[str]) -> None:
    check_against_one_by_one(ids)
