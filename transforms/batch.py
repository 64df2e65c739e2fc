"""When is a batch full or old: BatchPolicy, and the open batches that it governs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPolicy:
    """A batch is closed by whichever of the three comes first."""

    max_events: int = 500
    max_bytes: int = 1_000_000  # encoded bytes, as `Destination.size` counts them
    max_age: float = 1.0  # seconds from its first event
