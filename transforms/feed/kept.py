"""One of the connections that are wanted: before it is given up, another one has taken its place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from transforms.clock import Clock
from transforms.feed.connection import FeedConnection
from transforms.feed.coverage import Coverage
from transforms.feed.intake import Intake
from transforms.feed.status import ConnectionStatus, Phase, State
from transforms.feed.watch import Watch

log = logging.getLogger("grantex.feed")
# The service has so many slots of each kind for an account.
SLOTS = 5
PROVEN_AFTER = 2.0  # seconds for which a replacement is live before what it replaces is closed
GIVE_UP_AFTER = 60.0  # seconds for a replacement to be live
LONG_WAIT = 20.0  # seconds; a replacement that is told to wait longer (all slots taken) is not waited for
RARELY = 305.0  # seconds; the service counts a refused attempt for five minutes
# Replacements that soon needed one themselves: some at once, then ever more rarely.
WELL_AFTER = 10.0
AT_ONCE = 3
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
END_WAIT = 5.0  # seconds for a connection to end once its socket is shut

Connect = Callable[[Coverage], FeedConnection]


class _Running:
    """A connection with its own stop. `thread` is None for the first, which has its caller's."""

    def __init__(self, connection: FeedConnection, since: float) -> None:
        self.connection = connection
        self.since = since
        self.stop = threading.Event()
        self.ended = threading.Event()
        self.live_since: float | None = None
        self.was_short: bool | None = None  # whether it was suspect from the beginning; None: it is not yet

    def run(self, intake: Intake) -> None:
        """What it raises is kept as the connection's `failure`."""
        try:
            self.connection.run(intake, self.stop)
        except Exception:
            log.debug("a connection ended", exc_info=True)
        finally:
            self.ended.set()

    def end(self) -> None:
        """Interrupt it; waits while its stream is too young to be closed."""
        self.stop.set()
        self.connection.interrupt()

    def retire(self, reason: str) -> None:
        """Another one has its place; waits as `end` does, and for the end of what it has in hand."""
        self.stop.set()
        self.connection.retire(reason)
        self.ended.wait(END_WAIT)


