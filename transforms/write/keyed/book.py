"""The book of one key: all that a delivery must know about what it keeps, small enough to read each time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from transforms.write.keyed.packing import VERSION, check_version
from transforms.write.outbox.settling import RETRY_AFTER_CAP


class Open(msgspec.Struct, array_like=True):
    """A batch that still takes events; they are in the inbox, `packed` bytes of them."""

    number: int
    partition: str
    window_end: float
    opened_at: float
    closes_at: float
    taken_at: float
    count: int
    size: int
    packed: int


class Sealed(msgspec.Struct, array_like=True):
    """A batch that takes no more events; they are in the inbox too, until its first attempt."""

    number: int
    taken_at: float
    count: int
    packed: int


class Block(msgspec.Struct, array_like=True):
    """Batches that wait, all in the cell of this number."""

    cell: int
    taken_at: float  # of the oldest
    count: int
    packed: int


class Flight(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that had not ended when its bundle did."""

    number: int
    batch_id: str
    attempts: int


class Book(msgspec.Struct):
    """All times in seconds since the epoch: a monotonic clock means nothing to the next process."""

    next_number: int = 1
    open: list[Open] = []
    latest_window: float = -math.inf
    sealed: list[Sealed] = []
    blocks: list[Block] = []  # oldest first
    flight: Flight | None = None
    attempt_at: float | None = None  # when to look at what is sealed; None when nothing is
    wake_at: float | None = None  # what the timer is set to
    not_before: float = -math.inf
    failures: int = 0
    open_since: float | None = None  # of the circuit
    probe_at: float = 0.0
    why: str = ""

    def _kept(self) -> list[Open | Sealed | Block]:
        return [*self.open, *self.sealed, *self.blocks]

    def set_back(self, now: float) -> None:
        """Times beyond what anybody asks for are from a wall clock that was set back: then it is time now."""
        latest = now + RETRY_AFTER_CAP
        self.attempt_at = None if self.attempt_at is None else soon(self.attempt_at, now)
        self.wake_at = None if self.wake_at is None or self.wake_at > latest else self.wake_at
        self.not_before, self.probe_at = soon(self.not_before, now), soon(self.probe_at, now)
        for each in self.open:
            each.opened_at = min(each.opened_at, now)

    def pending(self) -> int:
        """Events that are neither delivered nor dead letters."""
        return sum(each.count for each in self._kept())

    def oldest(self) -> float | None:
        """When the oldest of them was received."""
        return min((each.taken_at for each in self._kept()), default=None)

    def waiting(self) -> bool:
        """Something is sealed."""
        return bool(self.sealed or self.blocks)


def soon(time: float, now: float) -> float:
    """`time`, unless it is further ahead than anything that is waited for."""
    return time if time <= now + RETRY_AFTER_CAP else now


_decode = msgspec.msgpack.Decoder(Book).decode


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
class Memory:
    """The state of one key. Whoever only takes events in leaves the cells out."""

    book: Value
    inbox: Bag
    cells: Sequence[Bag] = ()

    def open_book(self) -> Book | None:
        """The book; None for a key that has none yet. Raises NewerState."""
        packed = self.book.read()
        if not packed:
            return None
        check_version(packed)
        return _decode(memoryview(packed)[1:])

    def close_book(self, book: Book) -> None:
        """Keep it for the next bundle."""
        self.book.write(VERSION + msgspec.msgpack.encode(book))
