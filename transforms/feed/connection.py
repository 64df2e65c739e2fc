"""One connection to the feed: connects, reads into the intake, and comes back, for as long as it is asked."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx

from transforms.clock import Clock, SystemClock
from transforms.feed.account import AccountCheck
from transforms.feed.coverage import Coverage, Stream
from transforms.feed.intake import Intake
from transforms.feed.reconnect import Decision, Ending, EndingKind, Streak, decide, ending_of_error
from transforms.feed.request import WEBSOCKET, FeedSettings, Wire, open_client, read_key
from transforms.feed.status import ConnectionStatus, Phase
from transforms.feed.stream_reader import IntakeFailure, StreamReader
from transforms.feed.transport import Transport, open_transport
from transforms.reminder import Reminder
from transforms.secret import SecretError

_log = logging.getLogger("grantex.feed")


class FeedConnection:
    """Reads one stream in the thread that calls `run`.

    coverage: shared by the connections that fill one intake, so that only what none of them heard is a gap.
    check_account: called once with the developer's id as soon as it is known; what it raises ends `run`.
    on_ending: called when an attempt has ended unasked.
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
        on_ending: Callable[[Ending], None] = lambda ending: None,
        name: str = "feed",
        number: int = 1,
    ) -> None:
        self.failure: BaseException | None = None
        self._settings = settings
        self._clock = clock or SystemClock()
        self._uniform = uniform
        self._shared_coverage = coverage
        self._account = AccountCheck(settings, check_account)
        self._on_ending = on_ending
        self._name, self._number = name, number
        self._status = ConnectionStatus(transport=settings.transport)
        self._stop = threading.Event()
        self._wire = Wire(self._clock)
        self._reader: StreamReader | None = None
        self._key = ""
        self._proxy = ""
        self._last_event_id = b""
        self._server_retry: float | None = None
        self._has_been_live = False
        self._retired = ""
        self._trouble = Reminder()
        self._turned_at = self._clock.monotonic()

    @property
    def stream(self) -> Stream | None:
        """Its open stream, if there is one."""
        return self._reader.stream if self._reader is not None else None

    @property
    def age(self) -> float:
        """Seconds since the request of its present attempt; 0 before it."""
        return self._wire.lived

    @property
    def status(self) -> ConnectionStatus:
        """A snapshot; safe from any thread."""
        return self._status

    def quiet_for(self) -> float:
        """Seconds since its thread last came round; 0 while it waits for a time to come or for room. No read
        and no connection attempt lasts much longer than `FeedSettings.read_timeout`."""
        if self._status.phase in (Phase.STOPPED, Phase.WAITING, Phase.PAUSED):
            return 0.0
        return self._clock.monotonic() - self._turned_at

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
                self._reader.replaced(self._retired) if self._retired else self._reader.stopped()
            self._show(phase=Phase.STOPPED, until=None, why="", live_since=None)

    def interrupt(self) -> None:
        """End the read or connection attempt under way; what has arrived is still taken. A stream that is
        younger than `MIN_STREAM_SECONDS` is held until it is not, and this waits for that."""
        wire = self._wire
        while (left := wire.cut()) > 0:
            time.sleep(left)  # of the network, and no part of what a test's clock is asked for

    def retire(self, reason: str) -> None:
        """As `interrupt`, once `stop` is set: another connection has taken its place. reason: of the gap that
        this may show."""
        self._retired = reason
        self.interrupt()

    def _run(self, intake: Intake, coverage: Coverage) -> None:
        streak = Streak()
        coverage.begin()
        self._proxy = str(self._settings.way_out.proxy(self._settings.root) or "")
        with open_client(self._settings) as client:
            while not self._stop.is_set():
                ending = self._attempt(client, intake, coverage)
                if self._stop.is_set():
                    return
                self._on_ending(ending)
                streak = streak.after(ending)
                others = coverage.open - (self.stream is not None)
                decision = decide(ending, streak, others, self._server_retry, self._uniform)
                if self._reader is not None:
                    self._reader.lost(decision.reason)
                if decision.stop:
                    self._end_of_input(coverage, decision.reason)
                    return
                if decision.reread_secret:
                    self._key = ""
                self._wait(decision)

    def _attempt(self, client: httpx.Client, intake: Intake, coverage: Coverage) -> Ending:
        """Connect, read until the connection ends, and say how. Raises what is no failure of the network."""
        try:
            self._key = self._key or read_key(self._settings)
        except SecretError as error:
            return Ending(EndingKind.NO_KEY, str(error))
        self._show(phase=Phase.CONNECTING, until=None, why="")
        self._account.ask(client, self._key)
        transport = open_transport(self._settings, self._clock, self._last_event_id)
        self._reader = reader = StreamReader(
            intake,
            coverage,
            self._stop,
            self._clock,
            types=transport.types,
            connection=f"{self._settings.transport} {self._number}",
            on_taken=self._taken,
            on_paused=self._paused,
            on_long_pause=transport.let_go,
            before_append=self._account.confirm,
        )
        wire = self._new_wire(reader)
        try:
            ending = self._read_stream(client, wire, reader, transport)
            reader.hand_over()
            if ending.kind in (EndingKind.PROTOCOL, EndingKind.CONTENT):  # it is we who end it
                wire.hold()
        except IntakeFailure as failure:
            self.interrupt()  # which holds a stream that is too young to be closed
            raise failure.error from None
        finally:
            wire.release()
        self._last_event_id = transport.last_event_id
        if transport.retry is not None:
            self._server_retry = transport.retry
        return replace(ending, was_live=reader.has_been_live)

    def _read_stream(
        self, client: httpx.Client, wire: Wire, reader: StreamReader, transport: Transport
    ) -> Ending:
        """The one place where whatever an answer can cause becomes an ending. Raises IntakeFailure."""
        try:
            with self._request(client, wire, transport) as response:
                refused = transport.refusal(response, self._clock.now())
                if refused is not None:
                    return replace(refused, lived=wire.lived)
                wire.headers_came()
                self._read_frames(response, wire, reader, transport)
            return replace(transport.ending, lived=wire.lived)
        except IntakeFailure:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            return ending_of_error(error, wire.lived, self._proxy)

    def _read_frames(
        self, response: httpx.Response, wire: Wire, reader: StreamReader, transport: Transport
    ) -> None:
        for frames, size in transport.frames(response):
            if not reader.has_been_live and transport.is_live:
                self._went_live(reader)
            reader.add_frames(frames, size)
            if not wire.is_watched:  # behind a kind of proxy that httpcore does not trace
                reader.hand_over(self._clock.monotonic())

    def _request(self, client: httpx.Client, wire: Wire, transport: Transport) -> Any:
        url, headers = transport.request(self._key)
        return client.stream(
            "GET",
            url,
            headers=headers,
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
        reconnects = self._status.reconnects + self._has_been_live
        self._show(phase=Phase.LIVE, reconnects=reconnects, live_since=self._clock.now())
        self._has_been_live = True
        how = " over a WebSocket" if self._settings.transport == WEBSOCKET else ""
        _log.info("%s: live%s, reading events from %s%s", self._name, again, self._settings.root, how)

    def _taken(self, now: float, events: int) -> None:
        self._turned_at = self._clock.monotonic()
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
            live_since=None,
        )
        self._clock.wait(self._stop, decision.wait)

    def _show(self, **changes: Any) -> None:
        self._turned_at = self._clock.monotonic()
        self._status = replace(self._status, **changes)
