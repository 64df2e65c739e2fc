"""What is packed for one destination is so for all; what is remembered is bounded, and is what it seems."""

from __future__ import annotations

import base64
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.transforms.write.service import events
from transforms.event import Event
from transforms.write.keyed import packing
from transforms.write.keyed.packing import Remembered, pack_events, pack_part, unpack_events


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_packed", Remembered(1_000_000))
    monkeypatch.setattr(packing, "_opened", Remembered(1_000_000))


def test_a_part_of_a_list_is_packed_once_and_opened_from_memory() -> None:
    new = events(0, 500, size=300)
    body = pack_part(new, 100, 300)
    assert pack_part(new, 100, 300) is body
    assert pack_part(list(new), 100, 300) == body
    first, second = unpack_events([body]), unpack_events([bytes(bytearray(body))])
    assert first == second == new[100:300]
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert first[0] is new[100]


def test_a_list_that_is_gone_is_not_taken_for_one_that_lies_in_its_place() -> None:
    bodies = []
    for n in range(50):
        new = events(n, 60)
        bodies.append(pack_part(new, 0, 60))
        del new
    assert [unpack_events([body])[0].id for body in bodies] == [f"evt_{n:05d}" for n in range(50)]


def test_two_bodies_of_one_digest_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "xxh3_128_digest", lambda body: b"the same for all")
    one, other = pack_events(events(0, 3)), pack_events(events(3, 3))
    assert unpack_events([one, other, one]) == [*events(0, 6), *events(0, 3)]


def test_the_oldest_goes_first_when_there_is_too_much() -> None:
    known: Remembered[str] = Remembered(10)
    for name in "abc":
        known.put(name, name.upper(), 4)
    assert [known.get(name) for name in "abc"] == [None, "B", "C"]
    known.get("b")
    known.put("d", "D", 4)
    assert [known.get(name) for name in "bcd"] == ["B", None, "D"]
    known.put("b", "larger than all", 11)
    assert [known.get(name) for name in "bcd"] == [None, None, None]


def test_what_an_earlier_release_deflated_is_opened() -> None:
    deflated = base64.b64decode("mzhlaWpZSbzhwpItRgZGZroGxroGhiGGRlYGBlYGBlFH+KqVMlOUrJRSy0riDZVqAQ==")
    new = [Event("evt_1", "t", "2026-03-01T12:00:00Z", b'{"id":"evt_1"}')]
    body = pack_events(new)
    assert body.startswith(packing.MAGIC)
    assert unpack_events([deflated, body, deflated]) == new * 3


def test_nothing_that_was_deflated_looks_as_what_is_packed_now() -> None:
    """The first byte would begin a stored block, whose length is followed by its complement (RFC 1951)."""
    for rest in range(65_536):
        with pytest.raises(zlib.error):
            zlib.decompress(packing.MAGIC + rest.to_bytes(2, "little"), -15)


def test_threads_pack_and_open_side_by_side() -> None:
    lists = [events(n * 100, 100, size=300) for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda each: unpack_events([pack_events(each)]), lists)) == lists
