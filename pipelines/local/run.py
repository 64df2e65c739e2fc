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
from pipelines.local.ages import Ages
from pipelines.local.feed_dead_letters import FeedDeadLetters
from pipelines.local.lane import Graph, Lane
from pipelines.local.listener import PortTaken
from pipelines.local.proof import ContinuousProof
from pipelines.local.status import StatusServer
from pipelines.local.terminal import Terminal
from pipelines.local.webhook import WebhookReceiver, WebhookSettings
from pipelines.preflight import Preflight, announce
from transforms.clock import Clock, SystemClock
from transforms.feed.journal import Journal, JournalError
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.feed.watch import SPARE_SLOT, SpareSlot
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import letter_writer

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

log = logging.getLogger("grantex.run")

CLOSING_SECONDS = 3.0  # of the drain time-out, kept for closing writers and the journal
PROOF_SECONDS = 1.0  # for a walk that was under way to end
LAST_FLUSH = 0.25  # the part of what is left of it that is kept for what comes until the feed is closed
LOOK_EVERY = 0.05  # seconds between looks at how far lanes are


class CannotStart(Exception):
    """A parameter turned out to be wrong when it was used (exit code 2); the feed was not read."""


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

    preflight: started here, once nothing stands in the way; what it finds is shown, and in strict mode waited
    for. Raises CannotStart.
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
                on_broken=stop.set,
            )
            for destination in destinations
        ]
        _warn_of_removed(journal, lanes)
        reader = FeedReader(
            feed,
            journal,
            connections=feed.connections(settings.feed_connections),
            clock=clock,
            spare=SpareSlot(journal.directory / SPARE_SLOT),
            on_end=stop.set,
        )

        letters = FeedDeadLetters(
            journal, letter_writer(settings.dead_letters_place), clock, on_broken=stop.set
        )
        ages, started_at = Ages(journal, clock), clock.now()

        def look() -> snapshot.Snapshot:
            return snapshot.take(
                journal,
                reader,
                lanes,
                clock,
                ages,
                started_at,
                preflight,
                letters.failure,
                webhooks.counts if webhooks else None,
                proof,
            )

        with (
            _proof(settings, feed, journal, reader, clock) as proof,
            _webhooks(settings, journal, clock, stop) as webhooks,
            _status_server(settings, look) as page,
            Terminal(look, page) as terminal,
        ):
            announce(feed.root, destinations)
            preflight.start()
            if settings.preflight == "strict" and not preflight.wait():
                log.error("--preflight=strict: nothing was started, as not everything passes")
                return exit_codes.PREFLIGHT_FAILED
            # What is imported stays. To look at its 180,000 objects again in every full collection stops all
            # threads for 0.2 s, and so comes too rarely for what Beam leaves behind (10 MB and more).
            gc.freeze()
            for lane in lanes:
                lane.start()
            letters.start()
            reader.start()
            if webhooks:
                webhooks.start()
            if proof:
                proof.start()
            terminal.wait(stop)
            return _drain(settings, journal, reader, webhooks, letters, lanes)


@contextlib.contextmanager
def _journal(settings: Settings, feed: FeedSettings, clock: Clock) -> Iterator[Journal]:
    try:
        journal = Journal(
            Path(settings.state_dir),
            feed_url=feed.root,
            max_bytes=settings.journal_max_bytes,
            dedupe_horizon=settings.horizon,
            receipt_retention=settings.receipt_retention,
            receipt_max_bytes=settings.receipt_max_bytes,
            clock=clock,
        )
    except JournalError as error:
        raise CannotStart(f"--state_dir={settings.state_dir}: {error}") from error
    try:
        yield journal
    finally:
        journal.close()


@contextlib.contextmanager
def _proof(
    settings: Settings, feed: FeedSettings, journal: Journal, reader: FeedReader, clock: Clock
) -> Iterator[ContinuousProof | None]:
    if not settings.ledger_webhook:
        yield None
        return
    proof = ContinuousProof(feed, settings.ledger_webhook, journal, lambda: reader.heard_until, clock)
    try:
        yield proof
    finally:
        proof.stop(PROOF_SECONDS)


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


