"""One connection to the feed: connects, reads into the intake, and comes back, for as long as it is asked."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.account import AccountCheck
from transforms.feed.coverage import Coverage, Stream
from transforms.feed.intake import Intake, JournalFull
from transforms.feed.reconnect import Decision, Ending, EndingKind, Streak, decide, ending_of_error, refusal
from transforms.feed.request import FeedSettings, Wire, open_client, read_key, stream_headers, stream_url
from transforms.feed.sse import FrameReader
from transforms.feed.status import ConnectionStatus, Phase
from transforms.parse import Frame, parse_frames
from transforms.reminder import Reminder
from transforms.secret import SecretError
from transforms.write.created_at import epoch_milliseconds

_log = logging.getLogger("grantex.feed")
# Two full reads of the socket, about 450 ordinary events: the size of a chunk. Each append is a commit.
GATHER_BYTES = 128 * 1024
FULL_RETRY = 1.0  # seconds; room comes when a destination catches up, not sooner
# What a stream that is read to its last byte may have been behind: the service's clock may be wrong by more.
MAX_LATE = 60.0
# `createdAt` has milliseconds: what came later in the same one may be missing.
FINEST = 0.001
# A keepalive does not say when it was sent, and an event may still be on its way.
ON_ITS_WAY = 1.0


class IntakeFailure(Exception):
    """The intake, or the check of the account, raised `error`: no failure of the network. (httpcore takes the
    cause off an exception.)"""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class StreamReader:
    """Takes the blocks of one stream's body; frames that are not in the intake yet are in its hand.

    stop: set when no more is to be waited for.
    on_taken: called with (now, how many events) after every append, or keepalive.
    on_paused: called with True when the intake is full, with False when there is room again.
    before_append: called before anything is kept; what it raises ends the reading.
    """

    def __init__(
        self,
        intake: Intake,
        coverage: Coverage,
        stop: threading.Event,
        clock: Clock,
        *,
        last_event_id: bytes = b"",
        on_taken: Callable[[float, int], None] = lambda now, events: None,
        on_paused: Callable[[bool], None] = lambda paused: None,
        before_append: Callable[[], None] = lambda: None,
    ) -> None:
        self.frames = FrameReader(last_event_id=last_event_id)
        self._intake = intake
        self._coverage = coverage
        self._stop = stop
        self._clock = clock
        self._on_taken = on_taken
        self._on_paused = on_paused
        self._before_append = before_append
        self._stream: Stream | None = None  # none before its headers came, and while the intake is full
        self._paused: JournalFull | None = None
        self._trouble = Reminder()
        self._in_hand: list[Frame] = []
        self._bytes = 0

    @property
    def is_live(self) -> bool:
        """Whether it is among the open streams."""
        return self._stream is not None

    def went_live(self) -> None:
        """The response's headers are there."""
        self._stream = self._coverage.live()

    def lost(self, reason: str) -> None:
        """The stream has ended without being asked to."""
        if self._stream is not None:
            self._coverage.lost(self._stream, reason)
            self._stream = None

    def stopped(self) -> None:
        """The stream was ended on purpose."""
        if self._stream is not None:
            self._coverage.stopped(self._stream)
            self._stream = None

    def add_block(self, block: bytes) -> None:
        """Take a block of the body. Raises IntakeFailure."""
        self._in_hand += self.frames.feed(block)
        self._bytes += len(block)
        if self._bytes >= GATHER_BYTES:
            self.hand_over()

    def before_read(self, is_waiting: Callable[[], bool]) -> None:
        """The network is about to be read: unless bytes are waiting, that may block, so append first."""
        if self._bytes:
            now = self._clock.monotonic()
            if not is_waiting():
                self.hand_over(now)

    def hand_over(self, all_read_at: float | None = None) -> None:
        """Append everything received so far.

        all_read_at: when the last byte that had arrived was read (monotonic seconds); None when not known.

        Raises IntakeFailure, but not for JournalFull: then it waits, reading nothing, until there is room or
        `stop` is set, and tries a last time.
        """
        if not self._bytes:
            return
        self._bytes = 0
        monotonic, now = self._clock.monotonic(), self._clock.now()
        frames, self._in_hand = self._in_hand, []
        events, strays = parse_frames(frames, now)
        heard = _heard_until(events, monotonic, now, all_read_at)
        try:
            self._before_append()
            if events or strays:
                self._append(events, strays, heard)
            elif self._stream is not None:
                self._intake.heard(self._coverage.heard(self._stream, heard))
        except Exception as error:
            raise IntakeFailure(error) from error
        self._on_taken(now, len(events))

    def _append(self, events: Sequence[Event], strays: Sequence[DeadLetter], heard: float) -> None:
        while True:
            last_try = self._stop.is_set()  # asked first: who stops it may have made room before
            try:
                self._append_once(events, strays, heard)
                break
            except JournalFull as full:
                self.lost(f"{full.place} was full")
                if last_try:
                    text = "stopped while %s was full: %d received events were not kept"
                    _log.error(text, full.place, len(events))
                    return
                self._pause(full, len(events))
                self._clock.wait(self._stop, FULL_RETRY)
        if not self.is_live:
            self._resume()

    def _append_once(self, events: Sequence[Event], strays: Sequence[DeadLetter], heard: float) -> None:
        """What was in hand when the intake was full lies in a gap, so it moves nothing."""
        if self._stream is None:
            self._intake.append(events, strays, self._coverage.frontier)
            return
        self._intake.append(events, strays, self._coverage.reach(self._stream, heard))
        self._coverage.heard(self._stream, heard)

    def _pause(self, full: JournalFull, held: int) -> None:
        if self._trouble.is_due(full.place, self._clock.monotonic()):
            text = "%s is full (%s): reading the feed pauses with %d events in hand; %s"
            _log.error(text, full.place, full, held, full.advice)
        if self._paused is None:
            self._paused = full
            self._on_paused(True)

    def _resume(self) -> None:
        self.went_live()
        if self._paused is not None:
            _log.warning("%s has room again: reading the feed goes on", self._paused.place)
            self._paused = None
            self._trouble.over()
            self._on_paused(False)


