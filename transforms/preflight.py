"""What trying a way out comes to without an event: at the start of a run, and whenever a person asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that delivery needs, tried.

    what: in a few words, such as "the HEC token".
    passed: None when it could not be told from here.
    cause: what happened and what to do about it, in plain words; "" when it passed. With one that passed it
        is a warning: delivery works, and somebody should know this before it matters.
    note: what else was seen, or is left behind: the key's plan, an object. Neither it nor `cause` has a
        secret in it.
    """

    what: str
    passed: bool | None
    cause: str = ""
    note: str = ""


# Tries, one after another. It may raise what a broken connection raises.
Try = Callable[[], Iterable[Finding]]
