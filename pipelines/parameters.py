"""Parameter: everything about one setting, declared once, as the metadata of a dataclass field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines import values
from transforms.secret import Secret, SecretError, parse_secret

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

YEAR = 31_536_000.0  # seconds; longer waits overflow the platform's timers


@dataclass(frozen=True)
class Group:
    """Parameters that belong together; those of a destination are on when its `first` flag is given."""

    title: str
    destination: str = ""
    first: str = ""


@dataclass(frozen=True)
class Parameter:
    """One setting: a flag, an environment variable, a row of the README and a field of Settings."""

    group: Group
    default: Any
    help: str
    read: Callable[[str], Any]  # raises ValueError with what would be right
    placeholder: str
    name: str = ""  # the field's name, filled in by `declared`
    unit: str = ""
    choices: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    secret: bool = False
    repeatable: bool = False
    required: bool = False  # whenever its group is on
    in_demo: bool = True  # may be given together with --demo=true
    on_cluster: Literal["used", "ignored", "refused"] = "used"  # when the runner is no lane of this machine
    example: str = ""
    default_text: str = ""
    # For the form of a template: what `read` accepts as far as a regular expression can say it, the kind of
    # input, and the parameter (with its values, if not any) without which it makes no sense.
    pattern: str = ""
    param_type: str = ""
    parent: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return f"GRANTEX_{self.name.upper()}"

    @property
    def default_in_words(self) -> str:
        """The default as a person writes it, "" when there is none."""
        if self.default_text or self.default is None or self.default == ():
            return self.default_text
        if self.unit == "bytes":
            return values.bytes_in_words(self.default)
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

    def _check(self, value: Any) -> None:
        unit = f" {self.unit}" if self.unit else ""
        if self.above is not None and value <= self.above:
            raise ValueError(f"must be more than {self.above:g}{unit}")
        least, most = self.at_least, self.at_most
        if (least is not None and value < least) or (most is not None and value > most):
            raise ValueError(f"must be {_range(least, most)}{unit}")

    def attempt(self, source: str, text: str) -> tuple[Any, str]:
        """The value of `text` and "", or None and a line: what was given, what is wrong, what would be right.

        source: where it came from, "--window_size" or "GRANTEX_WINDOW_SIZE".
        """
        try:
            return self.value(text), ""
        except ValueError as error:
            given = "" if self.secret else values.shown(text)
            return None, f"{source}{given}: {error}{self._hint()}"

    def _hint(self) -> str:
        if self.default_in_words:
            return f"; the default is {self.default_in_words}"
        return f"; for example {self.flag}={self.example}" if self.example else ""


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most:.0f}"
    return f"at least {least:.0f}" if most is None else f"from {least:.0f} to {most:.0f}"


def declared(settings: Any) -> dict[str, Parameter]:
    """The parameters of a settings class by name, in the order of its bases and of their declarations.

    (A dataclass itself has its fields from the last base to the first.)
    """
    rooms = [each for each in (*settings.__bases__, settings) if is_dataclass(each)]
    return {
        each.name: replace(each.metadata["parameter"], name=each.name)
        for room in rooms
        for each in fields(room)
        if "parameter" in each.metadata
    }


# One function a kind. The type that each returns is that of the field, so that mypy compares the two.


def text(group: Group, default: str, help: str, **more: Any) -> str:
    read, placeholder = more.pop("read", values.line), more.pop("placeholder", "TEXT")
    return _field(default, group, help, read, placeholder, **more)


def whole(group: Group, default: int, help: str, **more: Any) -> int:
    return _field(default, group, help, values.whole, "NUMBER", **more)


def byte_count(group: Group, default: int, help: str, *, at_least: int = 1, **more: Any) -> int:
    return _field(default, group, help, values.byte_count, "BYTES", unit="bytes", at_least=at_least, **more)


def seconds(group: Group, default: float, help: str) -> float:
    return _field(default, group, help, values.seconds, "SECONDS", unit="seconds", above=0, at_most=YEAR)


def switch(group: Group, help: str, **more: Any) -> bool:
    return _field(False, group, help, values.switch, "true|false", choices=("true", "false"), **more)


def choice(group: Group, default: Word, help: str, choices: tuple[Word, ...], later: str = "") -> Word:
    """One of `choices`, in any case; `later` says what is wrong with what is not there yet."""

    def read(given: str) -> str:
        for each in choices:
            if each.lower() == given.lower():
                return each
        words = choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        raise ValueError(f"must be {words}" + (f"; {later}" if later else ""))

    return _field(default, group, help, read, "|".join(choices), choices=choices)


def names(group: Group, help: str, **more: Any) -> tuple[str, ...]:
    none: tuple[str, ...] = ()
    read, placeholder = more.pop("read", values.names), more.pop("placeholder", "NAME,NAME")
    return _field(none, group, help, read, placeholder, **more)


def pairs(
    group: Group, help: str, *, read: Callable[[str], tuple[T, ...]], placeholder: str, **more: Any
) -> tuple[T, ...]:
    """Whatever `read` makes of each of several; what was given is never shown, it may hold secrets."""

    def each(given: str) -> tuple[T, ...]:
        return tuple(one for part in values.several(given) for one in read(part))

    none: tuple[T, ...] = ()
    return _field(none, group, help, each, placeholder, secret=True, repeatable=True, **more)


def directory(group: Group, default: Path, help: str, **more: Any) -> Path:
    return _field(default, group, help, values.path, "DIRECTORY", **more)


def optional_path(group: Group, help: str, placeholder: str, **more: Any) -> Path | None:
    none: Path | None = None
    return _field(none, group, help, values.path, placeholder, **more)


def url(group: Group, default: str, help: str, *, ours: str, **more: Any) -> str:
    """The root of a service that has the path `ours` ("" when none is added); "" without a default."""
    return _field(default, group, help, partial(values.url, ours=ours), "URL", in_demo=False, **more)


def secret(group: Group, help: str, **more: Any) -> Secret | None:
    def read(given: str) -> Secret:
        try:
            return parse_secret(given)
        except SecretError as error:
            raise ValueError(str(error)) from None

    none: Secret | None = None
    return _field(none, group, help, read, "SECRET", secret=True, in_demo=False, **more)


def _field(
    default: T, group: Group, help: str, read: Callable[[str], Any], placeholder: str, **more: Any
) -> T:
    parameter = Parameter(group, default, help, read, placeholder, **more)
    return field(default=default, metadata={"parameter": parameter})
