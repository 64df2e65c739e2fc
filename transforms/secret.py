"""A secret by reference: what is configured and pickled is where the value lives, never the value."""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transforms.secret_managers import AwsSecret, GoogleSecret
from transforms.secret_value import MAX_BYTES, SecretError, decoded, redact, usable

__all__ = [
    "AwsSecret",
    "EnvSecret",
    "FileSecret",
    "GoogleSecret",
    "LiteralSecret",
    "Secret",
    "SecretError",
    "parse_secret",
    "redact",
]


class Secret(Protocol):
    """Anything that can say a secret's value on the worker; `read` is called again after a rejection."""

    def read(self) -> str:
        """The value as it is now. Raises SecretError."""


@dataclass(frozen=True)
class EnvSecret:
    """`env:NAME`, an environment variable of the process that reads it."""

    name: str

    def read(self) -> str:
        return self.value_in(os.environ)

    def value_in(self, environ: Mapping[str, str]) -> str:
        """The value in `environ`. Raises SecretError when it is not set, empty or unusable."""
        value = environ.get(self.name)
        if value is None:
            raise SecretError(f"{self}: this environment variable is not set{self._expanded()}")
        return usable(value, str(self))

    def __str__(self) -> str:
        # `env:$NAME` arrives with the value in the place of the name, so only what looks like one is shown.
        return f"env:{self.name}" if re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.name) else "env:…"

    __repr__ = __str__

    def _expanded(self) -> str:
        return "" if str(self) != "env:…" else "; write env:NAME without a $, which the shell would expand"


@dataclass(frozen=True)
class FileSecret:
    """`file:PATH`, read again each time; one trailing line end is not part of the value."""

    path: str

    def read(self) -> str:
        try:
            with Path(self.path).expanduser().open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except (OSError, ValueError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or "not a usable path"
            raise SecretError(f"{self}: the file cannot be read ({why})") from None
        return usable(decoded(content, str(self)), str(self))

    def __str__(self) -> str:
        # `file:$TOKEN` arrives with the value in the place of the path.
        return f"file:{self.path}" if self.path.startswith(("/", "./", "../", "~")) else "file:…"

    __repr__ = __str__


class LiteralSecret:
    """The value itself. It works in the process it was given to and nowhere else.

    Its pickle holds a ticket instead of the value: Beam pickles every DoFn, also for a runner in this
    very process, where the ticket is exchanged back. Anywhere else it raises SecretError.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def read(self) -> str:
        return usable(self._value, str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LiteralSecret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return "[secret]"

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[[str, int], LiteralSecret], tuple[str, int]]:
        if self not in _tickets:
            number = next(_numbers)
            _tickets[self] = number
            _by_ticket[number] = self
        return _redeem, (_PROCESS, _tickets[self])


_PROCESS = uuid.uuid4().hex
_numbers = itertools.count(1)
_tickets: dict[LiteralSecret, int] = {}
_by_ticket: dict[int, LiteralSecret] = {}


def _redeem(process: str, ticket: int) -> LiteralSecret:
    found = _by_ticket.get(ticket) if process == _PROCESS else None
    if found is None:
        raise SecretError(
            "a literal secret works only in the process it was given to; for other machines use env:NAME, "
            "file:PATH, secret:projects/P/secrets/S or aws-secret:NAME"
        )
    return found


_GOOGLE_NAME = re.compile(r"projects/[\w.:-]+/secrets/[\w-]+(/versions/[\w-]+)?", re.ASCII)
_AWS_NAME = re.compile(r"([\w/+=.@:-]+)(?:#(.+))?", re.ASCII)


def parse_secret(text: str) -> Secret:
    """The reference that `text` writes, or a literal. Raises SecretError without repeating `text`."""
    scheme, colon, rest = text.partition(":")
    if scheme == "env" and colon and re.fullmatch(r"[A-Za-z_]\w*", rest, re.ASCII):
        return EnvSecret(rest)
    if scheme == "file" and rest:
        return FileSecret(rest)
    if scheme == "secret" and _GOOGLE_NAME.fullmatch(rest):
        return GoogleSecret(rest)
    if scheme == "aws-secret" and (found := _AWS_NAME.fullmatch(rest)):
        return AwsSecret(found[1], found[2] or "")
    if scheme in _FORMS and colon:
        raise SecretError(f"is not of the form {_FORMS[scheme]}")
    usable(text, "a literal secret")
    return LiteralSecret(text)


_FORMS = {
    "env": "env:NAME (the name of an environment variable, without a $)",
    "file": "file:PATH",
    "secret": "secret:projects/P/secrets/S or secret:projects/P/secrets/S/versions/V",
    "aws-secret": "aws-secret:NAME or aws-secret:NAME#KEY",
}
