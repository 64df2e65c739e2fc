"""Settings declared once, as fields of a dataclass: from a field come its flag, its help and its reading.

    index: str = setting("Index that events go to.", "main", read=index_name)

What a field does not say follows from its annotation: how text is read, what stands for a value in help,
what its limits are. Nothing here knows how a setting arrives: by flag, by environment, from a file.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from transforms import readers
from transforms.secret import Secret

T = TypeVar("T")
KEY = "setting"
YEAR = 31_536_000.0  # seconds; longer waits overflow the platform's timers


def setting(
    help: str,
    default: Any = MISSING,
    *,
    default_factory: Any = MISSING,
    hash: bool | None = None,
    **facts: Any,
) -> Any:
    """A field that a person sets: `help` is what it means in one sentence; without a default it is needed.

    facts: whatever of `Setting` does not follow from the annotation; besides, for text,
    `url` (the root of an HTTP service, to which this path, or "", is added by us),
    `pattern` with `right` (a regular expression, and what it asks for in words),
    and `parts` (facts by name for a field that is a dataclass with settings of its own).
    """
    given: dict[str, Any] = {"default": default, "default_factory": default_factory, "hash": hash}
    given = {name: value for name, value in given.items() if value is not MISSING}
    field: Any = dataclasses.field(**given, metadata={KEY: {"help": help, **facts}})
    return field


def shared(name: str, default: Any) -> Any:
    """A field that is set once for all destinations, by a setting `name` of the job."""
    return setting("", default, shared=name)


@dataclass(frozen=True)
class Setting:
    """What is known of one setting: how it is read, what is told about it, what it may be.

    default: None when it has none; `required` when nothing can be done without it.
    called: its name for a person, when that is another than the field's.
    placeholder: what stands for a value in help.
    combine: makes the field's value of all that were read (of a repeatable setting, a tuple).
    pattern: what `read` accepts, as far as a regular expression can say it; in a dialect that RE2 and POSIX
        read as Python does: no \\w, \\s, \\d, and no repeat beyond 1000.
    parent: the setting (and its values, if not any) without which this one makes no sense.
    target: says which service, or as whom; a practice service brings its own.
    on_cluster: what it is where the job does not run on this machine alone.
    part_of: the field that it is a part of ("policy").
    shared: the job's setting that it follows when it is not given itself.
    declared: has been described by `setting`, and not only annotated.
    """

    name: str
    help: str
    default: Any
    required: bool
    read: Callable[[str], Any]
    placeholder: str
    called: str = ""
    unit: str = ""
    choices: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    secret: bool = False
    repeatable: bool = False
    combine: Callable[[Any], Any] | None = None
    example: str = ""
    default_text: str = ""
    pattern: str = ""
    parent: tuple[str, ...] = ()
    target: bool = False
    on_cluster: Literal["used", "ignored", "refused"] = "used"
    part_of: str = ""
    shared: str = ""
    declared: bool = False

    @property
    def default_in_words(self) -> str:
        """The default as a person writes it, "" when there is none."""
        if self.default_text or self.default is None or self.default == ():
            return self.default_text
        if self.unit == "bytes":
            return readers.bytes_in_words(self.default)
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def value(self, text: str) -> Any:
        """`text` as a value. Raises ValueError with what would be right, without repeating `text`."""
        if not text.strip():
            raise ValueError("needs a value")
        value = self.read(text)
        for one in value if isinstance(value, tuple) else (value,):
            self._check(one)
        return value

    def attempt(self, source: str, text: str) -> tuple[Any, str]:
        """The value of `text` and "", or None and a line: what was given, what is wrong, what would be right.

        source: where it came from, "--window_size", "GRANTEX_WINDOW_SIZE" or "grantex.yaml:3: window_size".
        """
        try:
            return self.value(text), ""
        except ValueError as error:
            given = "" if self.secret else readers.shown(text)
            return None, f"{source}{given}: {error}{self.hint()}"

    def hint(self) -> str:
        """What is said behind a fault."""
        return ""

    def _check(self, value: Any) -> None:
        unit = f" {self.unit}" if self.unit else ""
        if self.above is not None and value <= self.above:
            raise ValueError(f"must be more than {self.above:g}{unit}")
        least, most = self.at_least, self.at_most
        if (least is not None and value < least) or (most is not None and value > most):
            raise ValueError(f"must be {_range(least, most)}{unit}")


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most:.0f}"
    return f"at least {least:.0f}" if most is None else f"from {least:.0f} to {most:.0f}"


# From fields to settings


def settings_of(kind: type) -> Sequence[Setting]:
    """The settings of a dataclass, in the order of its fields; also of fields that are only annotated.

    Raises TypeError for an annotation that names what its module does not have.
    """
    return _read_once(kind)


@functools.cache
def _read_once(kind: type) -> Sequence[Setting]:
    """To evaluate all annotations takes milliseconds."""
    return tuple(_read(kind))


def _read(kind: type) -> Iterator[Setting]:
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:
        raise TypeError(f"{kind.__name__}: {error}; import it outside of TYPE_CHECKING") from None
    for field in dataclasses.fields(cast(Any, kind)):
        if not field.init:
            continue
        facts = dict(field.metadata.get(KEY, {}))
        hint = _without_none(hints[field.name])
        if dataclasses.is_dataclass(hint) and any(KEY in each.metadata for each in dataclasses.fields(hint)):
            yield from _parts(field, cast(type, hint), facts.get("parts", {}))
        else:
            yield _setting(field, hint, facts)


def _parts(field: Field[Any], kind: type, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    """The settings of the dataclass that `field` holds, with the field's own default and facts."""
    for each in settings_of(kind):
        default = each.default if field.default is MISSING else getattr(field.default, each.name)
        changes = {**facts.get(each.name, {}), "default": default, "declared": KEY in field.metadata}
        yield replace(each, part_of=field.name, required=False, **changes)