@contextlib.contextmanager
def _webhooks(
    settings: Settings, journal: Journal, clock: Clock, stop: threading.Event
) -> Iterator[WebhookReceiver | None]:
    """Yields the receiver, which listens and does not take anything yet; None when it is off."""
    if not settings.webhook_port:
        yield None
        return
    told = WebhookSettings(
        port=settings.webhook_port,
        secrets=settings.webhook_secret,
        host=settings.webhook_host,
        path=settings.webhook_path,
        max_bytes=settings.webhook_max_bytes,
        allow_v1=settings.webhook_allow_v1,
        types=settings.feed_types,
        way_out=settings.way_out,
    )
    try:
        receiver = WebhookReceiver(told, journal, clock, on_broken=stop.set)
    except PortTaken as error:
        raise CannotStart(f"--webhook_port={settings.webhook_port}: {error}: choose another port") from error
    log.info("webhooks are taken on %s:%d", settings.webhook_host, receiver.port)
    with contextlib.closing(receiver):
        yield receiver


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
    settings: Settings,
    journal: Journal,
    reader: FeedReader,
    webhooks: WebhookReceiver | None,
    letters: FeedDeadLetters,
    lanes: Sequence[Lane],
) -> int:
    """Deliver what was received, close the feed, deliver the rest; says what is left.

    The feed is closed last, as what is published after that is heard by nobody. So nothing is waited for
    that the journal can keep: a destination that is down, or does not catch up in time.
    """
    clock = journal.clock
    until = clock.monotonic() + settings.drain_timeout
    end = max(clock.monotonic(), until - CLOSING_SECONDS)
    log.info("draining: what is received is being delivered; the feed is read until then")
    caught_up = _catch_up(lanes, journal.end, end - LAST_FLUSH * (end - clock.monotonic()), clock)
    reader.stop()
    if webhooks:
        webhooks.close()
    log.info("draining: the feed is closed")
    for lane in caught_up:
        lane.drain(end)
    _join(lanes, until, clock)
    if not letters.finish(max(0.0, until - clock.monotonic())):
        log.warning("dead letters of the feed are kept: the next start writes them (%s)", letters.failure)
    for lane in lanes:
        if not lane.drained:
            log.warning("%d events kept for %s: the next start delivers them", lane.cursor.pending, lane.name)
    return _exit_code(journal, reader.failure, lanes)


def _catch_up(lanes: Sequence[Lane], end: int, until: float, clock: Clock) -> list[Lane]:
    """Let the lanes deliver what is below the offset `end`, until `until` (monotonic seconds); returns those
    that have. The others have ended, or are about to: the journal keeps their events."""
    for lane in lanes:
        lane.catch_up(end)
    behind = list(lanes)
    while behind and clock.monotonic() < until:
        behind = [lane for lane in behind if lane.cursor.position < end]
        for lane in [lane for lane in behind if not lane.is_well]:
            lane.drain(clock.monotonic())
            behind.remove(lane)
        if behind:
            clock.wait(threading.Event(), LOOK_EVERY)
    for lane in behind:
        lane.drain(clock.monotonic())
    caught_up = [lane for lane in lanes if not lane.draining]
    _join([lane for lane in lanes if lane.draining], clock.monotonic() + CLOSING_SECONDS, clock)
    return caught_up


def _join(lanes: Sequence[Lane], until: float, clock: Clock) -> None:
    """Wait for the end of these lanes; one whose destination goes down meanwhile is asked to end now."""
    running = list(lanes)
    while running and clock.monotonic() < until:
        for lane in running:
            if not lane.is_well:
                lane.drain(clock.monotonic())
        running = [lane for lane in running if not lane.join(LOOK_EVERY)]
    for lane in running:
        log.warning("%s did not stop in time; what it had under way may be sent once more", lane.name)


def _exit_code(journal: Journal, failure: BaseException | None, lanes: Sequence[Lane]) -> int:
    if isinstance(failure, JournalError):
        log.error("--feed_api_key: %s", failure)
        return exit_codes.BAD_PARAMETERS
    if isinstance(failure, sqlite3.DatabaseError):
        log.error("the journal cannot be written (%s): start again, a damaged one is then repaired", failure)
        return exit_codes.FAILED
    if journal.is_suspect:
        log.error("the journal is damaged: start again, and it is repaired; what can be read of it is kept")
        return exit_codes.FAILED
    if failure is not None:
        log.error("reading the feed failed: %s: %s", type(failure).__name__, failure, exc_info=failure)
        return exit_codes.FAILED
    if all(lane.drained for lane in lanes):
        log.info("drained: every event received is delivered or a dead letter")
    return exit_codes.DRAINED
