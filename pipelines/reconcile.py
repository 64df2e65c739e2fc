"""`reconcile`: the service's delivery ledger against what was received, or what a destination has."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines import exit_codes
from pipelines.flags import reconcile as flags
from pipelines.flags.destinations import destinations, feed_settings
from pipelines.flags.settings import BadParameters, Settings, parse
from pipelines.local import logs
from pipelines.local.signals import stop_on_signals
from transforms import event_types
from transforms.archive import ids as read_back
from transforms.archive.choice import Archive
from transforms.archive.sources import ArchiveError, Directory
from transforms.clock import Clock, SystemClock
from transforms.durable import replace_file
from transforms.feed.intake import iso
from transforms.feed.ledger import Ledger, LedgerError, Stopped, Webhook, choose
from transforms.feed.ledger_window import LedgerWindow, Window, checkpointed
from transforms.id_set import IdSet, Keys, among
from transforms.secret import redact
from transforms.ulid import pack, seconds

log = logging.getLogger("grantex.reconcile")
IN_FLIGHT = 60.0  # seconds; what is younger may still be on its way
TRIES = 8  # of a request that is not answered: some two minutes


class Account(msgspec.Struct):
    """What became of the window's events, in events.

    not_provable: events that are there and that the ledger does not have rows for, by their type or because
    its webhook was registered later. unexpected: others that are there and not in the ledger.
    """

    delivered: int = 0
    dead_lettered: int = 0
    pending: int = 0
    missing: int = 0
    not_provable: int = 0
    unexpected: int = 0


class Result(msgspec.Struct):
    """What was found. Times are RFC 3339; `ledger` is how many events it has in the window.

    not_covered: types that the ledger has no rows for. complete: nothing is missing, nothing pending.
    """

    webhook: str
    since: str
    until: str
    ledger: int
    destinations: dict[str, Account]
    not_covered: list[str] = []
    requests: int = 0
    complete: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Compare once; returns the exit code."""
    stop = stop_on_signals()
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ, flags.PROGRAM)
        if faults := list(flags.faults(settings)):
            raise BadParameters(faults)
    except BadParameters as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        return exit_codes.BAD_PARAMETERS
    logs.configure(settings.log_format, settings.log_level)
    for line in settings.warnings:
        log.warning(line)
    settings.way_out.lend(os.environ)
    try:
        result = reconcile(settings, stop)
    except Stopped:
        log.error("interrupted; the same command goes on from here")
    except (LedgerError, ArchiveError, OSError) as error:
        log.error("%s; the same command goes on from here", redact(str(error)))
    else:
        show(result, as_json=settings["json"], missing=settings["missing"])
        return exit_codes.DRAINED if result.complete else exit_codes.FAILED
    return exit_codes.FAILED


def reconcile(settings: Settings, stop: threading.Event, clock: Clock | None = None) -> Result:
    """Compare. Raises LedgerError, ArchiveError, Stopped, OSError."""
    clock = clock or SystemClock()
    with Bars(settings["against"]) as bars:
        ledger = Ledger(feed_settings(settings), clock=clock, stop=stop, tries=TRIES, on_wait=bars.waits)
        with contextlib.closing(ledger):
            webhook = choose(ledger.webhooks(), settings.ledger_webhook or "auto")
            checkpoint = checkpoint_of(settings)
            window = window_of(settings, webhook, clock.now() + ledger.ahead, checkpoint)
            with contextlib.closing(LedgerWindow(window, checkpoint)) as rows:
                rows.read(ledger, lambda rows: bars.read(rows, ledger.requests))
                result = compare(settings, webhook, rows, bars, stop)
        result.requests = ledger.requests
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return result


