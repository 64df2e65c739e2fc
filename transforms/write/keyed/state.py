"""What waits on a cluster, as bytes: in the shuffle before a delivery, and in its state.

Explicit and versioned, so that a newer release reads what an older one left when a job is updated. Events
are packed once, when they enter the shuffle; from there on only headers are read and written until they are
attempted. Packed they are a quarter: what a shuffle and a state backend charge for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from transforms.event import Batch
from transforms.retry import MAX_RETRY_AFTER
from transforms.write.keyed.packing import pack_events, unpack_events

# The first byte of everything. Fields may be appended to a struct (readers default them), never changed.
VERSION = b"\x01"
# Of what has events in it: bodies were deflated in the form before, and are compressed with Zstandard now.
EVENTS_VERSION = b"\x02"
T = TypeVar("T", bound=msgspec.Struct)


class NewerState(ValueError):
    """State or shuffled data that a newer release wrote."""


class PackedEvents(msgspec.Struct, frozen=True, array_like=True):
    """Events on their way to the delivery with their key; times in seconds since the epoch.

    count, size: how many they are and their encoded size, when all of them are of one partition: then they
    join a batch unopened. 0: they are to be opened. more: bodies after the first one.
    """

    window_end: float
    taken_at: float
    body: bytes
    partition: str = ""
    count: int = 0
    size: int = 0
    more: list[bytes] = []

    @property
    def bodies(self) -> list[bytes]:
        """The events, packed."""
        return [self.body, *self.more]


class InboxEvents(msgspec.Struct, frozen=True, array_like=True):
    """Events in the inbox that joined the open batch `number`."""

    number: int
    partition: str
    window_end: float
    taken_at: float
    count: int
    body: bytes


class PackedBatch(msgspec.Struct, array_like=True):
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

    def parts(self, most: int) -> Iterator[PackedBatch]:
        """Itself, or in its place several of its number, each with bodies of about `most` bytes: the first
        says what there is to say of it."""
        if self.size <= most:
            yield self
            return
        first, size = 0, 0
        count = self.count
        for at, body in enumerate([*self.bodies, b""]):
            if at == len(self.bodies) or (at > first and size + len(body) > most):
                yield msgspec.structs.replace(self, count=count, bodies=self.bodies[first:at])
                first, size, count = at, 0, 0
            size += len(body)


WITH_EVENTS = PackedEvents, InboxEvents, PackedBatch
_decoders: dict[Any, Any] = {kind: msgspec.msgpack.Decoder(kind) for kind in WITH_EVENTS}


def pack(struct: msgspec.Struct) -> bytes:
    """PackedEvents, InboxEvents, a PackedBatch (or any other struct) with the version in front."""
    version = EVENTS_VERSION if isinstance(struct, WITH_EVENTS) else VERSION
    return version + msgspec.msgpack.encode(struct)


def unpack(kind: type[T], packed: bytes) -> T:
    """What `pack` was given. Raises NewerState when this release cannot read it."""
    newest = EVENTS_VERSION if kind in WITH_EVENTS else VERSION
    if not VERSION <= packed[:1] <= newest:
        raise NewerState(
            f"this job's state was written in form {packed[:1].hex()}, by a newer grantex-beam than this, "
            f"which reads form {newest.hex()}: nothing is lost, run the newer release"
        )
    found: T = _decoders[kind].decode(memoryview(packed)[1:])
    return found


def join(parts: Sequence[InboxEvents]) -> PackedBatch:
    """The parts of one batch, as the batch; nothing is unpacked."""
    first = parts[0]
    return PackedBatch(
        first.number,
        first.partition,
        first.window_end,
        first.taken_at,
        sum(part.count for part in parts),
        [part.body for part in parts],
    )


def unpack_batch(packed_batch: PackedBatch) -> Batch:
    """The batch, ready to be attempted."""
    return Batch(
        unpack_events(packed_batch.bodies),
        (),
        packed_batch.partition,
        packed_batch.id,
        packed_batch.number,
        packed_batch.memo,
        packed_batch.attempts,
        packed_batch.taken_at,
        packed_batch.window_end,
    )


def pack_batch(batch: Batch, failures: int, due: float, bodies: list[bytes] | None = None) -> PackedBatch:
    """The batch, ready to be kept; `bodies` are its packed events when they are at hand."""
    return PackedBatch(
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


class OpenBatchHeader(msgspec.Struct, array_like=True):
    """Of a batch that still takes events; they are in the inbox, `packed` bytes of them."""

    number: int
    partition: str
    window_end: float
    opened_at: float
    closes_at: float
    taken_at: float
    count: int
    size: int
    packed: int


class SealedBatchHeader(msgspec.Struct, array_like=True):
    """Of a batch that takes no more events; they are in the inbox too, until its first attempt."""

    number: int
    taken_at: float
    count: int
    packed: int


class BacklogBlock(msgspec.Struct, array_like=True):
    """Batches that wait, all in the cell of this number; the first `skip` elements there are done with."""

    cell: int
    taken_at: float  # of the oldest
    count: int
    packed: int
    skip: int = 0


class Tried(msgspec.Struct, frozen=True, array_like=True):
    """What came of a batch that was attempted and lies where it lay: a failure writes no event again."""

    number: int
    batch_id: str
    attempts: int
    failures: int
    due: float
    memo: bytes | None


class AttemptId(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that had not ended when its bundle did."""

    number: int
    batch_id: str
    attempts: int


