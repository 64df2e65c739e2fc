"""Blocks of what waits longer than in the inbox: the backlog of a destination that is away.

Nothing is written again that has not changed. A block is a bag that is added to; what was taken from its
beginning is skipped, and it is cleared once all of it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transforms.write.keyed.state import BacklogBlock, BeamState, KeyState, PackedBatch, pack, unpack

# State can only be read cell by cell and each cell must be declared. A block is read whole to take a part of
# it: so the first ones are small (1 MB packed is 12,500 events, about what a round attempts), and the others
# as large as one bundle may hold. All of them have 2 GB; beyond that the last one grows, which makes it
# slower to read and nothing else.
CELLS = 88
SMALL_BLOCKS = 24
SMALL_BLOCK_BYTES = 1_000_000
BLOCK_BYTES = 32_000_000
SPARE = 1  # a cell for what comes to lie before all others
# Of one element of a bag, packed: services refuse one above 80 MB for ever.
ELEMENT_BYTES = 16_000_000


@dataclass(frozen=True)
class Opened:
    """What a block holds: its batches, and how many elements of its cell there are up to the end of each."""

    batches: list[PackedBatch]
    ends: list[int]


def load(beam_state: BeamState, block: BacklogBlock) -> Opened:
    """Read a block, but for what is done with."""
    opened = Opened([], [])
    for number, packed in enumerate(beam_state.cells[block.cell].read(), 1):
        if number <= block.skip:
            continue
        part = unpack(PackedBatch, packed)
        if opened.batches and opened.batches[-1].number == part.number:
            opened.batches[-1].bodies += part.bodies
            opened.ends[-1] = number
        else:
            opened.batches.append(part)
            opened.ends.append(number)
    return opened


def put_last(beam_state: BeamState, key_state: KeyState, packed_batches: Sequence[PackedBatch]) -> None:
    """Keep these batches behind all others."""
    blocks = key_state.blocks
    for packed_batch in packed_batches:
        room = SMALL_BLOCK_BYTES if len(blocks) <= SMALL_BLOCKS else BLOCK_BYTES
        free = _free(key_state)
        # One that is being taken from would keep all that it ever held.
        if not blocks or ((blocks[-1].skip or blocks[-1].packed >= room) and len(free) > SPARE):
            blocks.append(BacklogBlock(free[0], packed_batch.taken_at, 0, 0))
        _add(beam_state, blocks[-1], packed_batch)


def put_first(beam_state: BeamState, key_state: KeyState, packed_batches: Sequence[PackedBatch]) -> None:
    """Keep these batches before all others, as a block of their own."""
    free = _free(key_state)
    if packed_batches and not free:
        put_last(beam_state, key_state, packed_batches)
    elif packed_batches:
        block = BacklogBlock(free[0], packed_batches[0].taken_at, 0, 0)
        for packed_batch in packed_batches:
            _add(beam_state, block, packed_batch)
        key_state.blocks.insert(0, block)


def take_from(
    beam_state: BeamState, key_state: KeyState, block: BacklogBlock, opened: Opened, n: int
) -> None:
    """The first `n` batches of a block are done with, or lie elsewhere from now on."""
    gone, kept = opened.batches[:n], opened.batches[n:]
    if not kept:
        beam_state.cells[block.cell].clear()
        key_state.blocks.remove(block)
    elif gone:
        block.skip, block.taken_at = opened.ends[n - 1], kept[0].taken_at
        block.count -= sum(each.count for each in gone)
        block.packed -= sum(each.size for each in gone)


def clear(beam_state: BeamState, key_state: KeyState) -> None:
    """Keep nothing more."""
    beam_state.key_state.clear()
    beam_state.inbox.clear()
    for block in key_state.blocks:
        beam_state.cells[block.cell].clear()


def _add(beam_state: BeamState, block: BacklogBlock, packed_batch: PackedBatch) -> None:
    for part in packed_batch.parts(ELEMENT_BYTES):
        beam_state.cells[block.cell].add(pack(part))
    block.count += packed_batch.count
    block.packed += packed_batch.size
    block.taken_at = min(block.taken_at, packed_batch.taken_at)


def _free(key_state: KeyState) -> list[int]:
    used = {block.cell for block in key_state.blocks}
    return [cell for cell in range(CELLS) if cell not in used]