def checkpoint_of(settings: Settings) -> Path | None:
    """Where a walk is kept that may be broken off: beside --missing, or in --state_dir."""
    asked = [settings[name] for name in ("feed_url", "ledger_webhook", "since", "until", "against")]
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:12]
    if settings["missing"] is not None:
        path: Path = settings["missing"]
        return path.with_name(f"{path.name}.{digest}.checkpoint")
    return settings.state_dir / f"reconcile.{digest}.checkpoint" if settings.state_dir.is_dir() else None


def window_of(settings: Settings, webhook: Webhook, now: float, checkpoint: Path | None) -> Window:
    """The window that is asked for, without what nobody can tell; or that of a run that was broken off."""
    since = max(settings["since"] or 0.0, webhook.created_at)
    until = min(settings["until"] or np.inf, now - IN_FLIGHT)
    begun = checkpointed(checkpoint) if checkpoint else None
    if begun is not None and (begun.webhook, begun.since) == (webhook.id, since):
        until = begun.until
    return Window(settings.feed_url, webhook.id, since, until)


def compare(
    settings: Settings, webhook: Webhook, rows: LedgerWindow, bars: Bars, stop: threading.Event
) -> Result:
    """The ledger's rows against what is there."""
    window, name = rows.window, settings["against"]
    keys, kinds = rows.sorted()
    asked = np.array([is_asked_for(settings, each) for each in rows.types] or [True])
    keys, kinds = keys[asked[kinds]], kinds[asked[kinds]]
    there = There(webhook, window, min(settings["since"] or np.inf, window.since))
    for some, part in found_in(settings, there.since, window.until):
        there.add(some)
        bars.found(part, len(there))
        if stop.is_set():
            raise Stopped
    present = among(keys, there.keys)
    absent = ~present
    dead = absent & among(keys, dead_lettered(settings, name))
    missing = absent & ~dead
    if settings["missing"] is not None:
        write_missing(settings["missing"], rows, keys[missing], kinds[missing])
    account = Account(
        delivered=_count(present),
        dead_lettered=_count(dead),
        missing=_count(missing),
        not_provable=there.not_provable,
        unexpected=_count(~among(there.keys, keys)),
    )
    return Result(
        webhook=webhook.id,
        since=iso(window.since),
        until=iso(window.until),
        ledger=len(keys),
        destinations={name: account},
        not_covered=[
            each for each in settings.feed_types or sorted(event_types.KNOWN) if not webhook.covers(each)
        ],
        complete=not account.missing and not account.pending,
    )


def _count(which: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(which))


def is_asked_for(settings: Settings, event_type: str) -> bool:
    """Whether the job receives events of this type."""
    return not settings.feed_types or event_type in settings.feed_types


class There:
    """What was found of a window: events that the ledger must have, and others.

    since: what was asked for, which may be before the ledger begins.
    """

    def __init__(self, webhook: Webhook, window: Window, since: float) -> None:
        self.since = since
        self._webhook, self._window = webhook, window
        self._inside, self._beside = IdSet(), IdSet()
        self._number = 0
        self._keys: Keys | None = None

    def __len__(self) -> int:
        return self._number

    def add(self, some: Sequence[read_back.Found]) -> None:
        """Events that are there."""
        inside: list[str] = []
        beside: list[str] = []
        for found in some:
            packed = pack(found.id)
            at = found.created_at if packed is None else seconds(packed)
            if not self.since <= at <= self._window.until:
                continue
            covered = not found.type or self._webhook.covers(found.type)
            (inside if covered and at >= self._window.since else beside).append(found.id)
        self._inside.add(inside)
        self._beside.add(beside)
        self._number += len(inside)

    @property
    def keys(self) -> Keys:
        """Those that the ledger must have, sorted."""
        if self._keys is None:
            self._keys = self._inside.keys()
        return self._keys

    @property
    def not_provable(self) -> int:
        """How many are there that the ledger has no row for."""
        return len(self._beside.keys())


