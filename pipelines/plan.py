"""What a `provision` has found and would do: shown first, done when somebody says yes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class CannotProvision(Exception):
    """It cannot be done; the text says why and what to do. bad: for wrong parameters (exit code 2)."""

    def __init__(self, why: str, bad: bool = False) -> None:
        super().__init__(why)
        self.bad = bad


class Plan(NamedTuple):
    """lines: what is there, and what would be done. act: does it and says what was done, a line at a time;
    None when nothing is to be done. It may raise CannotProvision and SecretError."""

    lines: Sequence[str]
    act: Callable[[], Iterable[str]] | None
