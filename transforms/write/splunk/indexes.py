"""Which of Splunk's indexes an event goes to, by its type: rules of PATTERN=INDEX, the first that matches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from transforms import readers
from transforms.event import Event
from transforms.event_types import PerType

T = TypeVar("T")
# Of an index, from Splunk's "Create custom indexes".
INDEX = "[a-z0-9_][a-z0-9_-]*"
INDEX_IN_WORDS = "lower-case letters, digits, _ and -, as Splunk's index names are"
EVERYTHING = "*"


def read_rules(text: str) -> tuple[str, ...]:
    """TYPE_OR_PATTERN=INDEX between commas. Raises ValueError with what would be right."""
    found = readers.names(text)
    pairs(found)
    return found


def pairs(rules: Iterable[str]) -> list[tuple[str, str]]:
    """Pattern and index of each rule, in order. Raises ValueError for what is no rule, or can never match."""
    found: dict[str, str] = {}
    for rule in rules:
        pattern, is_rule, index = rule.rpartition("=")
        if not is_rule or not pattern:
            raise ValueError("must be TYPE=INDEX, where TYPE is an event type or a pattern of it")
        if pattern.startswith("!"):
            raise ValueError("must not have a !: the first pattern that matches counts")
        if not re.fullmatch(INDEX, index, re.ASCII):
            raise ValueError(f"must have an index behind each =: {INDEX_IN_WORDS}")
        if pattern in found:
            raise ValueError("has a pattern twice, of which only the first would count")
        if EVERYTHING in found:
            raise ValueError("has a pattern behind *, which matches everything")
        found[pattern] = index
    return list(found.items())


class ByType(PerType[T]):
    """What stands for the events of a type: the first pattern's that matches, or else the last resort."""

    def __init__(self, choices: Sequence[tuple[str, T]], otherwise: T) -> None:
        super().__init__()
        self._choices, self._otherwise = choices, otherwise

    def answer(self, kind: str) -> T:
        matching = (value for pattern, value in self._choices if fnmatchcase(kind, pattern))
        return next(matching, self._otherwise)


class Indexes:
    """The indexes of a Splunk. names: all that an event may go to, each once."""

    def __init__(self, index: str, rules: Sequence[str]) -> None:
        chosen = pairs(rules)
        self._of = ByType(chosen, index)
        never = any(pattern == EVERYTHING for pattern, _ in chosen)
        self.names = tuple(dict.fromkeys([*(name for _, name in chosen), *([] if never else [index])]))

    def of(self, events: Sequence[Event]) -> tuple[str, ...]:
        """Those that these events go to."""
        if len(self.names) == 1:
            return self.names
        return tuple(sorted({self._of[kind] for kind in {event.type for event in events}}))

    def refused(self, events: Sequence[Event], number: int | None) -> str:
        """Which one HEC refused of a request of these events, in quotes. number: what HEC says, which is one
        too high; None when it says none."""
        known = number is not None and 1 <= number <= len(events)
        asked = events[number - 1 : number] if number is not None and known else events
        return in_words([repr(name) for name in self.of(asked) or self.names])

    def __str__(self) -> str:
        return in_words(self.names)


def in_words(names: Sequence[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
