"""A secret by reference: what is configured and pickled is where the value lives, never the value."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    from transforms.way_out import WayOut

from transforms.in_process import Ticket

MARK = "[secret]"
# Shorter values occur inside ordinary words, and taking them out would make every line unreadable.
MIN_LENGTH = 4
# Rotation adds a value now and then; the oldest are forgotten so that a run of years stays bounded.
MAX_VALUES = 256
# The largest value either secret manager stores (64 KiB); a larger file is not a secret.
MAX_BYTES = 65_536
_lock = threading.Lock()
_known: OrderedDict[str, None] = OrderedDict()
_pattern: re.Pattern[str] | None = None
_longest = 0  # characters of what `_pattern` finds


class SecretError(Exception):
    """A secret could not be read. The message names the reference and never the value."""


def remember(value: str) -> None:
    """Have `value` taken out of every text that goes through `redact` from now on."""
    global _pattern, _longest
    if len(value) < MIN_LENGTH:
        return
    with _lock:
        fresh = value not in _known
        _known[value] = None
        _known.move_to_end(value)
        if not fresh:
            return
        while len(_known) > MAX_VALUES:
            _known.popitem(last=False)
        forms = {form for known in _known for form in _forms(known)}
        _longest = max(map(len, forms))
        # Longest first: a value that begins with another one must go as a whole.
        _pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def redact(text: str) -> str:
    """`text` with every secret value read so far replaced by `[secret]`."""
    pattern = _pattern
    return text if pattern is None else pattern.sub(MARK, text)


# Of a foreign text, before secrets are taken out: what is cut away beyond it is never looked at.
LOOKED_AT = 4096


def shown(text: str, most: int = 200) -> str:
    """What others have said, as a message may show it: one printable line of at most `most` characters,
    without secrets. A cut never leaves a part of a secret, as redaction comes first.
    """
    longest = _longest
    head = text[: LOOKED_AT + most + 2 * longest]
    clean = redact("".join(letter for letter in head if letter.isprintable()))
    if len(head) < len(text):  # a secret at the end of it may be there in part
        clean = clean[: max(0, len(clean) - longest)]
    return clean[:most].strip()


def _forms(value: str) -> set[str]:
    """The value as it is, inside JSON or a Python repr, and inside a URL."""
    return {value, json.dumps(value)[1:-1], quote(value, safe=""), repr(value)[1:-1]}


def usable(value: str, where: str) -> str:
    """`value`, remembered for redaction. Raises SecretError for what no request header can carry.

    HTTP libraries repeat a header that they refuse in their error message, so it must not get that far.
    """
    remember(value.strip())
    if not value:
        raise SecretError(f"{where}: the value is empty")
    if "\r" in value or "\n" in value:
        raise SecretError(f"{where}: the value contains a line break")
    if value != value.strip():
        raise SecretError(f"{where}: the value begins or ends with a blank")
    if not (value.isascii() and value.isprintable()):
        raise SecretError(f"{where}: the value contains a character that a request header cannot carry")
    return value


def decoded(content: bytes, where: str) -> str:
    if len(content) > MAX_BYTES:
        raise SecretError(f"{where}: more than {MAX_BYTES} bytes, which is no secret")
    try:
        value = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{where}: not text") from None
    return value.removesuffix("\n").removesuffix("\r")


GOOGLE_SECRETS = "https://secretmanager.googleapis.com"
NETWORK_TIMEOUT = 10.0  # seconds for one read


@dataclass(frozen=True)
class GoogleSecret:
    """`secret:projects/P/secrets/S[/versions/V]` in Google Secret Manager, latest version by default."""

    resource: str

    def read(self, way_out: WayOut | None = None) -> str:
        """The value as it is now. Raises SecretError."""
        version = self.resource if "/versions/" in self.resource else f"{self.resource}/versions/latest"
        with asking_google(self):
            client, metadata = google_client(way_out)
            with client:
                answer = client.access_secret_version(
                    name=version, timeout=NETWORK_TIMEOUT, metadata=metadata
                )
        return usable(decoded(answer.payload.data, str(self)), str(self))

    def __str__(self) -> str:
        return f"secret:{self.resource}"

    __repr__ = __str__


@dataclass(frozen=True)
class AwsSecret:
    """`aws-secret:NAME` or its ARN in AWS Secrets Manager; `#key` picks one key of a JSON secret."""

    name: str
    key: str = ""

    def read(self, way_out: WayOut | None = None) -> str:
        """The value as it is now. Raises SecretError."""
        with asking_aws(self):
            answer = aws_client(self.region, way_out).get_secret_value(SecretId=self.name)
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise SecretError(f"{self}: holds bytes; store the value as text")
        return usable(self._picked(value), str(self))

    @property
    def region(self) -> str | None:
        """Where it is, when its name says so."""
        parts = self.name.split(":")
        return parts[3] if len(parts) >= 7 and parts[0] == "arn" else None

    def _picked(self, value: str) -> str:
        if not self.key:
            return value
        try:
            found = json.loads(value)[self.key]
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, str):
            raise SecretError(f"{self}: the secret is not a JSON object with text under that key")
        return found

    def __str__(self) -> str:
        return f"aws-secret:{self.name}{'#' if self.key else ''}{self.key}"

    __repr__ = __str__


@contextlib.contextmanager
def asking_google(secret: GoogleSecret) -> Iterator[None]:
    """Inside, Secret Manager is asked about `secret`: what it or the way to it refuses is a SecretError."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
        raise SecretError(f"{secret}: Google Secret Manager says {type(error).__name__}") from None
    except (OSError, ValueError) as error:  # a proxy that is none, a file with authorities
        raise SecretError(f"{secret}: Google Secret Manager cannot be asked: {error}") from None


