"""What a person writes, as a value: one reader a kind; each raises ValueError with what would be right."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from transforms.secret import Secret, SecretError, parse_secret

T = TypeVar("T")
BYTE_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
# Shown back in an error. Anything else might be a secret that landed on the wrong flag.
_HARMLESS = re.compile(
    r"[-+]?[\d.]{1,14}([eE]-?\d{1,3}|[A-Za-z]{1,3})?|[-+]?(nan|inf|infinity)|(/|\./|\.\./|~/)[^\s]*"
    r"|https?://[^\s@?#]*|\w{1,20}Runner",
    re.IGNORECASE | re.ASCII,
)
_HOST = re.compile(r"[\w.-]+", re.ASCII)


# Numbers


def whole(text: str) -> int:
    """A decimal whole number."""
    if not re.fullmatch(r"[-+]?\d{1,18}", text, re.ASCII):
        raise ValueError("must be a whole number")
    return int(text)


def number(text: str) -> float:
    """A finite decimal number."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII) or not math.isfinite(
        float(text)
    ):
        raise ValueError("must be a number")
    return float(text)


def seconds(text: str) -> float:
    """A finite decimal number of seconds."""
    try:
        return number(text)
    except ValueError:
        raise ValueError("must be a number of seconds without a unit") from None


def byte_count(text: str) -> int:
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


# Words


def switch(text: str) -> bool:
    """`true` or `false`: Flex Templates can only pass a flag with a value."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def choice(choices: tuple[str, ...]) -> Callable[[str], str]:
    """A reader of one of `choices`, in any case."""

    def read(text: str) -> str:
        for each in choices:
            if each.lower() == text.lower():
                return each
        words = choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        raise ValueError(f"must be {words}")

    return read


def matching(pattern: str, right: str) -> Callable[[str], str]:
    """A reader of text that `pattern` matches as a whole; `right` says what that is."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"must be {right}")
        return text

    return read


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


def names(text: str) -> tuple[str, ...]:
    """Names between commas, each once; blanks around them are not part of them."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in found:
        raise ValueError("has an empty name between its commas")
    for name in found:
        printable(name)
    return found


def each_of(read: Callable[[str], tuple[T, ...]]) -> Callable[[str], tuple[T, ...]]:
    """A reader of several texts in one, each of which `read` makes one value or more of."""
    return lambda text: tuple(one for part in several(text) for one in read(part))


def several(text: str) -> list[str]:
    """`text` itself, or the parts of `^SEPARATOR^part SEPARATOR part`, which is how gcloud writes it: a
    template's parameter and an environment variable cannot be repeated as a flag can."""
    if not text.startswith("^"):
        return [text]
    separator, closed, rest = text[1:].partition("^")
    if not closed or not separator or "" in (parts := rest.split(separator)):
        raise ValueError("must be ^~^ONE~OTHER, with any separator between the two ^, or have no ^ in front")
    return parts


def secret(text: str) -> Secret:
    """A reference to a secret, or a literal one."""
    try:
        return parse_secret(text)
    except SecretError as error:
        raise ValueError(str(error)) from None


# Places


def path(text: str) -> Path:
    """A path on this machine; `~` is the home directory."""
    if "://" in text:
        raise ValueError("must be a directory or file on this machine")
    try:
        found = Path(text).expanduser()
        usable = b"\0" not in os.fsencode(found)
    except RuntimeError:
        raise ValueError("names a home directory that does not exist") from None
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be a path, which has no such characters")
    return found


def path_text(text: str) -> str:
    """As `path`, for a setting that keeps it as text."""
    return str(path(text))


def host(text: str) -> str:
    """A host name or an IP address to listen on."""
    if not (_HOST.fullmatch(text) or re.fullmatch(r"[0-9a-fA-F:.]+", text)):
        raise ValueError("must be a host name or an IP address, such as 127.0.0.1 or 0.0.0.0")
    return text


def url(text: str, ours: str) -> str:
    """The root of an HTTP service, without a trailing slash; the path `ours`, if any, is ours to add."""
    printable(text)
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be a URL that begins with https:// or http:// and a host")
    if fault := address_fault(text):
        raise ValueError(fault)
    _check_host(parts)
    root = parts.path.rstrip("/")
    if ours and ours in f"{root}/":
        raise ValueError(f"must be the root of the service; {ours} is added by itself")
    return f"{parts.scheme}://{parts.netloc}{root}"


def address_fault(url: str | None) -> str:
    """What is wrong with an address that holds what may be a secret, which logs, graphs and pages would show;
    "" when it holds none."""
    if names_user(url or ""):
        return "must not contain a user or password, which would end up in logs"
    if re.search("[?#]", url or ""):
        return "must end with the host or a path, without ? and #: what follows would end up in logs"
    return ""


def names_user(url: str) -> bool:
    """Whether a URL has a user or a password in it."""
    authority = url.partition("://")[2] or url
    return "@" in re.split(r"[/?#]", authority, maxsplit=1)[0]


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
