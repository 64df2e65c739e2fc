"""How chunks, receipts and dead letters travel between workers, and what a runner is told of their size.

Importing this module makes them the coders of their types. Beam's default pickles them: class paths then
become part of a running job, which breaks updates, and a runner that samples sizes (the in-process one does
with the first elements of every bundle) pickles whole chunks to learn their length.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from apache_beam.coders import Coder, registry

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event, Receipt

T = TypeVar("T")

_ELEMENT_BYTES = 64  # roughly, of an element without its events
_encode = msgspec.msgpack.Encoder().encode


class _Versioned(Coder, Generic[T]):  # type: ignore[misc]
    """A version byte and MessagePack. Decoding raises ValueError for another version or other bytes.

    To change a layout, give it the next version and keep reading the one before.
    """

    version = 1
    layout: Any

    def __init__(self) -> None:
        self._decoder: Any = None  # made where it is used: it cannot be pickled

    def __getstate__(self) -> dict[str, Any]:
        return {"_decoder": None}

    def encode(self, value: T) -> bytes:
        return bytes([self.version]) + _encode(self.to_fields(value))

    def decode(self, encoded: bytes) -> T:
        if encoded[:1] != bytes([self.version]):
            raise ValueError(
                f"{type(self).__name__} reads version {self.version}, not {encoded[:1].hex() or 'nothing'}"
            )
        if self._decoder is None:
            self._decoder = msgspec.msgpack.Decoder(self.layout).decode
        return self.from_fields(self._decoder(memoryview(encoded)[1:]))

    def is_deterministic(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def to_fields(self, value: T) -> Any:
        raise NotImplementedError

    def from_fields(self, fields: Any) -> T:
        raise NotImplementedError


class ChunkCoder(_Versioned[Chunk]):
    """Events with their raw bytes untouched, and where and when the journal took them."""

    layout = tuple[int, float, bool, list[Event]]

    def to_fields(self, value: Chunk) -> Any:
        return value.first, value.taken_at, value.flush, value.events

    def from_fields(self, fields: Any) -> Chunk:
        first, taken_at, flush, events = fields
        return Chunk(events, first, taken_at, flush)

    def estimate_size(self, value: Chunk) -> int:
        """Bytes, as if every event were as long as the first: exact enough for a runner's statistics."""
        events = value.events
        return _ELEMENT_BYTES + (len(events) * (len(events[0].raw) + _ELEMENT_BYTES) if events else 0)


class _ReceiptFields(msgspec.Struct, array_like=True):
    destination: str
    batch_id: str
    event_ids: list[str]
    attempts: int
    at: float = 0.0
    place: str = ""


class ReceiptCoder(_Versioned[Receipt]):
    """Destination, batch and event ids; behind them time and place, where there is one of these."""

    layout = _ReceiptFields

    def to_fields(self, value: Receipt) -> Any:
        fields = value.destination, value.batch_id, list(value.event_ids), value.attempts
        return (*fields, value.at, value.place) if value.at or value.place else fields

    def from_fields(self, fields: Any) -> Receipt:
        return Receipt(
            fields.destination, fields.batch_id, fields.event_ids, fields.attempts, fields.at, fields.place
        )

    def estimate_size(self, value: Receipt) -> int:
        ids = value.event_ids
        return _ELEMENT_BYTES + (len(ids) * (len(ids[0]) + 2) if ids else 0)


class DeadLetterCoder(_Versioned[DeadLetter]):
    """A dead letter's own fields, by name."""

    layout = DeadLetter

    def to_fields(self, value: DeadLetter) -> Any:
        return value

    def from_fields(self, fields: Any) -> DeadLetter:
        letter: DeadLetter = fields
        return letter

    def estimate_size(self, value: DeadLetter) -> int:
        return _ELEMENT_BYTES + len(value.raw) + len(value.cause)


registry.register_coder(Chunk, ChunkCoder)
registry.register_coder(Receipt, ReceiptCoder)
registry.register_coder(DeadLetter, DeadLetterCoder)
