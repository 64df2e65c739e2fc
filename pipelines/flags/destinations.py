"""What the settings turn on: the feed and the destinations."""

from __future__ import annotations

import dataclasses
import importlib
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from pipelines.flags import parameter
from pipelines.flags.parameter import Group, pairs
from pipelines.groups import bigquery, datadog, files, kafka, pubsub, s3, splunk
from transforms.batch import BatchPolicy
from transforms.feed.request import FeedSettings
from transforms.secret import Secret, SecretError, parse_secret, redact
from transforms.write.contract import Destination

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

FORM = "package.module:Class?name=NAME&key=value"
PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
CLASS = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# It becomes a part of metric names, labels and directories.
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
POLICY = {
    "max_events": parameter.read_whole,
    "max_bytes": parameter.read_byte_count,
    "max_age": parameter.read_seconds,
}


def load(text: str) -> tuple[Destination, ...]:
    """The one destination that `text` (FORM) describes; its module is imported.

    Raises ValueError with what would be right; never repeats a value, which may be a secret.
    """
    where, _, query = text.partition("?")
    module, colon, name = where.partition(":")
    if not (colon and PATH.fullmatch(module) and CLASS.fullmatch(name)):
        raise ValueError(f"must be {FORM}")
    found = _class(module, name)
    return (_made(found, f"{module}:{name}", _options(query)),)


def _class(module: str, name: str) -> type[Destination]:
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(
                f"there is no module {module}; install its package, or start where python can import it"
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


def _made(kind: type[Destination], path: str, options: dict[str, str]) -> Destination:
    name = options.pop("name", "")
    if not NAME.fullmatch(name):
        raise ValueError("needs ?name=NAME: lower-case letters, digits and _, beginning with a letter")
    fields = {each.name: each for each in dataclasses.fields(cast(Any, kind)) if each.init}
    policy = {key: options.pop(key) for key in POLICY if key in options and key not in fields}
    _check_keys(path, fields, options)
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {key: _value(key, text, hints[key]) for key, text in options.items()}
    if policy:
        arguments |= _policy(path, kind, fields, policy)
    if "name" in fields:
        arguments["name"] = name
    try:
        made = kind(**arguments)
        if made.name != name:
            # Shadows the class's own name, also in a copy that was pickled.
            object.__setattr__(made, "name", name)
    except Exception as error:  # noqa: BLE001 - whatever a person's own class raises
        raise ValueError(redact(f"{path} cannot be made: {type(error).__name__}: {error}")) from None
    return made


def _check_keys(path: str, fields: Mapping[str, dataclasses.Field[Any]], options: Mapping[str, str]) -> None:
    known = [key for key in fields if key not in ("name", "policy")]
    for key in options:
        if key not in known:
            has = ", ".join(sorted({*known, *POLICY}))
            raise ValueError(f"{path} has no {key}; it has {has}")
    for key in known:
        field = fields[key]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in options:
            raise ValueError(f"{path} needs {key}: add {key}=VALUE behind the ?")


def _policy(path: str, kind: type[Destination], fields: Mapping[str, Any], texts: Mapping[str, str]) -> Any:
    """max_events, max_bytes and max_age go into a destination's `policy`."""
    if "policy" not in fields:
        raise ValueError(f"{path} has no field `policy`, so {next(iter(texts))} cannot be set")
    default = fields["policy"].default
    policy = default if isinstance(default, BatchPolicy) else kind.policy
    changes = {key: _read(key, text, POLICY[key]) for key, text in texts.items()}
    try:
        return {"policy": dataclasses.replace(policy, **changes)}
    except ValueError as error:
        raise ValueError(f"{', '.join(texts)}: {error}") from None


def _value(key: str, text: str, hint: Any) -> Any:
    """`text` as the annotation of the field asks for."""
    kinds = [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [each for each in typing.get_args(hint) if each is not type(None)]
    for kind, read in READERS:
        if kind in kinds:
            return _read(key, text, read)
    if typing.get_origin(hint) is typing.Literal:
        if text in typing.get_args(hint):
            return text
        raise ValueError(f"{key} must be one of {', '.join(map(str, typing.get_args(hint)))}")
    raise ValueError(f"{key} cannot be given as text: its type must be str, int, float, bool or Secret")


def _read(key: str, text: str, read: Any) -> Any:
    try:
        return read(text)
    except (ValueError, SecretError) as error:
        raise ValueError(f"{key}: {error}") from None


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


# Secret first: `Secret | str` is a secret.
READERS: tuple[tuple[Any, Any], ...] = (
    (Secret, parse_secret),
    (bool, parameter.read_switch),
    (int, parameter.read_whole),
    (float, _decimal),
    (str, str),
)
# In the order in which they are shown.
BY_GROUP: Mapping[Group, Callable[[Settings], Destination]] = {
    bigquery.GROUP: bigquery.destination,
    s3.GROUP: s3.destination,
    datadog.GROUP: datadog.destination,
    splunk.GROUP: splunk.destination,
    kafka.GROUP: kafka.destination,
    pubsub.GROUP: pubsub.destination,
    files.GROUP: files.destination,
}


def feed_settings(settings: Settings) -> FeedSettings:
    """The feed to read."""
    assert settings.feed_api_key is not None  # `parse` asks for it
    return FeedSettings(
        url=settings.feed_url,
        api_key=settings.feed_api_key,
        types=settings.feed_types,
        way_out=settings.way_out,
    )


def destinations(settings: Settings) -> Sequence[Destination]:
    """Every destination whose first flag was given."""
    on = [make(settings) for group, make in BY_GROUP.items() if getattr(settings, group.first)]
    return [*on, *settings.custom_destination]


GROUP = Group("Your own destinations", destination="custom", first="custom_destination")


@dataclass(frozen=True, kw_only=True)
class CustomParameters:
    custom_destination: tuple[Destination, ...] = pairs(
        GROUP,
        "A destination of your own: module, class, its name here and its settings.",
        read=load,
        placeholder="MODULE:CLASS?name=NAME&KEY=VALUE",
        example="mypackage.audit:Audit?name=audit&url=https://audit.example.com",
    )