class KeyState(msgspec.Struct):
    """What is known of one key, without its events. Its fields are written with their names. All times in
    seconds since the epoch: a monotonic clock means nothing to the next process."""

    next_number: int = 1
    open: list[OpenBatchHeader] = []
    latest_window: float = -math.inf
    sealed: list[SealedBatchHeader] = []
    blocks: list[BacklogBlock] = []  # oldest first
    # "flight" in what is written, as ever.
    running: AttemptId | None = msgspec.field(default=None, name="flight")
    attempt_at: float | None = None  # when to look at what is sealed; None when nothing is
    wake_at: float | None = None  # what the timer is set to
    not_before: float = -math.inf
    failures: int = 0
    open_since: float | None = None  # of the circuit
    probe_at: float = 0.0
    why: str = ""
    # Written only while it is true, as earlier releases did not write it.
    needs_you: bool | msgspec.UnsetType = msgspec.UNSET
    tried: list[Tried] = []
    done_with: int = 0  # packed bytes in the inbox that nobody asks for any more
    ending: bool = False  # the end of the input has begun to work through it
    version: bytes = b""  # no other bundle has written the same

    def _kept(self) -> list[OpenBatchHeader | SealedBatchHeader | BacklogBlock]:
        return [*self.open, *self.sealed, *self.blocks]

    def set_back(self, now: float) -> None:
        """Times beyond what anybody asks for are from a wall clock that was set back: then it is time now."""
        latest = now + MAX_RETRY_AFTER
        self.attempt_at = None if self.attempt_at is None else soon(self.attempt_at, now)
        self.wake_at = None if self.wake_at is None or self.wake_at > latest else self.wake_at
        self.not_before, self.probe_at = soon(self.not_before, now), soon(self.probe_at, now)
        for each in self.open:
            each.opened_at = min(each.opened_at, now)

    def pending(self) -> int:
        """Events that are neither delivered nor dead letters."""
        return sum(each.count for each in self._kept())

    def size(self) -> int:
        """Bytes of them in the key's state."""
        return sum(each.packed for each in self._kept())

    def oldest(self) -> float | None:
        """When the oldest of them was received."""
        return min((each.taken_at for each in self._kept()), default=None)

    def waiting(self) -> bool:
        """Something is sealed."""
        return bool(self.sealed or self.blocks)


def next_number(key_state: KeyState) -> int:
    """The name of a new batch."""
    key_state.next_number += 1
    return key_state.next_number - 1


def soon(time: float, now: float) -> float:
    """`time`, unless it is further ahead than anything that is waited for."""
    return time if time <= now + MAX_RETRY_AFTER else now


_decoders[KeyState] = msgspec.msgpack.Decoder(KeyState)


class Value(Protocol):
    """One value of keyed state (Beam's ReadModifyWriteState)."""

    def read(self) -> Any: ...
    def write(self, value: bytes) -> None: ...
    def clear(self) -> None: ...


class Bag(Protocol):
    """A bag of keyed state (Beam's BagState); what was added is read in that order."""

    def read(self) -> Iterable[bytes]: ...
    def add(self, value: bytes) -> None: ...
    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BeamState:
    """Beam's state of one key. Whoever only takes events in leaves the cells out."""

    key_state: Value
    inbox: Bag
    cells: Sequence[Bag] = ()

    def read(self) -> KeyState | None:
        """What is known of the key; None for one that is new. Raises NewerState."""
        packed = self.key_state.read()
        return unpack(KeyState, packed) if packed else None

    def write(self, key_state: KeyState) -> None:
        """Keep it for the next bundle."""
        self.key_state.write(pack(key_state))