def _heard_until(events: Sequence[Event], monotonic: float, now: float, all_read_at: float | None) -> float:
    """Until when (monotonic seconds) all that was published on a stream has been received, as far as these
    events tell, the newest last; `monotonic` and `now` are the same moment.

    Not the time of reading: after a stall, what was published since waits in the socket.
    """
    created = epoch_milliseconds(events[-1].created_at) if events else None
    heard = -math.inf if created is None else monotonic - max(0.0, now - created / 1000) - FINEST
    if all_read_at is None:
        return heard
    if created is None:
        return all_read_at - ON_ITS_WAY
    return min(max(heard, all_read_at - MAX_LATE), all_read_at)


class FeedConnection:
    """Reads one stream in the thread that calls `run`.

    coverage: shared by the connections that fill one intake, so that only what none of them heard is a gap.
    check_account: called once with the developer's id as soon as it is known; what it raises ends `run`.
    failure: what ended `run`, when it was an exception.
    """

    def __init__(
        self,
        settings: FeedSettings,
        *,
        clock: Clock | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        coverage: Coverage | None = None,
        check_account: Callable[[str], None] | None = None,
        name: str = "feed",
    ) -> None:
        self.failure: BaseException | None = None
        self._settings = settings
        self._clock = clock or SystemClock()
        self._uniform = uniform
        self._shared_coverage = coverage
        self._account = AccountCheck(settings, check_account)
        self._name = name
        self._status = ConnectionStatus()
        self._stop = threading.Event()
        self._wire = Wire(self._clock)
        self._reader: StreamReader | None = None
        self._key = ""
        self._proxy = ""
        self._last_event_id = b""
        self._server_retry: float | None = None
        self._has_been_live = False
        self._trouble = Reminder()

    @property
    def status(self) -> ConnectionStatus:
        """A snapshot; safe from any thread."""
        return self._status

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Read until `stop` is set or the service ends the input (`status.end_of_input`).

        Network failures never end it, nor does anything that a server answers. Raises what the intake raises
        (but for JournalFull, which it waits out), what `check_account` raises, and OSError for an unreadable
        `ca_file`; `failure` keeps it. To end a read that is under way, set `stop` and call `interrupt`.
        """
        self._stop = stop
        try:
            self._run(intake, self._shared_coverage or Coverage(intake, self._clock))
        except BaseException as error:
            self.failure = error
            raise
        finally:
            if self._reader is not None:
                self._reader.stopped()
            self._show(phase=Phase.STOPPED, until=None, why="")

    def interrupt(self) -> None:
        """End the read or connection attempt under way; what has arrived is still taken. A stream that is
        younger than `MIN_STREAM_SECONDS` is held until it is not, and this waits for that."""
        wire = self._wire
        while (left := wire.cut()) > 0:
            time.sleep(left)  # of the network, and no part of what a test's clock is asked for

    def _run(self, intake: Intake, coverage: Coverage) -> None:
        streak = Streak()
        coverage.begin()
        self._proxy = str(self._settings.way_out.proxy(self._settings.root) or "")
        with open_client(self._settings) as client:
            while not self._stop.is_set():
                ending = self._attempt(client, intake, coverage)
                if self._stop.is_set():
                    return
                streak = streak.after(ending)
                others = coverage.open - self._is_live
                decision = decide(ending, streak, others, self._server_retry, self._uniform)
                if self._reader is not None:
                    self._reader.lost(decision.reason)
                if decision.stop:
                    self._end_of_input(coverage, decision.reason)
                    return
                if decision.reread_secret:
                    self._key = ""
                self._wait(decision)

    @property
    def _is_live(self) -> bool:
        return self._reader is not None and self._reader.is_live

    def _attempt(self, client: httpx.Client, intake: Intake, coverage: Coverage) -> Ending:
        """Connect, read until the connection ends, and say how. Raises what is no failure of the network."""
        try:
            self._key = self._key or read_key(self._settings)
        except SecretError as error:
            return Ending(EndingKind.NO_KEY, str(error))
        self._show(phase=Phase.CONNECTING, until=None, why="")
        self._account.ask(client, self._key)
        self._reader = reader = StreamReader(
            intake,
            coverage,
            self._stop,
            self._clock,
            last_event_id=self._last_event_id,
            on_taken=self._taken,
            on_paused=self._paused,
            before_append=self._account.confirm,
        )
        wire = self._new_wire(reader)
        try:
            ending = self._read_stream(client, wire, reader)
            reader.hand_over()
        except IntakeFailure as failure:
            self.interrupt()  # which holds a stream that is too young to be closed
            raise failure.error from None
        finally:
            wire.release()
        self._last_event_id = reader.frames.last_event_id
        if reader.frames.retry is not None:
            self._server_retry = reader.frames.retry
        return ending

    def _read_stream(self, client: httpx.Client, wire: Wire, reader: StreamReader) -> Ending:
        """The one place where whatever an answer can cause becomes an ending. Raises IntakeFailure."""
        try:
            with self._request(client, wire) as response:
                refused = refusal(response, self._clock.now())
                if refused is not None:
                    return replace(refused, lived=wire.lived)
                wire.headers_came()
                self._went_live(reader)
                for block in response.iter_raw():
                    reader.add_block(block)
                    if not wire.is_watched:  # behind a kind of proxy that httpcore does not trace
                        reader.hand_over(self._clock.monotonic())
            return Ending(EndingKind.END, lived=wire.lived)
        except IntakeFailure:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            return ending_of_error(error, wire.lived, self._proxy)

    def _request(self, client: httpx.Client, wire: Wire) -> Any:
        return client.stream(
            "GET",
            stream_url(self._settings),
            headers=stream_headers(self._key, self._last_event_id),
            # A certificate's names are without the dot that may end a full one.
            extensions={"trace": wire.trace, "sni_hostname": self._settings.host.rstrip(".")},
        )

    def _new_wire(self, reader: StreamReader) -> Wire:
        self._wire = wire = Wire(
            self._clock, self._tcp_is_up, reader.before_read, self._settings.read_timeout
        )
        if self._stop.is_set():  # `interrupt` may have come just before, to the wire of the last attempt
            wire.cut()
        return wire

    def _tcp_is_up(self) -> None:
        self._show(phase=Phase.WAITING_FOR_HEADERS)

    def _went_live(self, reader: StreamReader) -> None:
        again = " again" if self._has_been_live else ""
        try:
            reader.went_live()
        except Exception as error:
            raise IntakeFailure(error) from error
        self._show(phase=Phase.LIVE, reconnects=self._status.reconnects + self._has_been_live)
        self._has_been_live = True
        _log.info("%s: live%s, reading events from %s", self._name, again, self._settings.root)

    def _taken(self, now: float, events: int) -> None:
        self._status = replace(
            self._status, last_heard_at=now, last_event_at=now if events else self._status.last_event_at
        )

    def _paused(self, paused: bool) -> None:
        self._show(phase=Phase.PAUSED if paused else Phase.LIVE)

    def _end_of_input(self, coverage: Coverage, reason: str) -> None:
        _log.info("%s: %s", self._name, reason)
        coverage.finished()
        self._show(end_of_input=True)

    def _wait(self, decision: Decision) -> None:
        text = f"{decision.reason}; trying again in {decision.wait:.1f} s"
        if self._status.phase in (Phase.LIVE, Phase.PAUSED):
            self._trouble.over()
        say = self._trouble.is_due(decision.reason, self._clock.monotonic())
        level = logging.WARNING if say else logging.DEBUG
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