@contextlib.contextmanager
def asking_aws(secret: AwsSecret) -> Iterator[None]:
    """Inside, Secrets Manager is asked about `secret`: what it or the way to it refuses is a SecretError."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except ClientError as error:
        raise SecretError(f"{secret}: AWS Secrets Manager says {aws_code(error)}") from None
    except (BotoCoreError, ValueError, OSError) as error:
        raise SecretError(f"{secret}: AWS Secrets Manager: {type(error).__name__}") from None


def aws_code(error: ClientError) -> str:
    """What AWS calls it."""
    return str(error.response.get("Error", {}).get("Code", "an error"))


def google_client(way_out: WayOut | None) -> tuple[Any, list[tuple[str, str]]]:
    """A client, and what proves who we are."""
    from google.cloud.secretmanager import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )

    from transforms.way_out import USUAL
    from transforms.write.google import CLOUD, GoogleToken, channel

    token = GoogleToken(scope=CLOUD, way_out=way_out or USUAL)
    try:
        metadata = list(token.headers().items())
    finally:
        token.close()
    way = channel(GOOGLE_SECRETS, way_out or USUAL)
    return SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=way)), metadata


def aws_client(region: str | None, way_out: WayOut | None) -> Any:
    import botocore.session  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    from transforms.way_out import USUAL

    limits = Config(
        connect_timeout=NETWORK_TIMEOUT / 2, read_timeout=NETWORK_TIMEOUT, retries={"max_attempts": 2}
    )
    session = botocore.session.get_session()
    region = region or session.get_config_variable("region")
    way = way_out or USUAL
    endpoint = os.environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER")
    proxies = way.proxies_of(endpoint or f"https://secretsmanager.{region}.amazonaws.com")
    return way.aws(session, region).create_client(
        "secretsmanager", region_name=region, config=limits.merge(Config(proxies=proxies))
    )


__all__ = [
    "AwsSecret",
    "EnvSecret",
    "FileSecret",
    "GoogleSecret",
    "LiteralSecret",
    "Secret",
    "SecretError",
    "parse_secret",
    "read_by",
    "redact",
]


def read_by(way_out: WayOut, secret: Secret) -> str:
    """The value of `secret`, which is fetched by this way when it lies in a secret manager. Raises
    SecretError."""
    if isinstance(secret, (GoogleSecret, AwsSecret)):
        return secret.read(way_out)
    return secret.read()


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

    def __reduce__(self) -> tuple[Callable[[Ticket[LiteralSecret]], LiteralSecret], tuple[Any]]:
        if self not in _tickets:
            _tickets[self] = Ticket(self, _ELSEWHERE)
        return _of_ticket, (_tickets[self],)


_ELSEWHERE = SecretError(
    "a literal secret works only in the process it was given to; for other machines use env:NAME, "
    "file:PATH, secret:projects/P/secrets/S or aws-secret:NAME"
)
_tickets: dict[LiteralSecret, Ticket[LiteralSecret]] = {}


def _of_ticket(ticket: Ticket[LiteralSecret]) -> LiteralSecret:
    return ticket.live


# For forms as well as for `parse_secret`, so without what only Python reads.
_VARIABLE = "[A-Za-z_][A-Za-z0-9_]*"
_GOOGLE_NAME = "projects/[A-Za-z0-9_.:-]+/secrets/[A-Za-z0-9_-]+(/versions/[A-Za-z0-9_-]+)?"
_AWS_NAME = "([A-Za-z0-9_/+=.@:-]+)(#(.+))?"
REFERENCE = f"(env:{_VARIABLE}|file:.+|secret:{_GOOGLE_NAME}|aws-secret:{_AWS_NAME})"


def parse_secret(text: str) -> Secret:
    """The reference that `text` writes, or a literal. Raises SecretError without repeating `text`."""
    scheme, colon, rest = text.partition(":")
    if scheme == "env" and re.fullmatch(_VARIABLE, rest):
        return EnvSecret(rest)
    if scheme == "file" and rest:
        return FileSecret(rest)
    if scheme == "secret" and re.fullmatch(_GOOGLE_NAME, rest):
        return GoogleSecret(rest)
    if scheme == "aws-secret" and (found := re.fullmatch(_AWS_NAME, rest)):
        return AwsSecret(found[1], found[3] or "")
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
