"""What a `provision` has found and would do: shown first, done when somebody says yes.

A destination describes each thing that belongs at its service; what is missing is made, what is there
already is left alone, and what somebody has made otherwise is shown and left as well, unless it is to be
overwritten.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pipelines.flags.settings import Settings
from transforms.secret import shown

LONGEST = 100  # characters of a value that are shown


class CannotProvision(Exception):
    """It cannot be done; the text says why and what to do. bad: for wrong parameters (exit code 2)."""

    def __init__(self, why: str, bad: bool = False) -> None:
        super().__init__(why)
        self.bad = bad


class Refused(CannotProvision):
    """One thing is refused, such as for a right that is missing; the others can go on."""


def required(settings: Settings, name: str, part: str) -> Any:
    """The value of a parameter that `provision PART` cannot do without. Raises CannotProvision."""
    if not settings[name]:
        raise CannotProvision(f"--{name}: is missing; `provision {part} --help` says what it is", bad=True)
    return settings[name]


def unreachable(where: str, error: object) -> CannotProvision:
    """For a service that did not answer."""
    return CannotProvision(f"{where} could not be reached: {shown(str(error)) or type(error).__name__}")


class Certainty(NamedTuple):
    """A second question, for what nobody can take back: only `answer`, typed in full, is a yes. flag: says
    the same where nobody can be asked."""

    question: str
    answer: str
    flag: str


class Plan(NamedTuple):
    """lines: what is there, and what would be done. act: does it and says what was done, a line at a time;
    None when nothing is to be done. It may raise CannotProvision and SecretError."""

    lines: Sequence[str]
    act: Callable[[], Iterable[str]] | None
    certainty: Certainty | None = None


@dataclass(frozen=True)
class Thing:
    """One thing that belongs at a service.

    what: as a person calls it. wanted: the settings that we would give it; found: those that it has, None
    when it is missing. A setting that only `found` has is the service's, and not looked at.
    make: makes it. change: gives it all of `wanted`; None where nobody can, and `by_hand` says what to do.
    for_ever: to be asked for twice, when it is made or changed.
    """

    what: str
    wanted: Mapping[str, Any]
    found: Mapping[str, Any] | None
    make: Callable[[], object]
    change: Callable[[], object] | None = None
    by_hand: str = ""
    for_ever: Certainty | None = None
    differences: Sequence[Difference] = field(init=False)

    def __post_init__(self) -> None:
        found = () if self.found is None else tuple(differences(self.wanted, self.found))
        object.__setattr__(self, "differences", found)


class Difference(NamedTuple):
    """setting: its name, "options.thresholds.critical" where it is inside of others."""

    setting: str
    there: Any
    ours: Any


def differences(wanted: Any, found: Any, name: str = "") -> Iterator[Difference]:
    """Where `found` is not as `wanted`. Nothing, and what is empty, are the same."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key, ours in wanted.items():
            yield from differences(ours, found.get(key), f"{name}.{key}" if name else str(key))
    elif _is_list(wanted) and _is_list(found) and len(wanted) == len(found):
        for index, (ours, there) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(ours, there, f"{name}[{index}]")
    elif wanted != found and (wanted or found):
        yield Difference(name, found, wanted)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def plan_of(head: str, things: Sequence[Thing], by_hand: Sequence[str] = (), overwrite: bool = False) -> Plan:
    """The plan that makes `things` what they should be.

    head: where that is, and as whom. by_hand: what cannot be done from here, each with the command for it.
    overwrite: what somebody has made otherwise becomes ours.
    """
    lines = [head]
    for each in things:
        lines += _shown(each, overwrite)
    lines += [f"  by hand     {each}" for each in by_hand]
    missing = [each for each in things if each.found is None]
    changed = [each for each in things if each.differences and each.change and overwrite]
    left = sum(1 for each in things if each.differences) - len(changed)
    if left:
        which = "one thing is otherwise, and left" if left == 1 else f"{left} things are otherwise, and left"
        lines.append(f"{which} so; --overwrite=true makes what we can ours")
    if not missing and not changed:
        return Plan([*lines, "nothing is to be done"], None)
    certainty = next((each.for_ever for each in (*missing, *changed) if each.for_ever), None)
    return Plan(lines, partial(_carry_out, missing, changed), certainty)


def _count(number: int) -> str:
    return "one thing is" if number == 1 else f"{number} things are"


def _shown(thing: Thing, overwrite: bool) -> Iterator[str]:
    if thing.found is None:
        settings = ", ".join(f"{name} {_value(value)}" for name, value in thing.wanted.items() if value)
        yield f"  to be made  {thing.what}{_short(settings)}"
    elif not thing.differences:
        yield f"  there       {thing.what}"
    else:
        todo = "to be ours" if overwrite and thing.change else "different "
        yield f"  {todo}  {thing.what}"
        for each in thing.differences:
            yield from _difference(each)
        if thing.by_hand and not thing.change:
            yield f"                {thing.by_hand}"


def _short(settings: str) -> str:
    """Settings beside a name, when they are few; longer ones are for --print=true."""
    return f": {settings}" if settings and len(settings) <= LONGEST and "\n" not in settings else ""


def _difference(each: Difference) -> Iterator[str]:
    there, ours = each.there, each.ours
    if isinstance(there, str) and isinstance(ours, str) and "\n" in there + ours:
        yield f"                {each.setting}: another text (- there, + ours)"
        for line in difflib.ndiff(there.splitlines(), ours.splitlines()):
            if line[:1] in "+-":
                yield f"                  {shown(line)}"
    else:
        yield f"                {each.setting}: there {_value(there)}, ours {_value(ours)}"


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    clean = shown(text, LONGEST)
    return f"{clean} …" if len(text) > LONGEST else clean or '""'


def _carry_out(missing: Sequence[Thing], changed: Sequence[Thing]) -> Iterator[str]:
    """Make and change them; what is refused is told and the others go on. Raises CannotProvision."""
    refused = 0
    deeds = [("made", each, each.make) for each in missing]
    deeds += [("now ours", each, each.change) for each in changed if each.change]
    for done, each, deed in deeds:
        if why := _refusal(deed):
            refused += 1
            yield f"  REFUSED     {each.what}: {why}"
        else:
            yield f"  {done:<10}  {each.what}"
    if refused:
        raise CannotProvision(
            f"{_count(refused)} refused, as said above; the rest is done, and another run goes on from there"
        )


def _refusal(deed: Callable[[], object]) -> str:
    """Why it was refused, "" when it is done."""
    try:
        deed()
    except Refused as error:
        return str(error)
    return ""
