"""The forms in which events wait: a new release reads them, and says so when it is the older one."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest

from tests.transforms.write.service import events
from transforms.event import Batch, Event
from transforms.write.keyed.state import (
    Arrival,
    Block,
    Flight,
    KeyState,
    Memory,
    NewerState,
    Open,
    Parcel,
    Piece,
    Sealed,
    joined,
    pack,
    pack_events,
    to_batch,
    to_parcel,
    unpack,
    unpack_events,
)


def test_events_come_back_as_they_were() -> None:
    new = events(0, 500, size=300)
    packed = pack_events(new)
    assert unpack_events([packed]) == new
    assert len(packed) < 500 * 300 / 3


@pytest.mark.parametrize(
    "struct",
    [
        Arrival(300.0, 1.5, b"body"),
        Piece(7, "dt=1", math.inf, 1.5, 3, b"body"),
        Parcel(7, "dt=1", 300.0, 1.5, 3, [b"a", b"b"], "id", 2, 1, 99.5, b"memo"),
    ],
)
def test_headers_come_back_as_they_were(struct: Arrival | Piece | Parcel) -> None:
    assert unpack(type(struct), pack(struct)) == struct


PINNED = {
    Arrival: (
        "AZPLQHLAAAAAAADLP/gAAAAAAADEMZs4ZWlqWUm84cKSLUYGRma6Bsa6BoYhhkZWBgZWBgZRR/iqlTJTlKyUUstK4g2VagE="
    ),
    Piece: (
        "AZYHoXDLQHLAAAAAAADLP/gAAAAAAAABxDGbOGVpallJvOHCki1GBkZmugbGugaGIYZGVgYGVgYGUUf4qpUyU5SslFLLSuINlWoB"
    ),
    Parcel: (
        "AZsHoXDLQHLAAAAAAADLP/gAAAAAAAABkcQxmzhlaWpZSbzhwpItRgZGZroGxroGhiGGRlYGBlYGBlFH+KqVMlOUrJ"
        "RSy0riDZVqAaJpZAIBy0BY4AAAAAAAxARtZW1v"
    ),
}


@pytest.mark.parametrize("kind", PINNED)
def test_what_was_written_before_is_read(kind: Any) -> None:
    found = unpack(kind, base64.b64decode(PINNED[kind]))
    bodies = found.bodies if isinstance(found, Parcel) else [found.body]
    assert unpack_events(bodies) == [Event("evt_1", "t", "2026-03-01T12:00:00Z", b'{"id":"evt_1"}')]
    assert (found.window_end, found.taken_at) == (300.0, 1.5)
    if isinstance(found, Parcel):
        assert (found.number, found.id, found.attempts, found.failures) == (7, "id", 2, 1)
        assert (found.due, found.memo) == (99.5, b"memo")


def test_a_newer_release_is_named() -> None:
    packed = b"\x02" + pack(Arrival(1.0, 1.0, b""))[1:]
    with pytest.raises(NewerState, match="by a newer grantex-beam"):
        unpack(Arrival, packed)


def test_a_batch_keeps_its_identity_and_what_is_known_of_it() -> None:
    new = events(0, 5)
    first = Piece(3, "p", 300.0, 1.5, 2, pack_events(new[:2]))
    parcel = joined([first, Piece(3, "p", 300.0, 2.5, 3, pack_events(new[2:]))])
    batch = to_batch(parcel)
    assert batch == Batch(new, (), "p", seal=3, taken_at=1.5, window_end=300.0)
    batch.attempts, batch.memo = 2, b"key"
    assert to_batch(unpack(Parcel, pack(to_parcel(batch, 1, 99.0)))) == batch
    assert parcel.count == 5


def test_the_book_comes_back_as_it_was() -> None:
    kept: dict[str, bytes] = {}

    class Value:
        def read(self) -> bytes | None:
            return kept.get("book")

        def write(self, value: bytes) -> None:
            kept["book"] = value

        def clear(self) -> None:
            kept.clear()

    memory = Memory(Value(), [])  # type: ignore[arg-type]
    assert memory.open_book() is None
    book = KeyState(
        9,
        [Open(8, "p", math.inf, 1.0, math.inf, 1.0, 3, 900, 200)],
        300.0,
        [Sealed(7, 1.0, 4, 300)],
        [Block(2, 1.0, 100, 5000)],
        Flight(6, "id", 2),
        1.0,
        2.0,
        failures=3,
        open_since=1.0,
        probe_at=5.0,
        why="503",
    )
    memory.close_book(book)
    assert memory.open_book() == book
    assert book.pending() == 107
    assert book.oldest() == 1.0
    kept["book"] = b"\x02" + kept["book"][1:]
    with pytest.raises(NewerState):
        memory.open_book()
