"""What a delivery asks of the place that remembers it: seals before attempts, outcomes before retries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from transforms.event import Batch

Range = tuple[int, int]  # of offsets: the first, and the one behind the last


@dataclass(frozen=True, slots=True)
class Settlement:
    """The recorded outcome of one attempt of a sealed batch, in journal offsets.

    `delivered` and `dead_lettered` are the offsets this attempt settled; the seal is finished when every
    one of its offsets is settled. `batch` is the batch as attempted (its `attempts` already counts it).
    at: when (epoch seconds). place: where what was delivered lies, "" when the destination tells none.
    causes: why each of `dead_lettered` was refused. error: why the rest is to be tried again, "" when nothing
    is left.
    """

    batch: Batch
    delivered: Sequence[int] = ()
    dead_lettered: Sequence[int] = ()
    at: float = 0.0
    place: str = ""
    causes: Sequence[str] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Filtered:
    """Events that were not asked for, as ascending ranges of offsets; at: when that was found (epoch)."""

    ranges: Sequence[Range]
    at: float


class Ledger(Protocol):
    """Durable memory of one destination's deliveries (the journal's cursor on one machine).

    Calls come from one thread at a time, but not always the same one.
    """

    def commit(
        self, settlements: Sequence[Settlement], seals: Sequence[Batch], filtered: Filtered | None = None
    ) -> None:
        """In one transaction record outcomes and what was not asked for, then seal new batches (giving each
        its `seal` number).

        The outcomes' dead letters are already on disk. When this returns, the batches may be attempted.
        """

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Replace what is left of a sealed batch by smaller ones (giving each its `seal`), in one
        transaction.

        `batch` holds exactly the offsets not yet settled, and `parts` the same offsets between them.
        """

    def remember(self, batch: Batch, memo: bytes) -> None:
        """Commit `memo` to the batch's seal."""

    def is_sealed(self, first: int, end: int) -> Collection[int]:
        """The offsets in `[first, end)` that a seal holds or that are settled: not to be batched again.

        Usually empty; only after a restart are there sealed offsets past the cursor.
        """

    def recover(self) -> Sequence[Batch]:
        """Sealed batches not yet settled, oldest first: unchanged ids, memos and offsets, without the
        events that are settled already."""


class MemoryLedger:
    """Remembers nothing beyond the process: for a sink whose runner keeps the durability."""

    def __init__(self) -> None:
        self._seals = 0

    def commit(
        self, settlements: Sequence[Settlement], seals: Sequence[Batch], filtered: Filtered | None = None
    ) -> None:
        for batch in seals:
            self._seals += 1
            batch.seal = self._seals

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        self.commit((), parts)

    def remember(self, batch: Batch, memo: bytes) -> None:
        pass

    def is_sealed(self, first: int, end: int) -> Collection[int]:
        return ()

    def recover(self) -> Sequence[Batch]:
        return ()
