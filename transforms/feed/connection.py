"""One connection to the feed: connects, reads into the intake, and comes back, for as long as it is asked."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import Intake, JournalFull
from transforms.feed.reconnect import Decision, Ending, How, Row, decide, ending_of_error, refusal
from transforms.feed.request import (
    FeedSettings,
    Wire,
    fetch_developer_id,
    open_client,
    read_key,
    stream_headers,
    stream_url,
)
from transforms.feed.sse import FrameReader
from transforms.feed.status import ConnectionStatus, Phase
from transforms.parse import Frame, parse_frames
from transforms.secret import SecretError

_log = logging.getLogger("grantex.feed")
# Two full reads of the socket, about 450 ordinary events: the size of a chunk. Each append is a commit.
GATHER_BYTES = 128 * 1024
FULL_RETRY = 1.0  # seconds; room comes when a destination catches up, not sooner


class Reading:
    """The state of one stream: the frame reader, and frames that are not in the intake yet.

    on_taken: called with (now, how many events) after every append, or keepalive.
    on_paused: called with True when the journal is full, with False when there is room again.
    """

    def __init__(
        self,
        intake: Intake,
        stop: threading.Event,
        clock: Clock,
        on_taken: Callable[[float, int], None],
        on_paused: Callable[[bool], None],
    ) -> None:
        self.frames = FrameReader()
        self._intake = intake
        self._stop = stop
        self._clock = clock
        self._on_taken = on_taken
        self._on_paused = on_paused
        self._pending: list[Frame] = []
        self._bytes = 0

    def add(self, block: bytes) -> None:
        """Take a block of the body."""
        self._pending += self.frames.feed(block)
        self._bytes += len(block)
        if self._bytes >= GATHER_BYTES:
            self.take()

    def before_read(self, waiting: bool) -> None:
        """The network is about to be read: unless bytes are waiting, that may block, so append first."""
        if not waiting:
            self.take()

    def take(self) -> None:
        """Append everything received so far. Returns with the intake's exceptions, but for JournalFull:
        then it waits, reading nothing, until there is room or `stop` is set, and tries a last time."""
        if not self._bytes:
            return
        self._bytes = 0
        now = self._clock.now()
        frames, self._pending = self._pending, []
        events, strays = parse_frames(frames, now)
        if events or strays:
            self._append(events, strays)
        self._intake.heard()
        self._on_taken(now, len(events))

    def _append(self, events: Sequence[Event], strays: Sequence[DeadLetter]) -> None:
        paused: JournalFull | None = None
        while True:
            last_try = self._stop.is_set()  # asked first: who stops it may have made room before
            try:
                self._intake.append(events, strays)
                break
            except JournalFull as full:
                if last_try:
                    text = "stopped while %s was full: %d received events were not kept"
                    _log.error(text, full.place, len(events))
                    return
                if paused is None:
                    paused = full
                    self._pause(full, len(events))
                self._clock.wait(self._stop, FULL_RETRY)
        if paused is not None:
            _log.warning("%s has room again: reading the feed goes on", paused.place)
            self._intake.close_gap()
            self._on_paused(False)

    def _pause(self, full: JournalFull, held: int) -> None:
        _log.error(
            "%s is full (%s): reading the feed pauses with %d events in hand; %s",
            full.place,
            full,
            held,
            full.advice,
        )
        self._intake.open_gap(f"{full.place} was full")
        self._on_paused(True)


class OpenStreams:
    """Shared by all connections of one process: only the loss of the last open stream opens a gap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0

    @property
    def open(self) -> int:
        """Streams whose response headers have come and that have not ended."""
        return self._open

    def start(self, intake: Intake) -> None:
        """A connection is about to be made for the first time: since the last run nobody listened."""
        with self._lock:
            if self._open == 0:
                intake.open_gap("not running")

    def add(self, intake: Intake) -> None:
        """A stream's headers are there."""
        with self._lock:
            self._open += 1
            intake.close_gap()

    def lose(self, intake: Intake, reason: str) -> None:
        """A stream has ended without being asked to."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                intake.open_gap(reason)

    def remove(self) -> None:
        """A stream was ended on purpose: whoever stops the last one also knows that it stopped."""
        with self._lock:
            self._open -= 1


__all__ = ["FeedConnection", "FeedSettings"]


class FeedConnection:
    """Reads one stream in the thread that calls `run`.

    streams: shared by the connections of one process, so that only the loss of the last one is a gap.
    check_account: called once with the developer's id as soon as it is known; what it raises ends `run`.
    failure: what ended `run`, when it was an exception.
    """

    def __init__(
        self,
        settings: FeedSettings,
        *,
        clock: Clock | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        streams: OpenStreams | None = None,
        check_account: Callable[[str], None] | None = None,
        name: str = "feed",
    ) -> None:
        self.failure: BaseException | None = None
        self._settings = settings
        self._clock = clock or SystemClock()
        self._uniform = uniform
        self._streams = streams or OpenStreams()
        self._check_account = check_account
        self._name = name
        self._status = ConnectionStatus()
        self._stop = threading.Event()
        self._wire = Wire()
        self._key = ""
        self._last_event_id = ""
        self._server_retry: float | None = None
        self._has_been_live = False
        self._is_live = False

    @property
    def status(self) -> ConnectionStatus:
        """A snapshot; safe from any thread."""
        return self._status

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Read until `stop` is set or the service ends the input (`status.end_of_input`).

        Network failures never end it. Raises what the intake raises (but for JournalFull, which it waits
        out), what `check_account` raises, and OSError for an unreadable `ca_file`; `failure` keeps it.
        To end a read that is under way, set `stop` and call `interrupt`.
        """
        self._stop = stop
        try:
            self._run(intake)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            if self._is_live:
                self._is_live = False
                self._streams.remove()
            self._show(phase=Phase.STOPPED, until=None, why="")

    def interrupt(self) -> None:
        """End the read or connection attempt under way at once; without `stop` set it reconnects."""
        self._wire.cut()

    def _run(self, intake: Intake) -> None:
        row = Row()
        self._streams.start(intake)
        with open_client(self._settings) as client:
            while not self._stop.is_set():
                ending = self._attempt(client, intake)
                if self._stop.is_set():
                    return
                row = row.after(ending)
                others = self._streams.open - self._is_live
                decision = decide(ending, row, others, self._server_retry, self._uniform)
                if self._is_live:
                    self._is_live = False
                    self._streams.lose(intake, decision.reason)
                if decision.stop:
                    self._end_of_input(intake, decision.reason)
                    return
                if decision.reread_secret:
                    self._key = ""
                self._wait(decision)

    def _attempt(self, client: httpx.Client, intake: Intake) -> Ending:
        """Connect and read until the connection ends, and say how."""
        try:
            self._key = self._key or read_key(self._settings)
        except SecretError as error:
            return Ending(How.NO_KEY, str(error))
        self._show(phase=Phase.CONNECTING, until=None, why="")
        self._ask_account(client)
        reading = Reading(intake, self._stop, self._clock, self._taken, self._paused)
        wire = self._new_wire(self._tcp_is_up, reading.before_read)
        live_at: float | None = None
        try:
            with self._request(client, wire) as response:
                refused = refusal(response, self._clock.now())
                if refused is not None:
                    return refused
                live_at = self._clock.monotonic()
                self._went_live(intake)
                for block in response.iter_raw():
                    reading.add(block)
                    if not wire.is_watched:  # behind a kind of proxy that httpcore does not trace
                        reading.take()
                    if self._stop.is_set():
                        break
            ending = Ending(How.END, lived=self._clock.monotonic() - live_at)
        except httpx.HTTPError as error:
            ending = ending_of_error(error, 0.0 if live_at is None else self._clock.monotonic() - live_at)
        finally:
            wire.release()
        reading.take()
        if live_at is not None:
            self._last_event_id = reading.frames.last_event_id or self._last_event_id
            self._server_retry = reading.frames.retry or self._server_retry
        return ending

    def _request(self, client: httpx.Client, wire: Wire) -> Any:
        return client.stream(
            "GET",
            stream_url(self._settings),
            headers=stream_headers(self._key, self._last_event_id),
            extensions={"trace": wire.trace},
        )

    def _new_wire(self, on_tcp: Callable[[], None], before_read: Callable[[bool], None]) -> Wire:
        self._wire = wire = Wire(on_tcp, before_read)
        if self._stop.is_set():  # `interrupt` may have come just before, to the wire of the last attempt
            wire.cut()
        return wire

    def _ask_account(self, client: httpx.Client) -> None:
        if self._check_account is None:
            return
        wire = self._new_wire(lambda: None, lambda waiting: None)
        try:
            developer_id = fetch_developer_id(client, self._settings, self._key, {"trace": wire.trace})
        finally:
            wire.release()
        if developer_id is not None:
            self._check_account(developer_id)
            self._check_account = None

    def _tcp_is_up(self) -> None:
        self._show(phase=Phase.WAITING_FOR_HEADERS)

    def _went_live(self, intake: Intake) -> None:
        again = " again" if self._has_been_live else ""
        self._is_live = True
        self._streams.add(intake)
        self._show(phase=Phase.LIVE, reconnects=self._status.reconnects + self._has_been_live)
        self._has_been_live = True
        _log.info("%s: live%s, reading events from %s", self._name, again, self._settings.root)

    def _taken(self, now: float, events: int) -> None:
        self._status = replace(
            self._status, last_heard_at=now, last_event_at=now if events else self._status.last_event_at
        )

    def _paused(self, paused: bool) -> None:
        self._show(phase=Phase.PAUSED if paused else Phase.LIVE)

    def _end_of_input(self, intake: Intake, reason: str) -> None:
        _log.info("%s: %s", self._name, reason)
        intake.close_gap()  # nothing was published after the end, so nothing can be missing
        self._show(end_of_input=True)

    def _wait(self, decision: Decision) -> None:
        text = f"{decision.reason}; trying again in {decision.wait:.1f} s"
        level = logging.DEBUG if decision.reason == self._status.last_problem else logging.WARNING
        if self._status.phase in (Phase.LIVE, Phase.PAUSED):
            level = logging.WARNING
        _log.log(level, "%s: %s", self._name, text)
        self._show(
            phase=Phase.WAITING,
            until=self._clock.now() + decision.wait,
            why=decision.reason,
            last_problem=decision.reason,
        )
        self._clock.wait(self._stop, decision.wait)

    def _show(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
