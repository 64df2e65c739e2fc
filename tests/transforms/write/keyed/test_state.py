"""The forms in which events wait: a new release reads them, and says so when it is the older one."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgspec
import pytest

from tests.transforms.write.service import events
from transforms.event import Batch, Event
from transforms.write.keyed.packing import pack_events, unpack_events
from transforms.write.keyed.state import (
    AttemptId,
    BacklogBlock,
    BeamState,
    InboxEvents,
    KeyState,
    NewerState,
    OpenBatchHeader,
    PackedBatch,
    PackedEvents,
    SealedBatchHeader,
    Tried,
    join,
    pack,
    pack_batch,
    unpack,
    unpack_batch,
)


def test_events_come_back_as_they_were() -> None:
    new = events(0, 500, size=300)
    packed = pack_events(new)
    assert unpack_events([packed]) == new
    assert len(packed) < 500 * 300 / 3


@pytest.mark.parametrize(
    "struct",
    [
        PackedEvents(300.0, 1.5, b"body"),
        InboxEvents(7, "dt=1", math.inf, 1.5, 3, b"body"),
        PackedBatch(7, "dt=1", 300.0, 1.5, 3, [b"a", b"b"], "id", 2, 1, 99.5, b"memo"),
    ],
)
def test_headers_come_back_as_they_were(struct: PackedEvents | InboxEvents | PackedBatch) -> None:
    assert unpack(type(struct), pack(struct)) == struct


PINNED = {
    PackedEvents: (
        "AZPLQHLAAAAAAADLP/gAAAAAAADEMZs4ZWlqWUm84cKSLUYGRma6Bsa6BoYhhkZWBgZWBgZRR/iqlTJTlKyUUstK4g2VagE="
    ),
    InboxEvents: (
        "AZYHoXDLQHLAAAAAAADLP/gAAAAAAAABxDGbOGVpallJvOHCki1GBkZmugbGugaGIYZGVgYGVgYGUUf4qpUyU5SslFLLSuINlWoB"
    ),
    PackedBatch: (
        "AZsHoXDLQHLAAAAAAADLP/gAAAAAAAABkcQxmzhlaWpZSbzhwpItRgZGZroGxroGhiGGRlYGBlYGBlFH+KqVMlOUrJ"
        "RSy0riDZVqAaJpZAIBy0BY4AAAAAAAxARtZW1v"
    ),
}


@pytest.mark.parametrize("kind", PINNED)
def test_what_was_written_before_is_read(kind: Any) -> None:
    found = unpack(kind, base64.b64decode(PINNED[kind]))
    bodies = found.bodies if isinstance(found, PackedBatch) else [found.body]
    assert unpack_events(bodies) == [Event("evt_1", "t", "2026-03-01T12:00:00Z", b'{"id":"evt_1"}')]
    assert (found.window_end, found.taken_at) == (300.0, 1.5)
    if isinstance(found, PackedBatch):
        assert (found.number, found.id, found.attempts, found.failures) == (7, "id", 2, 1)
        assert (found.due, found.memo) == (99.5, b"memo")


@pytest.mark.parametrize(("struct", "newest"), [(PackedEvents(1.0, 1.0, b""), "02"), (KeyState(), "01")])
def test_a_newer_release_is_named(struct: PackedEvents | KeyState, newest: str) -> None:
    packed = pack(struct)
    newer = bytes([packed[0] + 1]) + packed[1:]
    with pytest.raises(NewerState, match=f"by a newer grantex-beam than this, which reads form {newest}:"):
        unpack(type(struct), newer)


def test_what_has_events_in_it_is_too_new_for_a_release_that_cannot_open_them() -> None:
    """It reads form 01 alone. What is known of a key with nothing in it is still for both."""
    assert {pack(struct)[:1] for struct in (PackedEvents(1.0, 1.0, b""), PackedBatch(*BATCH, []))} == {
        b"\x02"
    }
    assert pack(KeyState())[:1] == b"\x01"


BATCH = 7, "dt=1", 300.0, 1.5, 3


def test_a_batch_keeps_its_identity_and_what_is_known_of_it() -> None:
    new = events(0, 5)
    first = InboxEvents(3, "p", 300.0, 1.5, 2, pack_events(new[:2]))
    packed_batch = join([first, InboxEvents(3, "p", 300.0, 2.5, 3, pack_events(new[2:]))])
    batch = unpack_batch(packed_batch)
    assert batch == Batch(new, (), "p", seal=3, taken_at=1.5, window_end=300.0)
    batch.attempts, batch.memo = 2, b"key"
    assert unpack_batch(unpack(PackedBatch, pack(pack_batch(batch, 1, 99.0)))) == batch
    assert packed_batch.count == 5


# As a release wrote it before its fields got the names they have now.
KEY_STATE = (
    "AY2rbmV4dF9udW1iZXIJpG9wZW6RmQihcMt/8AAAAAAAAMs/8AAAAAAAAMt/8AAAAAAAAMs/8AAAAAAAAAPNA4TMyK1sYXRlc3"
    "Rfd2luZG93y0BywAAAAAAApnNlYWxlZJGUB8s/8AAAAAAAAATNASymYmxvY2tzkZQCyz/wAAAAAAAAZM0TiKZmbGlnaHSTBqJp"
    "ZAKqYXR0ZW1wdF9hdMs/8AAAAAAAAKd3YWtlX2F0y0AAAAAAAAAAqm5vdF9iZWZvcmXL//AAAAAAAACoZmFpbHVyZXMDqm9wZW"
    "5fc2luY2XLP/AAAAAAAACocHJvYmVfYXTLQBQAAAAAAACjd2h5ozUwMw=="
)

KEY_STATE_NOW = (
    "Ad4AEatuZXh0X251bWJlcgmkb3BlbpGZCKFwy3/wAAAAAAAAyz/wAAAAAAAAy3/wAAAAAAAAyz/wAAAAAAAAA80DhMzIrWxhdGVz"
    "dF93aW5kb3fLQHLAAAAAAACmc2VhbGVkkZQHyz/wAAAAAAAABM0BLKZibG9ja3ORlQLLP/AAAAAAAABkzROIB6ZmbGlnaHSTBqJp"
    "ZAKqYXR0ZW1wdF9hdMs/8AAAAAAAAKd3YWtlX2F0y0AAAAAAAAAAqm5vdF9iZWZvcmXL//AAAAAAAACoZmFpbHVyZXMDqm9wZW5f"
    "c2luY2XLP/AAAAAAAACocHJvYmVfYXTLQBQAAAAAAACjd2h5ozUwM6V0cmllZJGWBaJpZAIBy0BY4AAAAAAAxARtZW1vqWRvbmVf"
    "d2l0aCimZW5kaW5nw6d2ZXJzaW9uxAgxMjM0NTY3OA=="
)


def test_what_is_known_of_a_key_comes_back_as_it_was() -> None:
    kept: dict[str, bytes] = {}

    class Value:
        def read(self) -> bytes | None:
            return kept.get("book")

        def write(self, value: bytes) -> None:
            kept["book"] = value

        def clear(self) -> None:
            kept.clear()

    beam_state = BeamState(Value(), [])  # type: ignore[arg-type]
    assert beam_state.read() is None
    before = KeyState(
        9,
        [OpenBatchHeader(8, "p", math.inf, 1.0, math.inf, 1.0, 3, 900, 200)],
        300.0,
        [SealedBatchHeader(7, 1.0, 4, 300)],
        [BacklogBlock(2, 1.0, 100, 5000)],
        AttemptId(6, "id", 2),
        1.0,
        2.0,
        failures=3,
        open_since=1.0,
        probe_at=5.0,
        why="503",
    )
    kept["book"] = base64.b64decode(KEY_STATE)
    assert beam_state.read() == before
    assert before.pending() == 107
    assert before.oldest() == 1.0
    blocks, tried = [BacklogBlock(2, 1.0, 100, 5000, 7)], [Tried(5, "id", 2, 1, 99.5, b"memo")]
    now = msgspec.structs.replace(
        before, blocks=blocks, tried=tried, done_with=40, ending=True, version=b"12345678"
    )
    beam_state.write(now)
    assert kept["book"] == base64.b64decode(KEY_STATE_NOW)
    assert beam_state.read() == now
    kept["book"] = b"\x02" + kept["book"][1:]
    with pytest.raises(NewerState):
        beam_state.read()