def found_in(settings: Settings, since: float, until: float) -> Iterator[read_back.Some]:
    """What is there of a window. Raises ArchiveError."""
    name = settings["against"]
    to: Any = next(each for each in destinations(settings) if each.name == name)
    if name == "files":
        return read_back.in_archive(Archive(Directory(to.dir)), since, until)
    if name == "s3":
        from transforms.archive.objects import S3Objects

        return read_back.in_archive(Archive(S3Objects(to)), since, until)
    if name == "kafka":
        return read_back.in_topic(to, since)
    from transforms.archive.bigquery_rows import BigQueryRows

    return read_back.in_table(BigQueryRows(to.table, to.endpoint, to.way_out), since, until)


def dead_lettered(settings: Settings, destination: str) -> Keys:
    """Events that are dead letters of a destination, as far as they lie in a directory of this machine."""
    found = IdSet()
    place = Path(settings.dead_letters_place)
    if place.is_dir():
        letters = Archive(Directory(str(place), letters=True), doubtful=True)
        for shard in letters.shards():
            for where, events in letters.read(shard, Counter()):
                found.add(event.id for event in events if where == destination)
    return found.keys()


def write_missing(path: Path, rows: LedgerWindow, keys: Keys, kinds: npt.NDArray[np.uint16]) -> None:
    """One line an event. Raises OSError."""
    lines = []
    for key, kind in zip(keys, kinds, strict=True):
        event_id, at = rows.event(key)
        line = {"id": event_id, "type": rows.types[kind], "created_at": iso(at)}
        lines.append(msgspec.json.encode(line))
    replace_file(path, b"".join(line + b"\n" for line in lines))


# What a person sees


class Bars:
    """Progress on the terminal, when there is one."""

    def __init__(self, against: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.fields[says]}"))
        self._progress = Progress(
            *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
        )
        self._ledger: TaskID = self._progress.add_task("ledger", total=1.0, says="")
        self._there: TaskID = self._progress.add_task(against, total=1.0, says="")

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def waits(self, wait: float) -> None:
        """The rate limit is waited for."""
        if wait > 1.0:
            self._progress.update(
                self._ledger, says=f"waiting {wait:.0f} s, so that a fifth of the limit is left"
            )

    def read(self, rows: LedgerWindow, requests: int) -> None:
        """Another page."""
        window = rows.window
        part = (
            1.0 if rows.is_complete else (window.until - rows.reached) / max(1.0, window.until - window.since)
        )
        says = f"{rows.count:,} rows, {requests:,} requests"
        self._progress.update(self._ledger, completed=min(1.0, max(0.0, part)), says=says)

    def found(self, part: float, number: int) -> None:
        """More of what is there."""
        self._progress.update(self._there, completed=part, says=f"{number:,} events")


def show(result: Result, *, as_json: bool, missing: Path | None) -> None:
    """Print it."""
    if as_json:
        print(msgspec.json.encode(result).decode())
        return
    columns = Account.__struct_fields__
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", *columns):
        said = name.replace("_lettered", "-lettered").replace("_", " ")
        table.add_column(said, justify="right" if name else "left")
    for name, account in result.destinations.items():
        table.add_row(name, *(f"{getattr(account, each):,}" for each in columns))
    console = Console(soft_wrap=True)
    console.print(
        f"Ledger of webhook {result.webhook}, {result.since} to {result.until}: "
        f"{result.ledger:,} events ({result.requests:,} requests)"
    )
    console.print(table)
    if result.not_covered:
        names = ", ".join(result.not_covered)
        console.print(f"Types without rows in this ledger, of which nothing can be told: {names}")
    most = max((each.missing for each in result.destinations.values()), default=0)
    if most:
        where = f"in {missing}" if missing else "--missing=FILE names them"
        console.print(f"Missing: {most:,} events; {where}")
    elif result.complete:
        console.print("Complete.")


if __name__ == "__main__":
    # The module of that name, not this copy: what is pickled must be importable.
    from pipelines.reconcile import main as importable_main

    sys.exit(importable_main())
