"""A parameter: a setting with its flag, its environment variable and the group that it is shown in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

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

    def hint(self) -> str:
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


# Names as people type them


def normal(name: str) -> str:
    """As our names are written: small letters and _."""
    return name.lower().replace("-", "_").lstrip("_")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The candidate that `name` is most likely a slip for, or ""."""
    wanted, known = normal(name), list(candidates)
    if wanted in known:
        return wanted
    longer = [each for each in known if each.startswith(wanted) or each.endswith(f"_{wanted}")]
    if len(longer) == 1:
        return longer[0]
    return next(iter(difflib.get_close_matches(wanted, known, n=1, cutoff=0.75)), "")


def is_plain(name: str) -> bool:
    """Whether a message may repeat it: a secret may stand where a name should."""
    return re.fullmatch(r"[A-Za-z][A-Za-z_-]{0,40}\d?[A-Za-z_-]{0,40}", name) is not None
