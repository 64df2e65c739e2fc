"""A run on one machine: journal, feed, a lane for each destination, until it is told to drain."""

from __future__ import annotations

import contextlib
import gc
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import exit_codes
from pipelines.local import snapshot
from pipelines.local.feed_letters import FeedLetters
from pipelines.local.lane import Graph, Lane
from pipelines.local.status import PortTaken, StatusServer
from pipelines.local.terminal import Terminal
from pipelines.preflight import Preflight
from transforms.clock import Clock, SystemClock
from transforms.feed.journal import Journal, JournalError
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import letter_writer

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

log = logging.getLogger("grantex.run")

CLOSING_SECONDS = 3.0  # of the drain time-out, kept for closing writers and the journal


class CannotStart(Exception):
    """A parameter turned out to be wrong when it was used (exit code 2); nothing was connected to."""


def run(
    settings: Settings,
    feed: FeedSettings,
    destinations: Sequence[Destination],
    graph: Graph,
    stop: threading.Event,
    *,
    preflight: Preflight,
    clock: Clock | None = None,
) -> int:
    """Run until `stop` is set or the input ends, then drain; returns the exit code.

    preflight: has been started; what it finds is shown. Raises CannotStart.
    """
    clock = clock or SystemClock()
    with _journal(settings, feed, clock) as journal:
        _forget(settings, journal)
        lanes = [
            Lane(
                destination,
                journal,
                graph,
                clock=clock,
                beam_args=settings.beam_args,
                dead_letter_limit=settings.dead_letter_limit,
            )
            for destination in destinations
        ]
        _warn_of_removed(journal, lanes)
        reader = FeedReader(
            feed, journal, connections=settings.feed_connections, clock=clock, on_end=stop.set
        )

        letters = FeedLetters(journal, letter_writer(settings.dead_letters_place), clock)
        started_at = clock.now()

        def look() -> snapshot.Snapshot:
            return snapshot.take(journal, reader, lanes, clock, started_at, preflight)

        with _status_server(settings, look) as page, Terminal(look, page) as terminal:
            # What is imported stays. To look at its 180,000 objects again in every full collection stops all
            # threads for 0.2 s, and so comes too rarely for what Beam leaves behind (10 MB and more).
            gc.freeze()
            for lane in lanes:
                lane.start()
            letters.start()
            reader.start()
            terminal.wait(stop)
            return _drain(settings, reader, letters, lanes, clock)


@contextlib.contextmanager
def _journal(settings: Settings, feed: FeedSettings, clock: Clock) -> Iterator[Journal]:
    try:
        journal = Journal(
            Path(settings.state_dir),
            feed_url=feed.root,
            max_bytes=settings.journal_max_bytes,
            dedupe_horizon=settings.dedupe_horizon,
            clock=clock,
        )
    except JournalError as error:
        raise CannotStart(f"--state_dir={settings.state_dir}: {error}") from error
    try:
        yield journal
    finally:
        journal.close()


@contextlib.contextmanager
def _status_server(settings: Settings, look: snapshot.Look) -> Iterator[str]:
    """Yields the page's address, "" when it is off."""
    if not settings.status_port:
        yield ""
        return
    try:
        server = StatusServer(settings.status_host, settings.status_port, look)
    except PortTaken as error:
        raise CannotStart(
            f"--status_port={settings.status_port}: {error}: choose another port, or 0 for none"
        ) from error
    host = f"[{settings.status_host}]" if ":" in settings.status_host else settings.status_host
    page = f"http://{host}:{server.port}/"
    log.info("status page: %s", page)
    with contextlib.closing(server):
        yield page


def _forget(settings: Settings, journal: Journal) -> None:
    for name in settings.forget_destination:
        if name not in journal.cursors:
            known = ", ".join(sorted(journal.cursors)) or "none"
            raise CannotStart(
                f"--forget_destination={name}: the journal knows no such destination; it knows: {known}"
            )
        pending = journal.cursors[name].pending
        journal.forget(name)
        log.warning("%s is forgotten, with %d events that it had not been sent", name, pending)


def _warn_of_removed(journal: Journal, lanes: Sequence[Lane]) -> None:
    for name in journal.cursors.keys() - {lane.name for lane in lanes}:
        log.warning(
            "%s is not among the destinations any more, and the journal keeps %d events for it (and all that "
            "come): give its flags again, or --forget_destination=%s to let them go",
            name,
            journal.cursors[name].pending,
            name,
        )


def _drain(
    settings: Settings, reader: FeedReader, letters: FeedLetters, lanes: Sequence[Lane], clock: Clock
) -> int:
    """Stop reading, let every lane deliver what the journal holds, and say what is left."""
    until = clock.monotonic() + settings.drain_timeout
    log.info("draining: the feed is closed, what is received is being delivered")
    reader.stop()
    for lane in lanes:
        lane.drain(max(clock.monotonic(), until - CLOSING_SECONDS))
    for lane in lanes:
        if not lane.join(max(0.0, until - clock.monotonic())):
            log.warning("%s did not stop in time; what it had under way may be sent once more", lane.name)
    if not letters.finish(max(0.0, until - clock.monotonic())):
        log.warning("dead letters of the feed are kept: the next start writes them (%s)", letters.failure)
    for lane in lanes:
        if not lane.drained:
            log.warning("%d events kept for %s: the next start delivers them", lane.cursor.pending, lane.name)
    return _exit_code(reader.failure, lanes)


def _exit_code(failure: BaseException | None, lanes: Sequence[Lane]) -> int:
    if isinstance(failure, JournalError):
        log.error("--feed_api_key: %s", failure)
        return exit_codes.BAD_PARAMETERS
    if isinstance(failure, sqlite3.DatabaseError):
        log.error("the journal cannot be written (%s): start again, a damaged one is then salvaged", failure)
        return exit_codes.FAILED
    if failure is not None:
        log.error("reading the feed failed: %s: %s", type(failure).__name__, failure, exc_info=failure)
        return exit_codes.FAILED
    if all(lane.drained for lane in lanes):
        log.info("drained: every event received is delivered or a dead letter")
    return exit_codes.DRAINED
