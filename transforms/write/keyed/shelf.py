"""Where the batches of one key are kept: pieces in the inbox while they fill, whole ones in cells after that.

An element is only added to the inbox, whatever waits there and behind it; the inbox is read when something
in it is to be attempted, or is too much. What cannot be attempted yet goes into blocks, one a cell, of which
only the first is read again. So a backlog costs the elements that come on top of it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.batch import OpenBatch, OpenBatches
from transforms.event import Batch, Event
from transforms.write.keyed.book import Block, Book, Memory, Open, Sealed
from transforms.write.keyed.packing import Parcel, Piece, joined, pack, pack_events, unpack

# State can only be read cell by cell and each cell must be declared: eight, of 4 MB packed (50,000 events)
# as long as there is room. Beyond that new ones are larger by half of what there is, and are cut again when
# their turn comes: the last of a backlog of a million events in one key has some 30 MB.
CELLS = 8
CELL_BYTES = 4_000_000
SPARE = 2  # cells that cutting leaves for what arrives meanwhile
# Sealed batches that wait in the inbox, packed; more of them go into blocks.
INBOX_BYTES = 2_000_000
INBOX_BATCHES = 100


def resume(batches: OpenBatches, book: Book) -> None:
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
        for each in book.open
    }
    batches.resume(found, book.latest_window)


def take_in(
    memory: Memory,
    book: Book,
    batches: OpenBatches,
    closed: Sequence[Batch],
    events: Sequence[Event] = (),
    body: bytes = b"",
) -> None:
    """Keep what `batches` took in since `resume`: new events into the inbox, all else into the book.

    `closed` are the batches that closed on the way; `events` are the new ones and `body` all of them packed.
    """
    before = {each.number: each for each in book.open}

    def keep(number: int, key: tuple[float, str], taken_at: float, new: Sequence[Event]) -> int:
        if not new:
            return 0
        packed = body if len(new) == len(events) else pack_events(new)
        window_end, partition = key
        memory.inbox.add(pack(Piece(number, partition, window_end, taken_at, len(new), packed)))
        return len(packed)

    for batch in closed:
        known = before.get(batch.seal)
        number = batch.seal or _next_number(book)
        packed = keep(number, (batch.window_end, batch.partition), batch.taken_at, batch.events)
        count = len(batch.events) + (known.count if known else 0)
        book.sealed.append(Sealed(number, batch.taken_at, count, packed + (known.packed if known else 0)))
    book.open = []
    for key, each in batches.open.items():
        known = before.get(each.number)
        number = each.number or _next_number(book)
        packed = keep(number, key, each.taken_at, each.events) + (known.packed if known else 0)
        times = each.opened_at, each.closes_at, each.taken_at
        book.open.append(Open(number, key[1], key[0], *times, each.count, each.size, packed))
    book.latest_window = batches.latest_window


def number(book: Book, batch: Batch) -> None:
    """Give a batch that was cut from another one a number of its own."""
    batch.seal = _next_number(book)


def collect(memory: Memory, book: Book, sealed: Sequence[Sealed]) -> list[Parcel]:
    """Take these batches out of the inbox."""
    pieces: dict[int, list[Piece]] = {each.number: [] for each in sealed}
    rest = []
    for packed in memory.inbox.read():
        piece = unpack(Piece, packed)
        if piece.number in pieces:
            pieces[piece.number].append(piece)
        else:
            rest.append(packed)
    memory.inbox.clear()
    for packed in rest:
        memory.inbox.add(packed)
    book.sealed = [each for each in book.sealed if each.number not in pieces]
    return [joined(found) for found in pieces.values()]


def crowded(book: Book) -> bool:
    """The inbox holds more sealed batches than it should."""
    sealed = book.sealed
    return len(sealed) > INBOX_BATCHES or sum(each.packed for each in sealed) > INBOX_BYTES


def put_last(memory: Memory, book: Book, parcels: Sequence[Parcel]) -> None:
    """Keep these batches behind all others."""
    for parcel in parcels:
        blocks = book.blocks
        room = max(CELL_BYTES, sum(block.packed for block in blocks) // 2)
        free = _free(book)
        if not blocks or (blocks[-1].packed >= room and free):
            blocks.append(Block(free[0], parcel.taken_at, 0, 0))
        _add(memory, blocks[-1], parcel)


def load(memory: Memory, block: Block) -> list[Parcel]:
    """Read a block's batches."""
    return [unpack(Parcel, packed) for packed in memory.cells[block.cell].read()]


def put_first(memory: Memory, book: Book, parcels: Sequence[Parcel], instead_of: int) -> None:
    """Keep these batches before all others, in place of the first `instead_of` blocks; cut large ones."""
    for block in book.blocks[:instead_of]:
        memory.cells[block.cell].clear()
    behind = book.blocks[instead_of:]
    book.blocks = behind
    free = _free(book)
    packed = sum(parcel.size for parcel in parcels)
    room = max(CELL_BYTES, packed // max(1, len(free) - SPARE) + 1)
    blocks: list[Block] = []
    for parcel in parcels:
        if not blocks or (blocks[-1].packed >= room and free):
            blocks.append(Block(free.pop(0), parcel.taken_at, 0, 0))
        _add(memory, blocks[-1], parcel)
    book.blocks = [*blocks, *behind]


def clear(memory: Memory) -> None:
    """Keep nothing more."""
    memory.book.clear()
    for cell in (memory.inbox, *memory.cells):
        cell.clear()


def _add(memory: Memory, block: Block, parcel: Parcel) -> None:
    memory.cells[block.cell].add(pack(parcel))
    block.count += parcel.count
    block.packed += parcel.size
    block.taken_at = min(block.taken_at, parcel.taken_at)


def _free(book: Book) -> list[int]:
    used = {block.cell for block in book.blocks}
    return [cell for cell in range(CELLS) if cell not in used]


def _next_number(book: Book) -> int:
    book.next_number += 1
    return book.next_number - 1
