"""The inbox: what a key took in and nobody has attempted yet, in a bag that is added to.

What was taken from it is passed over, and it is cleared once nothing in it is asked for any more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from transforms.batch import MAX_OPEN, MAX_OPEN_BYTES, BatchPolicy, OpenBatch, OpenBatches
from transforms.event import Batch, Event
from transforms.write.keyed.backlog import Backlog
from transforms.write.keyed.packing import pack_events
from transforms.write.keyed.state import (
    Bag,
    InboxEvents,
    KeyState,
    OpenBatchHeader,
    PackedBatch,
    PackedEvents,
    SealedBatchHeader,
    join,
    next_number,
    pack,
    unpack,
)

# Sealed batches that wait in the inbox, packed; more of them go into blocks, so many bytes a bundle.
INBOX_BYTES = 2_000_000
INBOX_BATCHES = 100
MOVED_BYTES = 16_000_000
# Bytes in the inbox that nobody asks for any more, from which on it may be worth writing the others anew.
TIDY_BYTES = 1_000_000


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
    inbox: Inbox,
    key_state: KeyState,
    batches: OpenBatches,
    closed: Sequence[Batch],
    events: Sequence[Event] = (),
    bodies: Sequence[bytes] = (),
) -> None:
    """Keep what `batches` took in since `resume`: new events into the inbox, all else into `key_state`.

    `closed` are the batches that closed on the way; `events` are the new ones, and `bodies` all of them.
    """
    before = {each.number: each for each in key_state.open}

    def keep(number: int, key: tuple[float, str], taken_at: float, new: Sequence[Event]) -> int:
        if not new:
            return 0
        window_end, partition = key
        packed = bodies if len(new) == len(events) else [pack_events(new)]
        first, *more = packed
        block = PackedEvents(window_end, taken_at, first, partition, len(new), more=more)
        return _add_block(inbox, number, block)

    for batch in closed:
        known = before.get(batch.seal)
        number = batch.seal or next_number(key_state)
        packed = keep(number, (batch.window_end, batch.partition), batch.taken_at, batch.events)
        count = len(batch.events) + (known.count if known else 0)
        key_state.sealed.append(
            SealedBatchHeader(number, batch.taken_at, count, packed + (known.packed if known else 0))
        )
    key_state.open = []
    for key, each in batches.open.items():
        known = before.get(each.number)
        number = each.number or next_number(key_state)
        packed = keep(number, key, each.taken_at, each.events) + (known.packed if known else 0)
        times = each.opened_at, each.closes_at, each.taken_at
        key_state.open.append(OpenBatchHeader(number, key[1], key[0], *times, each.count, each.size, packed))
    key_state.latest_window = batches.latest_window


def take_block(
    inbox: Inbox,
    key_state: KeyState,
    policy: BatchPolicy,
    block: PackedEvents,
    now: float,
    older: Backlog,
) -> bool | None:
    """Let a block join its batch unopened; says whether that has closed a batch.

    None, and nothing is done, when it does not fit: then it is to be opened. Before a block that is a full
    batch by itself, one that is open goes as it is; where batches are waiting that are `older` than those in
    the inbox, it goes behind them at once.
    """
    key, whole = (block.window_end, block.partition), policy.full(block.count, block.size)
    known = next((each for each in key_state.open if (each.window_end, each.partition) == key), None)
    if not whole and not _fits(key_state, policy, block, known):
        return None
    over = [each for each in key_state.open if each.window_end < block.window_end > key_state.latest_window]
    if whole and known is not None:
        over.append(known)
        known = None
    _seal(key_state, over)
    key_state.latest_window = max(key_state.latest_window, block.window_end)
    if whole and _move(inbox, key_state, older):
        batch = next_number(key_state), block.partition, block.window_end, block.taken_at, block.count
        older.put_last([PackedBatch(*batch, block.bodies)])
        return True
    if known is None:
        number, times = next_number(key_state), (now, closes_at(block.window_end, now), block.taken_at)
        known = OpenBatchHeader(number, block.partition, block.window_end, *times, 0, 0, 0)
        key_state.open.append(known)
    known.count, known.size = known.count + block.count, known.size + block.size
    known.packed += _add_block(inbox, known.number, block)
    if policy.full(known.count, known.size):
        _seal(key_state, [known])
        return True
    return bool(over)


def closes_at(window_end: float, now: float) -> float:
    """When the end of its window closes a batch. Catching up, that is over already: then it says nothing."""
    return window_end if window_end > now else math.inf


def _fits(
    key_state: KeyState, policy: BatchPolicy, block: PackedEvents, known: OpenBatchHeader | None
) -> bool:
    """All of the block may join what is open of its window and partition, or begin it."""
    count, size = (known.count, known.size) if known else (0, 0)
    in_all = sum(each.size for each in key_state.open) + block.size
    return (
        count + block.count <= policy.max_events
        and size + block.size <= policy.max_bytes
        and in_all <= max(MAX_OPEN_BYTES, policy.max_bytes)
        and (known is not None or len(key_state.open) < MAX_OPEN)
    )


def _seal(key_state: KeyState, closing: Sequence[OpenBatchHeader]) -> None:
    """These take no more events."""
    for each in closing:
        key_state.open.remove(each)
        key_state.sealed.append(SealedBatchHeader(each.number, each.taken_at, each.count, each.packed))


def _move(inbox: Inbox, key_state: KeyState, older: Backlog) -> bool:
    """Let what is sealed in the inbox go behind a backlog; False when there is none, or that is too much."""
    sealed = key_state.sealed
    if not key_state.blocks or sum(each.packed for each in sealed) > MOVED_BYTES:
        return False
    inbox.move(sealed, older)
    inbox.tidy()
    return True


def _add_block(inbox: Inbox, number: int, block: PackedEvents) -> int:
    count, packed = block.count, 0
    for body in block.bodies:
        part = InboxEvents(number, block.partition, block.window_end, block.taken_at, count, body)
        inbox.add(part)
        count, packed = 0, packed + len(body)
    return packed


class Inbox:
    """The inbox of one key within one bundle, which reads it once at most, and not at all when this process
    knows it (see KnownKeys)."""

    def __init__(self, bag: Bag, key_state: KeyState, known: list[InboxEvents] | None = None) -> None:
        self._bag, self._key_state = bag, key_state
        is_empty = not (key_state.open or key_state.sealed or key_state.done_with)
        self.known = [] if known is None and is_empty else known

    def add(self, part: InboxEvents) -> None:
        """Events that came."""
        self._bag.add(pack(part))
        if self.known is not None:
            self.known.append(part)

    def batches(self, sealed: Sequence[SealedBatchHeader]) -> list[PackedBatch]:
        """These batches, which stay where they are; nothing is unpacked."""
        parts: dict[int, list[InboxEvents]] = {each.number: [] for each in sealed}
        for part in self._read() if parts else ():
            if part.number in parts:
                parts[part.number].append(part)
        return [join(found) for found in parts.values()]

    def drop(self, numbers: Collection[int]) -> None:
        """Nobody asks for these sealed batches any more: they are forgotten, and lie in the bag until it is
        cleared."""
        key_state = self._key_state
        dropped = [each.packed for each in key_state.sealed if each.number in numbers]
        key_state.done_with += sum(dropped)
        key_state.sealed = [each for each in key_state.sealed if each.number not in numbers]
        if dropped and self.known is not None:  # a new list: should the bundle fail, the one before counts
            self.known = [part for part in self.known if part.number not in numbers]

    def move(self, sealed: Sequence[SealedBatchHeader], backlog: Backlog) -> None:
        """These batches lie behind a backlog from now on."""
        backlog.put_last(self.batches(sealed))
        self.drop({each.number for each in sealed})

    def tidy(self) -> None:
        """Clear it when nothing is asked for, or most is not, before the bundle ends."""
        key_state = self._key_state
        kept: list[OpenBatchHeader | SealedBatchHeader] = [*key_state.open, *key_state.sealed]
        size = sum(each.packed for each in kept)
        if not key_state.done_with or (
            kept and not max(size, TIDY_BYTES) < key_state.done_with <= size + MOVED_BYTES
        ):
            return
        numbers = {each.number for each in kept}
        rest = [part for part in self._read() if part.number in numbers] if kept else []
        self._bag.clear()
        self.known, key_state.done_with = [], 0
        for part in rest:
            self.add(part)

    def _read(self) -> list[InboxEvents]:
        if self.known is None:
            self.known = [unpack(InboxEvents, packed) for packed in self._bag.read()]
        return self.known


def crowding(key_state: KeyState) -> list[SealedBatchHeader]:
    """Sealed batches that should leave the inbox now, oldest first: it holds more than it should."""
    sealed = key_state.sealed
    if len(sealed) <= INBOX_BATCHES and sum(each.packed for each in sealed) <= INBOX_BYTES:
        return []
    leaving: list[SealedBatchHeader] = []
    size = 0
    for each in sealed:
        size += each.packed
        if leaving and size > MOVED_BYTES:
            break
        leaving.append(each)
    return leaving
