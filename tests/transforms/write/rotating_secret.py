"""A secret that changes, and counts how often it was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RotatingSecret:
    """Says the next of its values at each reading; the last one for ever."""

    values: list[str]
    reads: int = 0

    def read(self) -> str:
        self.reads += 1
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]
