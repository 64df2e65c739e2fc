"""What a delivery asks of the place that remembers it: seals before attempts, outcomes before retries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transforms.event import Batch


@dataclass(frozen=True, slots=True)
class Settlement:
    """The recorded outcome of one attempt of a sealed batch, in journal offsets.

    `delivered` and `dead_lettered` are the offsets this attempt settled; the seal is finished when every
    one of its offsets is settled. `batch` is the batch as attempted (its `attempts` already counts it).
    """

    batch: Batch
    delivered: Sequence[int] = ()
    dead_lettered: Sequence[int] = ()


class Ledger(Protocol):
    """Durable memory of one destination's deliveries (the journal's cursor on one machine).

    Calls come from one thread at a time, but not always the same one.
    """

    def commit(self, settlements: Sequence[Settlement], seals: Sequence[Batch]) -> None:
        """In one transaction record outcomes, then seal new batches (giving each its `seal` number).

        The outcomes' dead letters are already on disk. When this returns, the batches may be attempted.
        """

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Replace a sealed batch of which nothing arrived by smaller ones, in one transaction."""

    def remember(self, batch: Batch, memo: bytes) -> None:
        """Commit `memo` to the batch's seal."""

    def recover(self) -> Sequence[Batch]:
        """Sealed batches not yet settled, oldest first: unchanged ids, memos and offsets, without the
        events that are settled already."""


class MemoryLedger:
    """Remembers nothing beyond the process: for a sink whose runner keeps the durability."""

    def __init__(self) -> None:
        self._seals = 0

    def commit(self, settlements: Sequence[Settlement], seals: Sequence[Batch]) -> None:
        for batch in seals:
            self._seals += 1
            batch.seal = self._seals

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        self.commit((), parts)

    def remember(self, batch: Batch, memo: bytes) -> None:
        pass

    def recover(self) -> Sequence[Batch]:
        return ()
