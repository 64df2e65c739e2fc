"""What waits on a cluster, as bytes: in the shuffle before a delivery, and in its state.

Explicit and versioned, so that a newer release reads what an older one left when a job is updated. Events
are packed once, when they enter the shuffle; from there on only headers are read and written until they are
attempted. Packed they are a quarter: what a shuffle and a state backend charge for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
from isal import isal_zlib

from transforms.batch import OpenBatch, OpenBatches
from transforms.event import Batch, Event
from transforms.retry import MAX_RETRY_AFTER

# The first byte of everything. Fields may be appended to a struct (readers default them), never changed.
VERSION = b"\x01"
LEVEL = 1  # as for requests: 1.6 ms for 1 MB of events
RAW_DEFLATE = -15  # no header and no checksum: what keeps state has its own
T = TypeVar("T", bound=msgspec.Struct)
_events = msgspec.msgpack.Decoder(list[Event])


class NewerState(ValueError):
    """State or shuffled data that a newer release wrote."""


class PackedEvents(msgspec.Struct, frozen=True, array_like=True):
    """Events on their way to the delivery with their key; times in seconds since the epoch."""

    window_end: float
    taken_at: float
    body: bytes


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


_decoders: dict[Any, Any] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (PackedEvents, InboxEvents, PackedBatch)
}


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
    """PackedEvents, InboxEvents, a PackedBatch (or any other struct) with the version in front."""
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
    """Batches that wait, all in the cell of this number."""

    cell: int
    taken_at: float  # of the oldest
    count: int
    packed: int


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


def soon(time: float, now: float) -> float:
    """`time`, unless it is further ahead than anything that is waited for."""
    return time if time <= now + MAX_RETRY_AFTER else now


_decode = msgspec.msgpack.Decoder(KeyState).decode


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
        if not packed:
            return None
        check_version(packed)
        return _decode(memoryview(packed)[1:])

    def write(self, key_state: KeyState) -> None:
        """Keep it for the next bundle."""
        self.key_state.write(VERSION + msgspec.msgpack.encode(key_state))


# State can only be read cell by cell and each cell must be declared: eight, of 4 MB packed (50,000 events)
# as long as there is room. Beyond that new ones are larger by half of what there is, and are cut again when
# their turn comes: the last of a backlog of a million events in one key has some 30 MB.
CELLS = 8
CELL_BYTES = 4_000_000
SPARE = 2  # cells that cutting leaves for what arrives meanwhile
# Sealed batches that wait in the inbox, packed; more of them go into blocks.
INBOX_BYTES = 2_000_000
INBOX_BATCHES = 100


def resume(batches: OpenBatches, key_state: KeyState) -> None:
    """Let `batches` go on with what is open."""
    found = {
        (each.window_end, each.partition): OpenBatch(
            each.opened_at,
            each.closes_at,
            each.taken_at,
            size=each.size,
            elsewhere=each.count,
            number=each.number,
        )
        for each in key_state.open
    }
    batches.resume(found, key_state.latest_window)


def take_in(
    beam_state: BeamState,
    key_state: KeyState,
    batches: OpenBatches,
    closed: Sequence[Batch],
    events: Sequence[Event] = (),
    body: bytes = b"",
) -> None:
    """Keep what `batches` took in since `resume`: new events into the inbox, all else into `key_state`.

    `closed` are the batches that closed on the way; `events` are the new ones and `body` all of them packed.
    """
    before = {each.number: each for each in key_state.open}

    def keep(number: int, key: tuple[float, str], taken_at: float, new: Sequence[Event]) -> int:
        if not new:
            return 0
        packed = body if len(new) == len(events) else pack_events(new)
        window_end, partition = key
        beam_state.inbox.add(pack(InboxEvents(number, partition, window_end, taken_at, len(new), packed)))
        return len(packed)

    for batch in closed:
        known = before.get(batch.seal)
        number = batch.seal or _next_number(key_state)
        packed = keep(number, (batch.window_end, batch.partition), batch.taken_at, batch.events)
        count = len(batch.events) + (known.count if known else 0)
        key_state.sealed.append(
            SealedBatchHeader(number, batch.taken_at, count, packed + (known.packed if known else 0))
        )
    key_state.open = []
    for key, each in batches.open.items():
        known = before.get(each.number)
        number = each.number or _next_number(key_state)
        packed = keep(number, key, each.taken_at, each.events) + (known.packed if known else 0)
        times = each.opened_at, each.closes_at, each.taken_at
        key_state.open.append(OpenBatchHeader(number, key[1], key[0], *times, each.count, each.size, packed))
    key_state.latest_window = batches.latest_window


def number(key_state: KeyState, batch: Batch) -> None:
    """Give a batch that was cut from another one a number of its own."""
    batch.seal = _next_number(key_state)


def collect(
    beam_state: BeamState, key_state: KeyState, sealed: Sequence[SealedBatchHeader]
) -> list[PackedBatch]:
    """Take these batches out of the inbox."""
    parts: dict[int, list[InboxEvents]] = {each.number: [] for each in sealed}
    rest = []
    for packed in beam_state.inbox.read():
        part = unpack(InboxEvents, packed)
        if part.number in parts:
            parts[part.number].append(part)
        else:
            rest.append(packed)
    beam_state.inbox.clear()
    for packed in rest:
        beam_state.inbox.add(packed)
    key_state.sealed = [each for each in key_state.sealed if each.number not in parts]
    return [join(found) for found in parts.values()]


def crowded(key_state: KeyState) -> bool:
    """The inbox holds more sealed batches than it should."""
    sealed = key_state.sealed
    return len(sealed) > INBOX_BATCHES or sum(each.packed for each in sealed) > INBOX_BYTES


def put_last(beam_state: BeamState, key_state: KeyState, packed_batches: Sequence[PackedBatch]) -> None:
    """Keep these batches behind all others."""
    for packed_batch in packed_batches:
        blocks = key_state.blocks
        room = max(CELL_BYTES, sum(block.packed for block in blocks) // 2)
        free = _free(key_state)
        if not blocks or (blocks[-1].packed >= room and free):
            blocks.append(BacklogBlock(free[0], packed_batch.taken_at, 0, 0))
        _add(beam_state, blocks[-1], packed_batch)


def load(beam_state: BeamState, block: BacklogBlock) -> list[PackedBatch]:
    """Read a block's batches."""
    return [unpack(PackedBatch, packed) for packed in beam_state.cells[block.cell].read()]


