"""A parameter: a setting with its flag, its environment variable and the group that it is shown in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from transforms.readers import shown
from transforms.setting import Setting, settings_of

PREFIX = "GRANTEX_"


@dataclass(frozen=True)
class Group:
    """Parameters that belong together; those of a destination are on when its `first` flag is given."""

    title: str
    destination: str = ""
    first: str = ""


@dataclass(frozen=True, kw_only=True)
class Parameter(Setting):
    """A setting under the name of its flag: an environment variable, a row of the table, a line of help."""

    group: Group

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.name.upper()}"

    @property
    def is_switch(self) -> bool:
        """True or false: the flag alone says true."""
        return self.choices == ("true", "false")

    @property
    def in_demo(self) -> bool:
        """May be given together with --demo=true, which brings its own services."""
        return not self.target

    def attempt(self, source: str, text: str) -> tuple[Any, str]:
        """The value of `text` and "", or None and a line: what was given, what is wrong, what would be right.

        source: where it came from, "--window_size" or "GRANTEX_WINDOW_SIZE".
        """
        try:
            return self.value(text), ""
        except ValueError as error:
            given = "" if self.secret else shown(text)
            return None, f"{source}{given}: {error}{self._hint()}"

    def _hint(self) -> str:
        if self.default_in_words:
            return f"; the default is {self.default_in_words}"
        return f"; for example {self.flag}={self.example}" if self.example else ""


def declared(room: Any) -> Iterator[Parameter]:
    """The parameters that a room of general settings declares, whose class says their `group`."""
    for each in settings_of(room):
        if each.declared:
            yield parameter(each, room.group, name=each.called or each.name)


def parameter(setting: Setting, group: Group, **changes: Any) -> Parameter:
    """`setting` as a parameter of `group`, but for `changes`."""
    facts = {each.name: getattr(setting, each.name) for each in fields(Setting)}
    return Parameter(**{**facts, **changes}, group=group)
