"""What waits on a cluster, as bytes: in the shuffle before a delivery, and in its state.

Explicit and versioned, so that a newer release reads what an older one left when a job is updated. Events
are packed once, when they enter the shuffle; from there on only headers are read and written until they are
attempted. Packed they are a quarter: what a shuffle and a state backend charge for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from isal import isal_zlib

from transforms.event import Batch, Event

# The first byte of everything. Fields may be appended to a struct (readers default them), never changed.
VERSION = b"\x01"
LEVEL = 1  # as for requests: 1.6 ms for 1 MB of events
RAW_DEFLATE = -15  # no header and no checksum: what keeps state has its own

T = TypeVar("T", bound=msgspec.Struct)

_events = msgspec.msgpack.Decoder(list[Event])


class NewerState(ValueError):
    """State or shuffled data that a newer release wrote."""


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """Events on their way to the delivery with their key; times in seconds since the epoch."""

    window_end: float
    taken_at: float
    body: bytes


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Events that joined the open batch `number`."""

    number: int
    partition: str
    window_end: float
    taken_at: float
    count: int
    body: bytes


class Parcel(msgspec.Struct, array_like=True):
    """A sealed batch. `id` is "" until its first attempt; `due` is when the next one may be (epoch)."""

    number: int
    partition: str
    window_end: float
    taken_at: float
    count: int
    bodies: list[bytes]
    id: str = ""
    attempts: int = 0
    failures: int = 0
    due: float = -math.inf
    memo: bytes | None = None

    @property
    def size(self) -> int:
        """Packed bytes."""
        return sum(map(len, self.bodies))


_decoders: dict[Any, Any] = {kind: msgspec.msgpack.Decoder(kind) for kind in (Arrival, Piece, Parcel)}


def pack_events(events: Sequence[Event]) -> bytes:
    """Events as deflated MessagePack."""
    packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW_DEFLATE)
    packed: bytes = packer.compress(msgspec.msgpack.encode(events)) + packer.flush()
    return packed


def unpack_events(bodies: Iterable[bytes]) -> list[Event]:
    """The events of these bodies, in their order."""
    events: list[Event] = []
    for body in bodies:
        events += _events.decode(isal_zlib.decompress(body, RAW_DEFLATE))
    return events


def pack(struct: msgspec.Struct) -> bytes:
    """An Arrival, Piece, Parcel (or any other struct) with the version in front."""
    return VERSION + msgspec.msgpack.encode(struct)


def unpack(kind: type[T], packed: bytes) -> T:
    """What `pack` was given. Raises NewerState."""
    check_version(packed)
    found: T = _decoders[kind].decode(memoryview(packed)[1:])
    return found


def check_version(packed: bytes) -> None:
    """Raises NewerState when this release cannot read it."""
    if packed[:1] != VERSION:
        raise NewerState(
            f"this job's state was written in form {packed[:1].hex()}, by a newer grantex-beam than this, "
            f"which reads form {VERSION.hex()}: nothing is lost, run the newer release"
        )


def joined(pieces: Sequence[Piece]) -> Parcel:
    """The pieces of one batch, as the batch; nothing is unpacked."""
    first = pieces[0]
    return Parcel(
        first.number,
        first.partition,
        first.window_end,
        first.taken_at,
        sum(piece.count for piece in pieces),
        [piece.body for piece in pieces],
    )


def to_batch(parcel: Parcel) -> Batch:
    """The batch, ready to be attempted."""
    return Batch(
        unpack_events(parcel.bodies),
        (),
        parcel.partition,
        parcel.id,
        parcel.number,
        parcel.memo,
        parcel.attempts,
        parcel.taken_at,
        parcel.window_end,
    )


def to_parcel(batch: Batch, failures: int, due: float, bodies: list[bytes] | None = None) -> Parcel:
    """The batch, ready to be kept; `bodies` are its packed events when they are at hand."""
    return Parcel(
        batch.seal,
        batch.partition,
        batch.window_end,
        batch.taken_at,
        len(batch.events),
        [pack_events(batch.events)] if bodies is None else bodies,
        batch.id,
        batch.attempts,
        failures,
        due,
        batch.memo,
    )
