"""One destination's account with the journal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Books:
    """One destination's account since its cursor was born, in events."""

    received: int
    delivered: int
    dead_lettered: int
    pending: int
    lost: int = 0  # with a damaged journal

    @property
    def balanced(self) -> bool:
        """received = delivered + dead-lettered + pending + lost; `pending` is counted by itself."""
        return self.received == self.delivered + self.dead_lettered + self.pending + self.lost
