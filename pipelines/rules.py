"""Rules between parameters, and between a parameter and this machine; nothing is created or connected to."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines import credentials
from pipelines.cluster import rules as cluster
from pipelines.command_line import Arrived
from pipelines.groups import bigquery, datadog, s3
from pipelines.groups.keeping import REMOTE
from pipelines.parameters import Parameter

if TYPE_CHECKING:
    from pipelines.settings import Settings


def check(
    settings: Settings,
    parameters: Mapping[str, Parameter],
    arrived: Arrived,
    bad: frozenset[str],
    environ: Mapping[str, str],
) -> tuple[list[str], list[str]]:
    """Faults and warnings. `bad` names parameters whose own fault is already reported."""
    faults = [
        *_ca_file(settings, arrived),
        *(_on_this_machine(settings, arrived, bad) if settings.in_process else ()),
        *_forgotten(settings, parameters),
        *bigquery.faults(settings, arrived),
        *s3.faults(settings, arrived),
        *datadog.faults(settings, arrived),
        *_custom_names(settings, parameters),
    ]
    if "demo" not in bad:  # else what is needed is not known
        faults += _belonging(settings, parameters, arrived)
        faults += _some_destination(settings, parameters)
    warnings = list(_plain_http(settings, parameters))
    if not settings.in_process:
        faults += cluster.faults(settings, parameters, arrived, environ)
        warnings += cluster.warnings(settings, parameters, arrived)
    for name, parameter in parameters.items():
        source = arrived.source(name)
        for secret in credentials.secrets_in(getattr(settings, name)) if parameter.secret else ():
            fault, warning = credentials.check(parameter, source, secret, settings.runner, environ)
            faults += [fault] if fault else []
            warnings += [warning] if warning else []
    return faults, warnings


def _belonging(settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived) -> Iterator[str]:
    """Parameters without the one that switches their group on, missing ones, and what the demo brings."""
    for name, parameter in parameters.items():
        first, source = parameter.group.first, arrived.source(name)
        on = settings.demo or not first or first in settings.given
        if name not in settings.given:
            in_its_place = name == "feed_api_key" and settings.pubsub_subscription
            if parameter.required and on and not (settings.demo or in_its_place):
                why = f"--{first} needs it" if first else "the feed needs it (--demo=true does not)"
                example = f"{parameter.flag}={parameter.example}"
                yield f"{parameter.flag}: is missing, and {why}; for example {example}"
        elif settings.demo and not parameter.in_demo:
            yield f"{source}: cannot be given with --demo=true, which brings its own; leave out one of them"
        elif not on:
            yield f"{source}: needs --{first}, which switches {parameter.group.title} on"


def _some_destination(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    firsts = dict.fromkeys(each.group.first for each in parameters.values() if each.group.first)
    if not settings.demo and settings.given.isdisjoint(firsts):
        flags = " or ".join(f"--{first}" for first in firsts)
        yield f"{flags}: no destination is given; give at least one, or --demo=true to look around"


def _forgotten(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    firsts = {each.group.destination: each.group.first for each in parameters.values() if each.group.first}
    on = {name: first for name, first in firsts.items() if first in settings.given}
    on |= {each.name: "custom_destination" for each in settings.custom_destination}
    for name in settings.forget_destination:
        if name in on:
            yield f"--forget_destination={name}: is still switched on by --{on[name]}; leave out one of them"


def _custom_names(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    taken = {each.group.destination for each in parameters.values() if each.group.destination}
    taken |= {"feed", "dead_letters"}  # they have counters under these names
    for destination in settings.custom_destination:
        if destination.name in taken:
            yield f"--custom_destination: the name {destination.name} is taken; give another, ?name=NAME"
        taken.add(destination.name)


def _ca_file(settings: Settings, arrived: Arrived) -> Iterator[str]:
    if settings.ca_file is None:
        return
    source = arrived.source("ca_file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=settings.ca_file)
    except ssl.SSLError:
        yield f"{source}: the file holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a usable path"
        yield f"{source}: the file cannot be read ({why}); it must be a PEM file with a certificate"


def _on_this_machine(settings: Settings, arrived: Arrived, bad: frozenset[str]) -> Iterator[str]:
    """What only clusters do, and the directories."""
    if settings.pubsub_subscription:
        source = arrived.source("pubsub_subscription")
        yield f"{source}: is read on Dataflow (--runner=DataflowRunner); one machine reads the feed itself"
    yield from _directories(settings, arrived, bad)


def _directories(settings: Settings, arrived: Arrived, bad: frozenset[str]) -> Iterator[str]:
    """Each directory must be possible to write, and nobody else's files may lie among the archive's."""
    ours = {
        "state_dir": settings.state_dir,
        "dead_letters": _here(settings.dead_letters),
        "files_dir": settings.files_dir,
    }
    if settings.demo:
        ours["state_dir"] = None  # it has a temporary one
    used = {name: path for name, path in ours.items() if path is not None and name not in bad}
    for name, path in used.items():
        if fault := _unwritable(path):
            yield f"{arrived.source(name)}: {fault}; it must be a directory that this user may write"
    archive = used.pop("files_dir", None)
    for name, path in used.items():
        if archive is not None and _overlap(archive, path):
            source = arrived.source("files_dir")
            yield f"{source}: must be apart from --{name}, neither inside it nor around it"


def _here(dead_letters: str) -> Path | None:
    """The directory, unless they go into a bucket or none was given."""
    return Path(dead_letters) if dead_letters and not dead_letters.startswith(REMOTE) else None


def _unwritable(path: Path) -> str:
    """Why `path` can be neither written nor created, or "". Looks at its nearest existing parent."""
    try:
        place = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
    except (OSError, ValueError):
        return "not a usable path"
    if not place.is_dir():
        return "not a directory" if place == path.absolute() else "a file is in the way"
    return "" if os.access(place, os.W_OK | os.X_OK) else "no permission to write"


def _overlap(one: Path, other: Path) -> bool:
    first, second = one.resolve(), other.resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)


def _plain_http(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """A warning rather than a fault: a TLS proxy beside the job is a common way to run."""
    for name, parameter in parameters.items():
        if parameter.placeholder == "URL" and (url := urlsplit(getattr(settings, name))).scheme == "http":
            host = url.hostname or ""
            if not _loopback(host):
                yield f"{parameter.flag}: http:// sends events and the secret unencrypted to {host}; use https://"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
