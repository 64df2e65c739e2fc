"""A run on one machine: journal, feed, a lane for each destination, until it is told to drain."""

from __future__ import annotations

import contextlib
import gc
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import exit_codes
from pipelines.beam import LaneOptions
from pipelines.local import snapshot
from pipelines.local.ages import Ages
from pipelines.local.display import Display
from pipelines.local.feed_dead_letters import FeedDeadLetters
from pipelines.local.lane import Graph, Lane
from pipelines.local.listener import PortTaken
from pipelines.local.proof import ContinuousProof
from pipelines.local.standby import Standby
from pipelines.local.watchdog import Health
from pipelines.local.webhook import WebhookReceiver, WebhookSettings
from pipelines.local.when_free import WhenFree
from pipelines.preflight import Preflight, announce
from transforms.clock import Clock, SystemClock
from transforms.feed.journal import DirectoryInUse, Journal, JournalError
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.feed.watch import SPARE_SLOT, SpareSlot
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import letter_writer

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

log = logging.getLogger("grantex.run")

PROOF_SECONDS = 1.0  # for a walk that was under way to end
CLOSING_SECONDS = 3.0  # of the drain time-out, kept for closing writers and the journal
LAST_FLUSH = 0.25  # the part of what is left of it that is kept for what comes until the feed is closed
LOOK_EVERY = 0.05  # seconds between looks at how far lanes are


class CannotStart(Exception):
    """A parameter turned out to be wrong when it was used (exit code 2); the feed was not read."""