def _setting(field: Field[Any], hint: Any, facts: dict[str, Any]) -> Setting:
    required = field.default is MISSING and field.default_factory is MISSING
    default = None if required else field.default
    if default is MISSING:
        default = () if facts.get("repeatable") else None
    known = {**_of_annotation(hint, facts), **facts}
    return Setting(
        **{"help": "", "required": required, **known},
        name=field.name,
        default=default,
        declared=KEY in field.metadata,
    )


def _without_none(hint: Any) -> Any:
    """The one type of `X | None`; of several, the first of BY_TYPE: `str | Secret` is a secret."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    kinds = [each for each in typing.get_args(hint) if each is not type(None)]
    return next((each for each in BY_TYPE if each in kinds), kinds[0])


def _of_annotation(hint: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What follows from a field's type; facts that only say how it is read are taken out of `facts`."""
    if typing.get_origin(hint) is Literal:
        facts.setdefault("choices", tuple(map(str, typing.get_args(hint))))
    right = facts.pop("right", "")
    if choices := facts.get("choices"):
        return {"read": readers.choice(choices), "placeholder": "|".join(choices)}
    if (ours := facts.pop("url", None)) is not None:
        return {"read": functools.partial(readers.url, ours=ours), "placeholder": "URL", "target": True}
    if right:
        return {"read": readers.matching(facts["pattern"], right), "placeholder": "TEXT"}
    if facts.get("unit"):
        return BY_UNIT[facts["unit"]]
    return BY_TYPE.get(hint) or {"read": _unreadable, "placeholder": ""}


def _unreadable(text: str) -> Any:
    raise ValueError(
        "cannot be given as text: its type must be str, int, float, bool, Path, Literal, tuple[str, ...] or "
        "Secret"
    )


BY_TYPE: Mapping[Any, dict[str, Any]] = {
    Secret: {"read": readers.secret, "placeholder": "SECRET", "secret": True, "target": True},
    bool: {"read": readers.switch, "placeholder": "true|false", "choices": ("true", "false")},
    int: {"read": readers.whole, "placeholder": "NUMBER"},
    float: {"read": readers.number, "placeholder": "NUMBER"},
    Path: {"read": readers.path, "placeholder": "FILE"},
    tuple[str, ...]: {"read": readers.names, "placeholder": "NAME,NAME"},
    str: {"read": readers.line, "placeholder": "TEXT"},
}
BY_UNIT: Mapping[str, dict[str, Any]] = {
    "bytes": {"read": readers.byte_count, "placeholder": "BYTES", "at_least": 1},
    "seconds": {"read": readers.seconds, "placeholder": "SECONDS", "above": 0, "at_most": YEAR},
}


# From settings to what they describe


def made(kind: Callable[..., T], settings: Iterable[Setting], values: Mapping[str, Any]) -> T:
    """A `kind` with these values by name; what is not among them, or None, is left at its default.

    Raises whatever `kind` raises, and ValueError for parts that do not go together.
    """
    arguments: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for each in settings:
        value = values.get(each.name)
        if value is None:
            continue
        if each.part_of:
            parts.setdefault(each.part_of, {})[each.name] = value
        else:
            arguments[each.name] = each.combine(value) if each.combine else value
    for name, changes in parts.items():
        arguments[name] = replace(getattr(kind, name), **changes)
    return kind(**arguments)


class BadSettings(ValueError):
    """Settings that do not go together: for each fault a field, and what is wrong with it.

    Other fields stand in braces in the text ("needs {role_arn}"), so that whoever asked for the settings can
    name them as they were given.
    """

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(worded(self.faults, lambda name: name)))


def worded(
    faults: Iterable[tuple[str, str]], called: Callable[[str], str], given: Callable[[str], str] | None = None
) -> Iterator[str]:
    """Each fault as a line. called: from a field to a person's word for it ("role_arn" to "--s3_role_arn");
    given: the same for the field at fault, when how it was given can be said better."""
    for name, text in faults:
        yield f"{(given or called)(name)}: {text.format_map(_Names(called))}"


class _Names(dict[str, str]):
    def __init__(self, called: Callable[[str], str]) -> None:
        super().__init__()
        self._called = called

    def __missing__(self, name: str) -> str:
        return self._called(name)