class KeptConnection:
    """Used like a FeedConnection, and looked after by calls of `look`.

    connect: makes a connection that shares a coverage.
    watch: shared by the connections that are kept side by side.
    coverage: shared by those that fill one intake; made here when None.
    """

    def __init__(
        self,
        connect: Connect,
        watch: Watch,
        clock: Clock,
        *,
        name: str = "feed",
        coverage: Coverage | None = None,
    ) -> None:
        self._connect = connect
        self._watch = watch
        self._clock = clock
        self.name = name
        self._coverage = coverage
        self._lock = threading.Lock()
        self._stopped = False
        self._stop = threading.Event()
        self._intake: Intake | None = None
        self._current: _Running | None = None
        self._next: _Running | None = None
        self._failure: BaseException | None = None
        self._past = ConnectionStatus()  # of those that were replaced
        self._short_lived = 0  # replacements in a row that soon needed one themselves
        self._not_before = 0.0  # monotonic: no replacement sooner

    @property
    def failure(self) -> BaseException | None:
        """What ended it for good, if anything has."""
        current = self._current
        return self._failure or (current.connection.failure if current else None)

    @property
    def status(self) -> ConnectionStatus:
        """What it is doing, with what those before it have heard."""
        current = self._current
        if current is None:
            return self._past
        return self._with_past(current.connection.status)

    @property
    def statuses(self) -> list[ConnectionStatus]:
        """Its status, and its replacement's while there is one."""
        upcoming = self._next
        shown = [replace(self.status, state=self._state())]
        if upcoming is not None:
            shown.append(replace(upcoming.connection.status, state=State.REPLACING))
        return shown

    def quiet_for(self) -> float:
        """As FeedConnection.quiet_for, the longest of it and its replacement."""
        running = (self._current, self._next)
        return max([each.connection.quiet_for() for each in running if each is not None], default=0.0)

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """As FeedConnection.run, replacements included."""
        self._intake, self._stop = intake, stop
        self._coverage = self._coverage or Coverage(intake, self._clock, self._watch)
        with self._lock:
            running: _Running | None = self._open()
            self._current = running
        self._watch.keeper(1)
        try:
            assert running is not None
            running.run(intake)
            while (running := self._after(running)) is not None:
                running.ended.wait()
        finally:
            self._watch.keeper(-1)
        self.interrupt()  # a replacement that is still on its way
        if self.failure is not None:
            raise self.failure

    def interrupt(self) -> None:
        """As FeedConnection.interrupt; nothing is opened any more."""
        with self._lock:
            self._stopped = True
            running = [each for each in (self._current, self._next) if each is not None]
        for each in running:
            each.stop.set()
        for each in running:
            each.end()

    def look(self) -> None:
        """Replace it when there is reason to. Call it about every half second, from one thread."""
        with self._lock:
            if self._stopped or self._current is None:
                return
            if self._next is None:
                self._consider(self._current)
            else:
                self._go_on(self._current, self._next)

    def _open(self) -> _Running:
        assert self._coverage is not None
        running = _Running(self._connect(self._coverage), self._clock.monotonic())
        if self._stopped or self._stop.is_set():
            running.stop.set()
        return running

    def _after(self, ended: _Running) -> _Running | None:
        """Whose turn it is after `ended`; None when it was the last one."""
        with self._lock:
            goes_on = self._current is ended and not self._stopped and self.failure is None
            if goes_on and self._next is not None:
                self._take_over(self._next)  # `ended` was told that its input has ended, this one not yet
                self._watch.spare.release()
            return None if self._current is ended else self._current

    def _state(self) -> State:
        current = self._current
        if current is None:
            return State.STOPPED
        status, stream = current.connection.status, current.connection.stream
        if status.phase is Phase.LIVE and stream is not None and stream.watched.suspect:
            return State.SUSPECT
        return State.of(status.phase)

    def _with_past(self, status: ConnectionStatus) -> ConnectionStatus:
        past = self._past
        return replace(
            status,
            reconnects=status.reconnects + past.reconnects,
            last_event_at=status.last_event_at or past.last_event_at,
            last_heard_at=status.last_heard_at or past.last_heard_at,
            last_problem=status.last_problem or past.last_problem,
        )

    def _consider(self, current: _Running) -> None:
        now = self._clock.monotonic()
        status, stream = current.connection.status, current.connection.stream
        if status.phase is not Phase.LIVE or stream is None:
            current.live_since = None
            return
        watched = stream.watched
        current.live_since = current.live_since or now
        is_old = self._watch.cut_age.is_near(status.transport, current.connection.age)
        reason = watched.suspect or ("streams of its age are ended" if is_old else "")
        if not reason:
            current.was_short = None
            if now - current.live_since >= WELL_AFTER:
                self._short_lived = 0
            return
        if current.was_short is None:
            is_young = now - current.live_since < WELL_AFTER
            current.was_short = bool(watched.suspect) and is_young and not watched.fell_silent
        if now < self._not_before or not 2 <= self._watch.keepers < SLOTS or not self._watch.spare.acquire():
            return
        log.warning("%s: %s: another one is opened in its place", self.name, reason)
        self._short_lived += current.was_short
        self._past = replace(self._past, last_problem=reason)
        self._next = upcoming = self._open()
        threading.Thread(target=upcoming.run, args=(self._intake,), name=self.name, daemon=True).start()

    def _go_on(self, current: _Running, upcoming: _Running) -> None:
        now = self._clock.monotonic()
        status = upcoming.connection.status
        is_live = status.phase is Phase.LIVE
        upcoming.live_since = (upcoming.live_since or now) if is_live else None
        waits = status.phase is Phase.WAITING and (status.until or 0.0) - self._clock.now() > LONG_WAIT
        if upcoming.ended.is_set() or waits or (not is_live and now - upcoming.since > GIVE_UP_AFTER):
            self._give_up(upcoming, now + RARELY)
            return
        is_proven = upcoming.live_since is not None and now - upcoming.live_since >= PROVEN_AFTER
        was_cut_meanwhile = current.connection.status.phase is Phase.WAITING
        if is_proven or was_cut_meanwhile:
            self._replace(current)

    def _replace(self, old: _Running) -> None:
        assert self._next is not None
        self._take_over(self._next)
        paused = max(0, self._short_lived - AT_ONCE)
        if paused:
            pause = min(FIRST_PAUSE * 2.0 ** (paused - 1), LONGEST_PAUSE)
            self._not_before = self._clock.monotonic() + pause
        self._retire(old, self._past.last_problem)
        log.info("%s: replaced", self.name)

    def _take_over(self, upcoming: _Running) -> None:
        assert self._current is not None
        past = self._with_past(self._current.connection.status)
        problem = self._past.last_problem
        self._past = replace(past, reconnects=past.reconnects + 1, last_problem=problem)
        self._current, self._next = upcoming, None

    def _give_up(self, upcoming: _Running, not_before: float) -> None:
        why = upcoming.connection.status.why or "it was not live in time"
        log.warning("%s: no other stream could be opened in its place: %s", self.name, why)
        self._next, self._not_before = None, not_before
        self._retire(upcoming, why)
        if upcoming.connection.failure is not None and self._current is not None:
            self._failure, self._stopped = upcoming.connection.failure, True
            threading.Thread(target=self._current.end, name=f"{self.name}-end", daemon=True).start()

    def _retire(self, running: _Running, reason: str) -> None:
        """In a thread, as it may have to wait. The spare slot is free again when the stream is closed."""

        def retire() -> None:
            running.retire(reason)
            self._watch.spare.release()

        threading.Thread(target=retire, name=f"{self.name}-retire", daemon=True).start()