@dataclass(frozen=True)
class Run:
    """What one run is given."""

    settings: Settings
    feed: FeedSettings
    destinations: Sequence[Destination]
    graph: Graph
    stop: threading.Event
    preflight: Preflight
    clock: Clock
    health: Health

    def open_journal(self) -> Journal:
        """Raises JournalError, JournalUnavailable."""
        return Journal(
            Path(self.settings.state_dir),
            feed_url=self.feed.root,
            max_bytes=self.settings.journal_max_bytes,
            dedupe_horizon=self.settings.horizon,
            receipt_retention=self.settings.receipt_retention,
            receipt_max_bytes=self.settings.receipt_max_bytes,
            clock=self.clock,
        )


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

    With `settings.standby`, while another process has the state directory: stand by, and take over.
    preflight: started here, once nothing stands in the way; what it finds is shown, and in strict mode waited
    for. Raises CannotStart.
    """
    health = Health(Path(settings.state_dir))
    this = Run(settings, feed, destinations, graph, stop, preflight, clock or SystemClock(), health)
    try:
        return _run(this)
    except JournalError as error:
        raise CannotStart(f"--state_dir={settings.state_dir}: {error}") from error
    except PortTaken as error:
        raise CannotStart(str(error)) from error


def _run(this: Run) -> int:
    """Raises CannotStart, JournalError, PortTaken."""
    try:
        journal = this.open_journal()
    except DirectoryInUse:
        if not this.settings.standby:
            raise
        return _stand_by(this)
    with contextlib.closing(journal):
        reader = FeedReader(
            this.feed,
            journal,
            connections=this.feed.connections(this.settings.feed_connections),
            clock=this.clock,
            spare=SpareSlot(journal.directory / SPARE_SLOT),
            on_end=this.stop.set,
        )
        with (
            _assembled(this, journal, reader) as parts,
            Display(this.settings, this.health, parts.look, this.clock) as display,
        ):
            announce(this.feed.root, this.destinations)
            if not _tried(this):
                return exit_codes.PREFLIGHT_FAILED
            return _deliver(this, parts, display, reader.start)


def _stand_by(this: Run) -> int:
    """Hear the feed until the other process has ended, then deliver. Raises CannotStart, JournalError."""
    standby = Standby(this.settings, this.feed, this.clock, this.stop.set)
    this.health.reader = standby.reader
    with Display(this.settings, this.health, standby.snapshot, this.clock) as display:
        announce(this.feed.root, this.destinations)
        if not _tried(this):
            return exit_codes.PREFLIGHT_FAILED
        try:
            journal = standby.wait(this.open_journal, this.stop)
            if journal is None:
                display.stopping()
                return _code_of(standby.reader.failure)
            with contextlib.closing(journal), _assembled(this, journal, standby.reader) as parts:
                return _deliver(this, parts, display, lambda: standby.take_over(journal))
        finally:
            standby.reader.stop()


@dataclass(frozen=True)
class Parts:
    """What works while events are delivered. webhooks, proof: None when they are off."""

    journal: Journal
    reader: FeedReader
    lanes: Sequence[Lane]
    letters: FeedDeadLetters
    webhooks: WhenFree[WebhookReceiver] | None
    proof: ContinuousProof | None
    look: snapshot.Look


@contextlib.contextmanager
def _assembled(this: Run, journal: Journal, reader: FeedReader) -> Iterator[Parts]:
    """Nothing works yet. Raises CannotStart, PortTaken."""
    clock, lanes = this.clock, _lanes(this, journal)
    letters = FeedDeadLetters(
        journal, letter_writer(this.settings.dead_letters_place), clock, on_broken=this.stop.set
    )
    webhooks = _webhooks(this, journal) if this.settings.webhook_port else None
    proof = _proof(this, journal, reader) if this.settings.ledger_webhook else None
    ages, started_at = Ages(journal, clock), clock.now()

    def look() -> snapshot.Snapshot:
        counts = webhooks.server.counts if webhooks and webhooks.server else None
        return snapshot.take(
            journal, reader, lanes, clock, ages, started_at, this.preflight, letters, counts, proof
        )

    try:
        yield Parts(journal, reader, lanes, letters, webhooks, proof, look)
    finally:
        if proof:
            proof.stop(PROOF_SECONDS)
        if webhooks:
            webhooks.close()


def _proof(this: Run, journal: Journal, reader: FeedReader) -> ContinuousProof:
    webhook = this.settings.ledger_webhook
    return ContinuousProof(this.feed, webhook, journal, lambda: reader.heard_until, this.clock)


def _webhooks(this: Run, journal: Journal) -> WhenFree[WebhookReceiver]:
    """The receiver, which listens and does not take anything yet. Raises PortTaken."""
    settings = this.settings
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

    def opened() -> WebhookReceiver:
        receiver = WebhookReceiver(told, journal, this.clock, on_broken=this.stop.set)
        log.info("webhooks are taken on %s:%d", settings.webhook_host, receiver.port)
        return receiver

    setting = f"--webhook_port={settings.webhook_port}"
    return WhenFree(setting, opened, this.clock, patient=settings.standby)


def _lanes(this: Run, journal: Journal) -> list[Lane]:
    """Raises CannotStart."""
    _forget(this.settings, journal)
    options = LaneOptions(this.settings.beam_args)
    lanes = [
        Lane(
            destination,
            journal,
            this.graph,
            clock=this.clock,
            options=options,
            dead_letter_limit=this.settings.dead_letter_limit,
            on_broken=this.stop.set,
        )
        for destination in this.destinations
    ]
    _warn_of_removed(journal, lanes)
    return lanes


def _tried(this: Run) -> bool:
    """Begin with the preflight; False when it was waited for and did not pass."""
    this.preflight.start()
    if this.settings.preflight == "strict" and not this.preflight.wait():
        log.error("--preflight=strict: nothing was started, as not everything passes")
        return False
    return True


def _deliver(this: Run, parts: Parts, display: Display, begin_to_read: Callable[[], None]) -> int:
    """Until it is told to stop, and then drain; returns the exit code. Raises JournalError."""
    display.look = parts.look
    this.health.reader = parts.reader
    this.health.deliver(parts.journal, parts.lanes)
    # What is there by now stays, as Beam does (pipelines/beam.py). To look at all of it again in every full
    # collection stops all threads for 0.2 s, and so comes too rarely for what Beam leaves behind (10 MB and
    # more).
    gc.freeze()
    for lane in parts.lanes:
        lane.start()
    parts.letters.start()
    begin_to_read()
    if parts.webhooks:
        parts.webhooks.then(WebhookReceiver.start)
    if parts.proof:
        parts.proof.start()
    this.stop.wait()
    display.stopping()
    return _drain(this.settings, parts)


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


def _drain(settings: Settings, parts: Parts) -> int:
    """Deliver what was received, close the feed, deliver the rest; says what is left.

    The feed is closed last, as what is published after that is heard by nobody. So nothing is waited for
    that the journal can keep: a destination that is down, or does not catch up in time.
    """
    journal, reader, lanes = parts.journal, parts.reader, parts.lanes
    clock = journal.clock
    until = clock.monotonic() + settings.drain_timeout
    end = max(clock.monotonic(), until - CLOSING_SECONDS)
    log.info("draining: what is received is being delivered; the feed is read until then")
    caught_up = _catch_up(lanes, journal.end, end - LAST_FLUSH * (end - clock.monotonic()), clock)
    reader.stop()
    if parts.webhooks:
        parts.webhooks.close()
    log.info("draining: the feed is closed")
    for lane in caught_up:
        lane.drain(end)
    _join(lanes, until, clock)
    if not parts.letters.finish(max(0.0, until - clock.monotonic())):
        failure = parts.letters.failure
        log.warning("dead letters of the feed are kept: the next start writes them (%s)", failure)
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


def _code_of(failure: BaseException | None) -> int:
    """What ended the reading of the feed, as an exit code; DRAINED when nothing did."""
    if isinstance(failure, JournalError):
        log.error("--feed_api_key: %s", failure)
        return exit_codes.BAD_PARAMETERS
    if isinstance(failure, sqlite3.DatabaseError):
        log.error("the journal cannot be written (%s): start again, a damaged one is then repaired", failure)
        return exit_codes.FAILED
    if failure is not None:
        log.error("reading the feed failed: %s: %s", type(failure).__name__, failure, exc_info=failure)
        return exit_codes.FAILED
    return exit_codes.DRAINED


def _exit_code(journal: Journal, failure: BaseException | None, lanes: Sequence[Lane]) -> int:
    code = _code_of(failure)
    if code == exit_codes.DRAINED and journal.is_suspect:
        log.error("the journal is damaged: start again, and it is repaired; what can be read of it is kept")
        return exit_codes.FAILED
    if code != exit_codes.DRAINED:
        return code
    if all(lane.drained for lane in lanes):
        log.info("drained: every event received is delivered or a dead letter")
    return exit_codes.DRAINED
