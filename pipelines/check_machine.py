"""What the job needs of this machine, tried: its state directory, its ports, and each of its secrets."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipelines.flags.destinations import feed_settings
from pipelines.flags.general import REMOTE
from pipelines.flags.rules import secrets_in
from pipelines.flags.settings import PARAMETERS, Settings
from transforms.feed.journal import JournalError
from transforms.feed.journal.database import look_beside
from transforms.feed.journal.schema import VERSION
from transforms.feed.journal.space import DirectoryLock, refuse_network, too_little_free
from transforms.preflight import Finding
from transforms.readers import bytes_in_words
from transforms.secret import LiteralSecret, Secret, SecretError, read_by, shown
from transforms.way_out import WayOut
from transforms.write.contract import Destination


def check_machine(settings: Settings) -> Iterator[Finding]:
    """The directories and the ports. Nothing is left there."""
    directory, running = settings.state_dir, ""
    yield _writable("--state_dir", directory)
    try:
        refuse_network(existing(directory))
    except JournalError as error:
        yield Finding("--state_dir", False, f"{error}.")
    if wrong := _of_another(directory, settings):
        yield Finding("the journal in it", False, wrong)
    if (directory / "lock").exists():
        running = _owner(directory)
        yield Finding("the lock on it", True, note=running or "free")
    yield _room(directory, settings.journal_max_bytes)
    if settings.dead_letters and not settings.dead_letters.startswith(REMOTE):
        yield _writable("--dead_letters", Path(settings.dead_letters))
    if not running:  # its own ports are taken, as they should be
        for name, host in (("status_port", settings.status_host), ("webhook_port", settings.webhook_host)):
            if port := settings[name]:
                yield _port(f"--{name}", host, port)


def existing(path: Path) -> Path:
    """Itself, or its nearest parent that is there."""
    absolute = path.absolute()
    return next((each for each in (absolute, *absolute.parents) if each.is_dir()), Path("/"))


def _writable(what: str, path: Path) -> Finding:
    """Whether files can be made in it, or it can be made itself."""
    place = existing(path)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"grantex-beam check\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        cause = f"{path} cannot be written ({error.strerror}): let this program's user write to {place}."
        return Finding(what, False, cause)
    note = f"{path} can be written" if place == path.absolute() else f"{path} is made when the job starts"
    return Finding(what, True, note=note)


def _owner(directory: Path) -> str:
    """Who has the directory, or "". The lock is held for no longer than it takes to see that it is free."""
    try:
        DirectoryLock(directory).release()
    except Exception as error:  # noqa: BLE001 - of a lock that cannot be had, its message says all
        return shown(str(error)).partition(":")[0]
    return ""


def _of_another(directory: Path, settings: Settings) -> str:
    """Why the journal that lies there, if one does, is not for this run; "" when it is."""
    found = look_beside(directory / "journal.sqlite3")
    schema, feed = found.get("schema", VERSION), found.get("feed")
    if isinstance(schema, int) and schema > VERSION:
        return f"A later version of this program wrote it (schema {schema}): install that one here."
    if settings.feed_api_key is not None and feed not in (None, feed_settings(settings).root):
        return f"It is of another feed, {feed}: choose another --state_dir, so that two are never mixed."
    return ""


def _room(directory: Path, journal_max_bytes: int) -> Finding:
    what, place = "room for the journal", existing(directory)
    free = shutil.disk_usage(place).free
    said = f"{free / 1024**3:.1f} GiB are free there"
    if too_little_free(place):
        return Finding(what, False, f"Only {said}, with which reading the feed pauses: make room.")
    if free < journal_max_bytes:
        cause = (
            f"Only {said}, and in a long outage the journal may take --journal_max_bytes="
            f"{bytes_in_words(journal_max_bytes)}: make room, or give less."
        )
        return Finding(what, True, cause)
    return Finding(what, True, note=said)


def _port(what: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        cause = f"{host}:{port} cannot be listened on ({error.strerror}): choose another {what}."
        return Finding(what, False, cause)
    return Finding(what, True, note=f"{host}:{port} is free")


def secrets_of(settings: Settings) -> Mapping[str, Secret]:
    """Each secret that has to be read from somewhere, by what it is called."""
    found: dict[str, Secret] = {}
    for name, parameter in PARAMETERS.items():
        if name == "custom_destination" or not parameter.secret:
            continue
        for number, each in enumerate(secrets_in(settings[name])):
            found[f"--{name}{f' {number + 1}' if number else ''}"] = each
    for destination in settings.custom_destination:
        found |= dict(_of_destination(destination))
    return {name: each for name, each in found.items() if not isinstance(each, LiteralSecret)}


def _of_destination(destination: Destination) -> Iterator[tuple[str, Secret]]:
    if dataclasses.is_dataclass(destination):
        for field in dataclasses.fields(destination):
            for each in secrets_in(getattr(destination, field.name)):
                yield f"{destination.name}'s {field.name}", each


def check_secret(secret: Secret, way_out: WayOut) -> Iterator[Finding]:
    """Whether it can be read; what it is for is tried by those who need it."""
    what = "the secret"
    try:
        read_by(way_out, secret)
    except SecretError as error:
        yield Finding(what, False, f"{error}: put it there, or let this program's user read it.")
    else:
        yield Finding(what, True, note=f"read from {secret}")
