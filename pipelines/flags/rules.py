"""Rules between parameters: what belongs together, and what one machine needs or refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from pipelines.flags import cluster_rules, way_out
from pipelines.flags.command_line import Arrived
from pipelines.flags.general import DATAFLOW, IN_PROCESS, REMOTE
from pipelines.flags.parameter import Parameter
from transforms import event_types
from transforms.proxies import host_and_port
from transforms.secret import EnvSecret, FileSecret, LiteralSecret, Secret, SecretError
from transforms.write.asked import LEAST_KEY, Asked, read_fields
from transforms.write.contract import Destination

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

# Continuous proof looks every minute at what was received a minute before, and must bear some failures.
LEDGER_NEEDS = 600.0
BESIDE_A_STANDBY = 3  # of five streams: the standby has one, and one is for a replacement


def secrets_in(value: object) -> Iterator[Secret]:
    """Every secret in a parameter's value: itself, in its pairs, or in the fields of a destination."""
    if isinstance(value, (tuple, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from secrets_in(each)
    elif isinstance(value, Asked):
        yield from secrets_in(value.pseudonym_key)
    elif isinstance(value, Destination) and dataclasses.is_dataclass(value):
        for name in {*(field.name for field in dataclasses.fields(value)), "asked"}:
            yield from secrets_in(getattr(value, name))
    elif value is not None and callable(getattr(value, "read", None)):
        yield cast(Secret, value)


def check_credentials(
    parameter: Parameter,
    source: str,
    secret: Secret,
    runner: str,
    environ: Mapping[str, str],
    open_file: str = "",
) -> tuple[str, str]:
    """A fault and a warning, each "" when there is none. Nothing is fetched from a secret manager here.

    source: where the reference came from, "--splunk_hec_token" or "GRANTEX_SPLUNK_HEC_TOKEN".
    environ: the environment that `env:` references are looked up in.
    open_file: as in Config.
    """
    if isinstance(secret, LiteralSecret):
        return _literal(parameter, source, runner, open_file)
    if runner != IN_PROCESS:
        return "", _elsewhere(source, secret, runner)
    try:
        _value_here(secret, environ)
    except SecretError as error:
        return f"{source}: {error}", ""
    return "", ""


def _value_here(secret: Secret, environ: Mapping[str, str]) -> str | None:
    """Its value; None when a secret manager has it, which is not asked. Raises SecretError."""
    if isinstance(secret, EnvSecret):
        return secret.value_in(environ)
    return secret.read() if isinstance(secret, (FileSecret, LiteralSecret)) else None


def _literal(parameter: Parameter, source: str, runner: str, open_file: str) -> tuple[str, str]:
    if runner != IN_PROCESS:
        return (
            f"{source}: a literal secret works on one machine only, and {runner} uses others; give "
            "secret:projects/P/secrets/S, aws-secret:NAME, or env:NAME or file:PATH that each worker has"
        ), ""
    if source == parameter.flag:
        return "", (
            f"{source}: a literal secret on a command line can be seen by everyone on this machine; use "
            "env:NAME or file:PATH"
        )
    if open_file and source.startswith(f"{open_file}:"):
        return "", (
            f"{source}: a literal secret in a file that everyone on this machine can read; make it "
            "yours alone (chmod 600), or use env:NAME or file:PATH"
        )
    return "", ""


def _elsewhere(source: str, secret: Secret, runner: str) -> str:
    """A reference that is looked up on the workers, which may have what this machine has not."""
    if runner == DATAFLOW and isinstance(secret, (EnvSecret, FileSecret)):
        return (
            f"{source}: {secret} is looked up on each of Dataflow's workers, which have it only if your "
            "image does; secret:projects/P/secrets/S (Google Secret Manager) is what they can read"
        )
    return ""


def check(
    settings: Settings,
    parameters: Mapping[str, Parameter],
    arrived: Arrived,
    bad: frozenset[str],
    environ: Mapping[str, str],
    *,
    needs_destination: bool = True,
) -> tuple[list[str], list[str]]:
    """Faults and warnings. `bad` names parameters whose own fault is already reported."""
    faults = [
        *way_out.faults(settings, parameters, arrived, environ),
        *(_on_this_machine(settings, parameters, arrived, bad) if settings.in_process else ()),
        *_transports(settings, arrived),
        *_forgotten(settings, parameters),
        *_custom_names(settings, parameters),
        *_webhooks(settings, parameters, arrived),
        *_pseudonyms(settings, parameters, arrived, environ),
    ]
    if "demo" not in bad:  # else what is needed is not known
        faults += _belonging(settings, parameters, arrived)
        faults += _some_destination(settings, parameters) if needs_destination else ()
    warnings = [
        *_unknown_types(settings, arrived),
        *_slips_in_patterns(settings, parameters, arrived),
        *_plain_http(settings, parameters),
        *way_out.warnings(settings, arrived, environ),
    ]
    if not settings.in_process:
        faults += cluster_rules.faults(settings, parameters, arrived, environ)
        warnings += cluster_rules.warnings(settings, parameters, arrived)
    for name, parameter in parameters.items():
        source = arrived.source(name)
        for secret in secrets_in(settings[name]) if parameter.secret else ():
            fault, warning = check_credentials(
                parameter, source, secret, settings.runner, environ, arrived.config.open_file
            )
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
                why = "the feed needs it (--demo=true does not)" if name == "feed_api_key" else "it is needed"
                why = f"--{first} needs it" if first else why
                example = f"{parameter.flag}={parameter.example}"
                yield f"{parameter.flag}: is missing, and {why}; for example {example}"
        elif settings.demo and not parameter.in_demo:
            yield f"{source}: cannot be given with --demo=true, which brings its own; leave out one of them"
        elif not on:
            yield f"{source}: needs --{first}, which switches {parameter.group.title} on"


def _some_destination(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    firsts = dict.fromkeys(each.group.first for each in parameters.values() if each.group.first)
    if firsts and not settings.demo and settings.given.isdisjoint(firsts):
        flags = " or ".join(f"--{first}" for first in firsts)
        demo = ", or --demo=true to look around" if "demo" in parameters else ""
        yield f"{flags}: no destination is given; give at least one{demo}"


def _webhooks(settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived) -> Iterator[str]:
    if "webhook_port" not in parameters:  # another program's
        return
    if settings.webhook_port:
        if "webhook_secret" not in arrived.given:
            example = f"--webhook_secret={parameters['webhook_secret'].example}"
            yield f"--webhook_secret: is missing, and --webhook_port needs it; for example {example}"
        if settings.webhook_port == settings.status_port and settings.in_process:
            yield f"{arrived.source('webhook_port')}: is the port of --status_port; choose another one"
    elif "webhook_port" not in arrived.given:
        for name in ("webhook_host", "webhook_path", "webhook_secret"):
            if name in settings.given:
                yield f"{arrived.source(name)}: needs --webhook_port, which switches webhooks on"


def _transports(settings: Settings, arrived: Arrived) -> Iterator[str]:
    asked = settings.feed_connections
    if settings.feed_transport == "both" and "feed_connections" in settings.given and asked < 2:
        source = arrived.source("feed_connections")
        yield f"{source}: {asked} cannot be both transports; give 2 or more, or one --feed_transport"


def _forgotten(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    firsts = {each.group.destination: each.group.first for each in parameters.values() if each.group.first}
    on = {name: first for name, first in firsts.items() if first in settings.given}
    on |= {each.name: "custom_destination" for each in settings.custom_destination}
    for name in settings.forget_destination:
        if name in on:
            yield f"--forget_destination={name}: is still switched on by --{on[name]}; leave out one of them"


def _custom_names(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    taken = {each.group.destination for each in parameters.values() if each.group.destination}
    taken |= {"feed", "dead_letters", "receipts"}  # they have counters under these names
    for destination in settings.custom_destination:
        if destination.name in taken:
            yield f"--custom_destination: the name {destination.name} is taken; give another, ?name=NAME"
        taken.add(destination.name)


def _on_this_machine(
    settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived, bad: frozenset[str]
) -> Iterator[str]:
    """What only clusters do, and the directories."""
    if settings.pubsub_subscription:
        source = arrived.source("pubsub_subscription")
        yield f"{source}: is read on Dataflow (--runner=DataflowRunner); one machine reads the feed itself"
    if settings.receipts and "receipt_retention" in parameters:  # of the job, and no program that reads them
        source = arrived.source("receipts")
        yield f"{source}: is for clusters; on one machine the journal keeps them (--receipt_retention)"
    if settings.ledger_webhook and settings.dedupe_horizon < LEDGER_NEEDS and "dedupe_horizon" not in bad:
        yield (
            f"{arrived.source('ledger_webhook')}: needs to know what was received in the last minutes; give "
            f"--dedupe_horizon of at least {LEDGER_NEEDS:.0f} seconds"
        )
    if settings.standby and settings.feed_connections > BESIDE_A_STANDBY and "feed_connections" not in bad:
        yield (
            f"{arrived.source('feed_connections')}: must be at most {BESIDE_A_STANDBY} with --standby=true: "
            "the service gives an account five streams, of which the process that stands by takes one, and "
            "the replacement of a broken one another"
        )
    archives = {
        name: Path(settings[name])
        for name, each in parameters.items()
        if each.group.destination and each.placeholder == "DIRECTORY" and settings[name] and name not in bad
    }
    yield from _directories(settings, archives, arrived, bad)


def _directories(
    settings: Settings, archives: Mapping[str, Path], arrived: Arrived, bad: frozenset[str]
) -> Iterator[str]:
    """Each directory must be possible to write, and nobody else's files may lie among an archive's."""
    ours = {"state_dir": settings.state_dir, "dead_letters": _here(settings.dead_letters)}
    if settings.demo:
        ours["state_dir"] = None  # it has a temporary one
    used = {name: path for name, path in ours.items() if path is not None and name not in bad}
    for name, path in {**used, **archives}.items():
        if fault := _unwritable(path):
            yield f"{arrived.source(name)}: {fault}; it must be a directory that this user may write"
    for archive, inside in archives.items():
        for name, path in used.items():
            if _overlap(inside, path):
                source = arrived.source(archive)
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


def _unknown_types(settings: Settings, arrived: Arrived) -> Iterator[str]:
    """A warning rather than a fault: the service may send types that this version has not heard of."""
    for name in settings.feed_types:
        if name in event_types.KNOWN:
            continue
        meant = event_types.meant(name)
        # What looks like nothing of ours may be a secret that was given to the wrong flag.
        shown = name if meant or re.fullmatch(r"[a-z_-]+(\.[a-z_*-]+)+", name) else "one of them"
        hint = f"did you mean {meant}?" if meant else "types are compared letter by letter, without wildcards"
        yield f"{arrived.source('feed_types')}: {shown} is no event type that this version knows; {hint}"


def _slips_in_patterns(
    settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived
) -> Iterator[str]:
    for name, each in parameters.items():
        if each.read is event_types.read_patterns:
            yield from event_types.warnings(arrived.source(name), settings[name])
    places = {own.name: own.texts["types"][0][0] for own in arrived.config.own if own.texts.get("types")}
    for own in settings.custom_destination:
        source = places.get(own.name, f"{arrived.source('custom_destination')}: {own.name}")
        yield from event_types.warnings(source, own.asked.types)


def _pseudonyms(
    settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived, environ: Mapping[str, str]
) -> Iterator[str]:
    """Nobody's pseudonyms are without a key, or with one that can be guessed."""
    if (told := parameters.get("pseudonym_key")) is None:  # another program's
        return
    key = settings.pseudonym_key
    with contextlib.suppress(SecretError):  # said with all other secrets
        if settings.in_process and key is not None:
            value = _value_here(key, environ)
            if value is not None and len(value) < LEAST_KEY:
                yield f"{arrived.source('pseudonym_key')}: must have {LEAST_KEY} characters or more"
    if "pseudonym_key" in arrived.given:
        return
    needs = f"needs --pseudonym_key, for example {told.flag}={told.example}"
    for name, each in parameters.items():
        if each.read is read_fields and settings[name]:
            yield f"{arrived.source(name)}: {needs}"
    for own in settings.custom_destination:
        if own.asked.pseudonymize and own.asked.pseudonym_key is None:
            yield f"{arrived.source('custom_destination')}: {own.name}: pseudonymize {needs}"


def _plain_http(settings: Settings, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """A warning rather than a fault: a TLS proxy beside the job is a common way to run."""
    for name, parameter in parameters.items():
        if parameter.placeholder == "URL" and (url := urlsplit(settings[name] or "")).scheme == "http":
            host = url.hostname or ""
            if not _loopback(host):
                shown = host_and_port(host, None)
                yield f"{parameter.flag}: http:// sends events and the secret unencrypted to {shown}; use https://"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