def put_first(
    beam_state: BeamState, key_state: KeyState, packed_batches: Sequence[PackedBatch], instead_of: int
) -> None:
    """Keep these batches before all others, in place of the first `instead_of` blocks; cut large ones."""
    for block in key_state.blocks[:instead_of]:
        beam_state.cells[block.cell].clear()
    behind = key_state.blocks[instead_of:]
    key_state.blocks = behind
    free = _free(key_state)
    packed = sum(packed_batch.size for packed_batch in packed_batches)
    room = max(CELL_BYTES, packed // max(1, len(free) - SPARE) + 1)
    blocks: list[BacklogBlock] = []
    for packed_batch in packed_batches:
        if not blocks or (blocks[-1].packed >= room and free):
            blocks.append(BacklogBlock(free.pop(0), packed_batch.taken_at, 0, 0))
        _add(beam_state, blocks[-1], packed_batch)
    key_state.blocks = [*blocks, *behind]


def clear(beam_state: BeamState) -> None:
    """Keep nothing more."""
    beam_state.key_state.clear()
    for cell in (beam_state.inbox, *beam_state.cells):
        cell.clear()


def _add(beam_state: BeamState, block: BacklogBlock, packed_batch: PackedBatch) -> None:
    beam_state.cells[block.cell].add(pack(packed_batch))
    block.count += packed_batch.count
    block.packed += packed_batch.size
    block.taken_at = min(block.taken_at, packed_batch.taken_at)


def _free(key_state: KeyState) -> list[int]:
    used = {block.cell for block in key_state.blocks}
    return [cell for cell in range(CELLS) if cell not in used]


def _next_number(key_state: KeyState) -> int:
    key_state.next_number += 1
    return key_state.next_number - 1
