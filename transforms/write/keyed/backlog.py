"""Blocks of what waits longer than in the inbox: the backlog of a destination that is away.

Nothing is written again that has not changed. A block is a bag that is added to; what was taken from its
beginning is skipped, and it is cleared once all of it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from transforms.write.keyed.state import BacklogBlock, Bag, KeyState, PackedBatch, pack, unpack

# State can only be read cell by cell and each cell must be declared. A block is read whole to take a part of
# it: so the first ones are small (1 MB packed is some 20,000 events; a round attempts less), and the others
# as large as one bundle may hold. All of them have 2 GB; beyond that the last one grows, which makes it
# slower to read and nothing else.
CELLS = 88
SMALL_BLOCKS = 24
SMALL_BLOCK_BYTES = 1_000_000
BLOCK_BYTES = 32_000_000
SPARE = 1  # a cell for what comes to lie before all others
# Of one element of a bag, packed: services refuse one above 80 MB for ever.
ELEMENT_BYTES = 16_000_000
# What is left of a block that was read is known to the next bundle, so many packed bytes of it.
KEPT_BYTES = 1_000_000


@dataclass(frozen=True)
class Opened:
    """What a block holds, or the beginning of that: its batches, and how many elements of its cell there are
    up to the end of each."""

    batches: list[PackedBatch]
    ends: list[int]

    @cached_property
    def count(self) -> int:
        """Events in them."""
        return sum(each.count for each in self.batches)

    def first(self, most: int) -> Opened:
        """Its batches of up to so many packed bytes in all, but for one at least."""
        size = 0
        for n, each in enumerate(self.batches):
            size += each.size
            if n and size > most:
                return Opened(self.batches[:n], self.ends[:n])
        return self


class Backlog:
    """The blocks of one key within one bundle, `key_state.blocks`, oldest first.

    known: what was read of them before, by cell; as the bundle leaves it behind.
    """

    def __init__(
        self, cells: Sequence[Bag], key_state: KeyState, known: Mapping[int, Opened] | None = None
    ) -> None:
        self._cells, self._key_state = cells, key_state
        self.known = dict(known or {})  # a new one: should the bundle fail, the one before counts

    def load(self, block: BacklogBlock, taken: int = 0) -> Opened:
        """What a block holds, but for what is done with: from memory as far as that is more than `taken`
        batches, or all of it."""
        known = self.known.get(block.cell)
        if known is None or (len(known.batches) <= taken and known.count < block.count):
            known = self.known[block.cell] = self._read(block)
        return known

    def put_last(self, packed_batches: Sequence[PackedBatch]) -> None:
        """Keep these batches behind all others."""
        blocks = self._key_state.blocks
        for packed_batch in packed_batches:
            room = SMALL_BLOCK_BYTES if len(blocks) <= SMALL_BLOCKS else BLOCK_BYTES
            free = self._free()
            # One that is being taken from would keep all that it ever held.
            if not blocks or ((blocks[-1].skip or blocks[-1].packed >= room) and len(free) > SPARE):
                blocks.append(BacklogBlock(free[0], packed_batch.taken_at, 0, 0))
            self._add(blocks[-1], packed_batch)

    def put_first(self, packed_batches: Sequence[PackedBatch]) -> None:
        """Keep these batches before all others, as a block of their own."""
        free = self._free()
        if packed_batches and not free:
            self.put_last(packed_batches)
        elif packed_batches:
            block = BacklogBlock(free[0], packed_batches[0].taken_at, 0, 0)
            for packed_batch in packed_batches:
                self._add(block, packed_batch)
            self._key_state.blocks.insert(0, block)

    def take_from(self, block: BacklogBlock, opened: Opened, n: int) -> None:
        """The first `n` batches of a block are done with, or lie elsewhere from now on."""
        gone, kept = opened.batches[:n], opened.batches[n:]
        block.count -= sum(each.count for each in gone)
        if not block.count:
            self._cells[block.cell].clear()
            self._key_state.blocks.remove(block)
        elif gone:
            block.skip = opened.ends[n - 1]
            block.taken_at = kept[0].taken_at if kept else block.taken_at
            block.packed -= sum(each.size for each in gone)
        self.known.pop(block.cell, None)
        if kept:
            self.known[block.cell] = Opened(kept, opened.ends[n:]).first(KEPT_BYTES)

    def clear(self) -> None:
        """Keep nothing more."""
        for block in self._key_state.blocks:
            self._cells[block.cell].clear()

    def _read(self, block: BacklogBlock) -> Opened:
        opened = Opened([], [])
        for number, packed in enumerate(self._cells[block.cell].read(), 1):
            if number <= block.skip:
                continue
            part = unpack(PackedBatch, packed)
            if opened.batches and opened.batches[-1].number == part.number:
                opened.batches[-1].bodies += part.bodies
                opened.ends[-1] = number
            else:
                opened.batches.append(part)
                opened.ends.append(number)
        block.count = opened.count  # as it says when all of it is known
        return opened

    def _add(self, block: BacklogBlock, packed_batch: PackedBatch) -> None:
        for part in packed_batch.parts(ELEMENT_BYTES):
            self._cells[block.cell].add(pack(part))
        block.count += packed_batch.count
        block.packed += packed_batch.size
        block.taken_at = min(block.taken_at, packed_batch.taken_at)

    def _free(self) -> list[int]:
        used = {block.cell for block in self._key_state.blocks}
        return [cell for cell in range(CELLS) if cell not in used]
