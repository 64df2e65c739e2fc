"""--custom_destination: a class of one's own, or one of ours once more, with settings given as text."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import unquote

from transforms.secret import redact
from transforms.setting import BadSettings, Setting, made, settings_of, worded
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination

D = TypeVar("D", bound=Destination)
FORM = "package.module:Class?name=NAME&key=value"
PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
CLASS = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# It becomes a part of metric names, labels and directories.
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
OF_A_POLICY = ("max_events", "max_bytes", "max_age")
ASKED = "asked"


@dataclasses.dataclass(frozen=True)
class EveryDestination:
    """What can be set of any destination, whatever fields its class has."""

    asked: Asked = asked_for()


def load(text: str) -> tuple[Destination, ...]:
    """The one destination that `text` (FORM) describes; its module is imported.

    Raises ValueError with what would be right; never repeats a value, which may be a secret.
    """
    where, _, query = text.partition("?")
    return (from_texts(class_called(where, FORM), where, _options(query)),)


def class_called(text: str, form: str = "package.module:Class") -> type[Destination]:
    """The class that `text` names; its module is imported. Raises ValueError as `load` does."""
    module, colon, name = text.partition(":")
    if not (colon and PATH.fullmatch(module) and CLASS.fullmatch(name)):
        raise ValueError(f"must be {form}")
    _look_here_too()
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(
                f"there is no module {module}, neither installed nor under {os.getcwd()}; start in the "
                f"directory that has {module.partition('.')[0]}, or install its package (pip install -e PATH)"
            ) from None
        raise ValueError(f"{module} imports {error.name}, which is not installed") from None
    except Exception as error:  # noqa: BLE001 - whatever a person's own module raises
        raise ValueError(redact(f"importing {module} fails: {type(error).__name__}: {error}")) from None
    found = getattr(imported, name, None)
    if found is None:
        raise ValueError(f"{module} has no {name}")
    if not (isinstance(found, type) and issubclass(found, Destination)):
        raise ValueError(f"{module}:{name} must be a subclass of transforms.write.contract.Destination")
    if not dataclasses.is_dataclass(found):
        raise ValueError(f"{module}:{name} must be a dataclass: write @dataclass(frozen=True) above it")
    return found


def _look_here_too() -> None:
    """`python -m` looks in the current directory by itself, an installed `grantex-beam` does not. Last, so
    that nothing in there takes the place of what is installed."""
    here = os.getcwd()
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()


def _options(query: str) -> dict[str, str]:
    """Keys and texts of `query`; %26 stands for an & in a value, a + for itself."""
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        if not (equals and CLASS.fullmatch(key)):
            raise ValueError(f"must be {FORM}, each key a word followed by = and its value")
        if key in options:
            raise ValueError(f"{key} is given twice")
        options[key] = unquote(value)
    return options


def from_texts(kind: type[D], path: str, texts: Mapping[str, str]) -> D:
    """A `kind` called `texts["name"]`, with its other settings read from their texts.

    path: what to call the class in a message. Raises ValueError as `load` does.
    """
    name = texts.get("name", "")
    if not NAME.fullmatch(name):
        raise ValueError("needs ?name=NAME: lower-case letters, digits and _, beginning with a letter")
    known = keys_of(kind, path)
    values = _values(path, known, _by_key(known, {key: texts[key] for key in texts if key != "name"}))
    try:
        return made_of(kind, path, name, known, values)
    except BadSettings as error:
        keys = {each.name: key for key, each in known.items()}
        raise ValueError("; ".join(worded(error.faults, lambda field: keys.get(field, field)))) from None


def made_of(
    kind: type[D], path: str, name: str, known: Mapping[str, Setting], values: Mapping[str, object]
) -> D:
    """A `kind` called `name` with these values by field. Raises BadSettings for those that do not go
    together, and ValueError for whatever else its class raises."""
    fields = {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if "name" in fields:
        values = {**values, "name": name}
    told = [each for each in known.values() if each.part_of != ASKED or ASKED in fields]
    try:
        found = named(made(kind, told, values), name)
        if ASKED not in fields:
            common = [each for each in known.values() if each.part_of == ASKED]
            object.__setattr__(found, ASKED, made(EveryDestination, common, values).asked)
        faults = list(found.faults())
    except BadSettings:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a person's own class raises
        raise ValueError(redact(f"{path} cannot be made: {type(error).__name__}: {error}")) from None
    if faults:
        raise BadSettings(faults)
    return found


def keys_of(kind: type[Destination], path: str) -> dict[str, Setting]:
    """The settings of `kind` by key, which is the flag without the destination's name ("hec_url")."""
    try:
        found = list(settings_of(kind))
    except TypeError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not any(each.part_of == ASKED for each in found):
        found += settings_of(EveryDestination)
    # A field of its own goes before a part of its policy that is called the same.
    found.sort(key=lambda each: not each.part_of)
    return {each.called or each.name: each for each in found}


def _by_key(known: Mapping[str, Setting], texts: Mapping[str, str]) -> dict[str, str]:
    """A field may also be called as its class calls it: "url" for "hec_url"."""
    keys = {each.name: key for key, each in known.items() if not each.part_of}
    found: dict[str, str] = {}
    for given, text in texts.items():
        key = given if given in known else keys.get(given, given)
        if key in found:
            raise ValueError(f"{key} is given twice, once as {given}")
        found[key] = text
    return found


def _values(path: str, known: Mapping[str, Setting], texts: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, text in texts.items():
        if key not in known or key == "name":
            if key in OF_A_POLICY:
                raise ValueError(f"{path} has no field `policy`, so {key} cannot be set")
            raise ValueError(f"{path} has no {key}; it has {', '.join(sorted(known.keys() - {'name'}))}")
        try:
            values[known[key].name] = known[key].value(text)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    for key, each in known.items():
        if each.required and key not in texts and key != "name":
            raise ValueError(f"{path} needs {key}: add {key}=VALUE behind the ?")
    return values


def changed(destination: D, **changes: object) -> D:
    """A copy with other values of its fields, and all else of its own."""
    asked = changes.pop(ASKED, destination.asked)
    copy = dataclasses.replace(destination, **changes)  # type: ignore[type-var]
    for name, value in ((ASKED, asked), ("name", destination.name)):
        object.__setattr__(copy, name, value)
    return copy


def named(destination: D, name: str) -> D:
    """`destination` under a name of its own, which shadows its class's, also in a copy that was pickled."""
    if destination.name != name:
        object.__setattr__(destination, "name", name)
    return destination
