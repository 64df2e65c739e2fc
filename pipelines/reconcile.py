"""`reconcile`: the service's delivery ledger against what was received, or what a destination has."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from pipelines import exit_codes
from pipelines.accounts import (
    Account,
    Progress,
    asked_for,
    by_reading_back,
    by_receipts,
    missing_lines,
    receipts_since,
)
from pipelines.flags import reconcile as flags
from pipelines.flags.destinations import feed_settings
from pipelines.flags.settings import BadParameters, Settings, parse
from pipelines.local import logs
from pipelines.local.signals import stop_on_signals
from transforms.archive.sources import ArchiveError
from transforms.clock import Clock, SystemClock
from transforms.durable import replace_file
from transforms.feed.intake import iso
from transforms.feed.journal import JournalDamaged, JournalError
from transforms.feed.ledger import Ledger, LedgerError, Stopped, Webhook, choose
from transforms.feed.ledger_window import LedgerWindow, Window, checkpointed
from transforms.secret import redact

log = logging.getLogger("grantex.reconcile")
IN_FLIGHT = 60.0  # seconds; what is younger may still be on its way
TRIES = 8  # of a request that is not answered: some two minutes


class Result(msgspec.Struct):
    """What was found. Times are RFC 3339. ledger: how many events it has in the window. missing: how many of
    them were not received, or are not there.

    not_covered: types that the ledger has no rows for. complete: nothing is missing, nothing pending.
    """

    webhook: str
    since: str
    until: str
    ledger: int
    missing: int
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
        return exit_codes.refuse(error.lines, error.code)
    logs.begin(settings, log)
    try:
        result = reconcile(settings, stop)
    except Stopped:
        log.error("interrupted; the same command goes on from here")
    except JournalError as error:
        log.error("--state_dir=%s: %s", settings.state_dir, error)
        return exit_codes.BAD_PARAMETERS
    except (LedgerError, ArchiveError, JournalDamaged, OSError) as error:
        log.error("%s; the same command goes on from here", redact(str(error)))
    else:
        show(result, as_json=settings["json"], missing=settings["missing"])
        return exit_codes.DRAINED if result.complete else exit_codes.FAILED
    return exit_codes.FAILED


def reconcile(settings: Settings, stop: threading.Event, clock: Clock | None = None) -> Result:
    """Compare. Raises LedgerError, ArchiveError, JournalError, JournalDamaged, Stopped, OSError."""
    clock = clock or SystemClock()
    with Bars(settings["against"]) as bars:
        ledger = Ledger(feed_settings(settings), clock=clock, stop=stop, tries=TRIES, on_wait=bars.waits)
        with contextlib.closing(ledger):
            webhook = choose(ledger.webhooks(), settings.ledger_webhook or "auto")
            checkpoint = checkpoint_of(settings)
            window = window_of(settings, webhook, clock.now() + ledger.ahead, checkpoint)
            with contextlib.closing(LedgerWindow(window, checkpoint)) as rows:
                rows.read(ledger, lambda rows: bars.read(rows, ledger.requests))
                result = compare(settings, webhook, rows, stoppable(bars.found, stop))
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
    """The window that is asked for, without what nobody can tell; or that of a run that was broken off.

    Raises JournalError, JournalDamaged.
    """
    begun = checkpointed(checkpoint) if checkpoint else None
    if begun is not None and (begun.url, begun.webhook) == (settings.feed_url, webhook.id):
        return begun
    since = settings["since"]
    if since is None:
        since = receipts_since(settings.state_dir) if settings["against"] == "receipts" else 0.0
    until = min(settings["until"] or np.inf, now - IN_FLIGHT)
    return Window(settings.feed_url, webhook.id, max(since, webhook.created_at), until)


def compare(settings: Settings, webhook: Webhook, rows: LedgerWindow, progress: Progress) -> Result:
    """The ledger's rows against what is known, or there; writes --missing."""
    keys, kinds = asked_for(settings, rows)
    not_covered = webhook.lacks(settings.feed_types)
    if settings["against"] == "receipts":
        accounts = by_receipts(settings.state_dir, keys, rows, progress, all_types=not not_covered)
    else:
        accounts = by_reading_back(settings, webhook, keys, kinds, rows, progress)
    if settings["missing"] is not None:
        replace_file(settings["missing"], b"".join(missing_lines(accounts, keys, kinds, rows)))
    missing = int(np.count_nonzero(accounts.missing))
    return Result(
        webhook=webhook.id,
        since=iso(rows.window.since),
        until=iso(rows.window.until),
        ledger=len(keys),
        missing=missing,
        destinations=accounts.destinations,
        not_covered=not_covered,
        complete=not missing and not any(each.pending for each in accounts.destinations.values()),
    )


def stoppable(progress: Progress, stop: threading.Event) -> Progress:
    """`progress`, which ends it all once `stop` is set."""

    def told(part: float, number: int) -> None:
        progress(part, number)
        if stop.is_set():
            raise Stopped

    return told


# What a person sees


class Bars:
    """Progress on the terminal, when there is one."""

    def __init__(self, against: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.fields[says]}"))
        self._progress = RichProgress(
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
    rare = {"filtered"} if not any(each.filtered for each in result.destinations.values()) else set()
    columns = [each for each in Account.__struct_fields__ if each not in rare]
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
    if result.missing:
        where = f"in {missing}" if missing else "--missing=FILE names them"
        console.print(f"Missing: {result.missing:,} events; {where}")
    elif result.complete:
        console.print("Complete.")


if __name__ == "__main__":
    # The module of that name, not this copy: what is pickled must be importable.
    from pipelines.reconcile import main as importable_main

    sys.exit(importable_main())
