"""Text to value, one function a kind; each raises ValueError with what would be right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from transforms.proxies import Proxy, parse_proxy
from transforms.secret import Secret, SecretError, parse_secret

BYTE_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
# Shown back in an error. Anything else might be a secret that landed on the wrong flag.
_HARMLESS = re.compile(
    r"[-+]?[\d.]{1,14}([eE]-?\d{1,3}|[A-Za-z]{1,3})?|[-+]?(nan|inf|infinity)|(/|\./|\.\./|~/)[^\s]*"
    r"|https?://[^\s@?#]*|\w{1,20}Runner",
    re.IGNORECASE | re.ASCII,
)
_HOST = re.compile(r"[\w.-]+", re.ASCII)


def read_whole(text: str) -> int:
    """A decimal whole number."""
    if not re.fullmatch(r"[-+]?\d{1,18}", text, re.ASCII):
        raise ValueError("must be a whole number")
    return int(text)


def read_seconds(text: str) -> float:
    """A finite decimal number of seconds."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII) or not math.isfinite(
        float(text)
    ):
        raise ValueError("must be a number of seconds without a unit")
    return float(text)


def read_byte_count(text: str) -> int:
    """A number of bytes, with or without one of BYTE_UNITS."""
    found = re.fullmatch(r"([-+]?\d{1,18}) ?([A-Za-z]*)", text, re.ASCII)
    if found is None or found[2] not in BYTE_UNITS:
        raise ValueError("must be a number of bytes, such as 1000000, 16MiB or 10GiB")
    return int(found[1]) * BYTE_UNITS[found[2]]


def bytes_in_words(count: int) -> str:
    """`count` with the largest unit that divides it: 10 GiB, 64 MB."""
    for unit in sorted(BYTE_UNITS, key=BYTE_UNITS.__getitem__, reverse=True):
        if count and count % BYTE_UNITS[unit] == 0:
            return f"{count // BYTE_UNITS[unit]} {unit}".rstrip()
    return str(count)


def read_switch(text: str) -> bool:
    """`true` or `false`: Flex Templates can only pass a flag with a value."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def read_names(text: str) -> tuple[str, ...]:
    """Names between commas, each once; blanks around them are not part of them."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in found:
        raise ValueError("has an empty name between its commas")
    for name in found:
        printable(name)
    return found


def several(text: str) -> list[str]:
    """`text` itself, or the parts of `^SEPARATOR^part SEPARATOR part`, which is how gcloud writes it: a
    template's parameter and an environment variable cannot be repeated as a flag can."""
    if not text.startswith("^"):
        return [text]
    separator, closed, rest = text[1:].partition("^")
    if not closed or not separator or "" in (parts := rest.split(separator)):
        raise ValueError("must be ^~^ONE~OTHER, with any separator between the two ^, or have no ^ in front")
    return parts


def printable(text: str) -> str:
    """Text without blanks."""
    if not text.isprintable() or " " in text:
        raise ValueError("must not contain blanks or characters that cannot be printed")
    return text


def line(text: str) -> str:
    """One line of text, blanks inside included."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be one line of printable characters without blanks around it")
    return text


def path(text: str) -> Path:
    """A path on this machine; `~` is the home directory."""
    if "://" in text:
        raise ValueError("must be a directory or file on this machine")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("names a home directory that does not exist") from None


def host(text: str) -> str:
    """A host name or an IP address to listen on."""
    if not (_HOST.fullmatch(text) or re.fullmatch(r"[0-9a-fA-F:.]+", text)):
        raise ValueError("must be a host name or an IP address, such as 127.0.0.1 or 0.0.0.0")
    return text


def read_url(text: str, ours: str) -> str:
    """The root of an HTTP service, without a trailing slash; the path `ours`, if any, is ours to add."""
    printable(text)
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be a URL that begins with https:// or http:// and a host")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or password, which would end up in logs")
    _check_host(parts)
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must end with the host or a path, without ? and #")
    root = parts.path.rstrip("/")
    if ours and ours in f"{root}/":
        raise ValueError(f"must be the root of the service; {ours} is added by itself")
    return f"{parts.scheme}://{parts.netloc}{root}"


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError("must have a host name or an IP address after ://") from None


def _check_host(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("must have a port from 1 to 65535 after the host, or none")
    name = parts.hostname or ""
    try:
        internet = name.encode("idna").decode()
    except UnicodeError:
        internet = ""
    if ":" not in name and not _HOST.fullmatch(internet):
        raise ValueError("must have a host name or an IP address after ://")


def shown(text: str) -> str:
    """`=text` when it cannot be a secret that was given to the wrong flag, else nothing."""
    return f"={text}" if len(text) <= 200 and _HARMLESS.fullmatch(text) else ""


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
            return bytes_in_words(self.default)
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
            given = "" if self.secret else shown(text)
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
    read, placeholder = more.pop("read", line), more.pop("placeholder", "TEXT")
    return _field(default, group, help, read, placeholder, **more)


def whole(group: Group, default: int, help: str, **more: Any) -> int:
    return _field(default, group, help, read_whole, "NUMBER", **more)


def byte_count(group: Group, default: int, help: str, *, at_least: int = 1, **more: Any) -> int:
    return _field(default, group, help, read_byte_count, "BYTES", unit="bytes", at_least=at_least, **more)


def seconds(group: Group, default: float, help: str) -> float:
    return _field(default, group, help, read_seconds, "SECONDS", unit="seconds", above=0, at_most=YEAR)


def switch(group: Group, help: str, **more: Any) -> bool:
    return _field(False, group, help, read_switch, "true|false", choices=("true", "false"), **more)


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
    read, placeholder = more.pop("read", read_names), more.pop("placeholder", "NAME,NAME")
    return _field(none, group, help, read, placeholder, **more)


def pairs(
    group: Group, help: str, *, read: Callable[[str], tuple[T, ...]], placeholder: str, **more: Any
) -> tuple[T, ...]:
    """Whatever `read` makes of each of several; what was given is never shown, it may hold secrets."""

    def each(given: str) -> tuple[T, ...]:
        return tuple(one for part in several(given) for one in read(part))

    none: tuple[T, ...] = ()
    return _field(none, group, help, each, placeholder, secret=True, repeatable=True, **more)


def directory(group: Group, default: Path, help: str, **more: Any) -> Path:
    return _field(default, group, help, path, "DIRECTORY", **more)


def optional_path(group: Group, help: str, placeholder: str, **more: Any) -> Path | None:
    none: Path | None = None
    return _field(none, group, help, path, placeholder, **more)


def url(group: Group, default: str, help: str, *, ours: str, **more: Any) -> str:
    """The root of a service that has the path `ours` ("" when none is added); "" without a default."""
    return _field(default, group, help, partial(read_url, ours=ours), "URL", in_demo=False, **more)


def proxy(group: Group, help: str, **more: Any) -> Proxy | None:
    """A proxy's URL; one with a password is never shown (`shown` leaves out what has an @)."""
    none: Proxy | None = None
    return _field(none, group, help, parse_proxy, "PROXY", **more)


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
