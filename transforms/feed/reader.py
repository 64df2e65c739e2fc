"""The feed's connections in their threads, filling a journal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from transforms.clock import Clock, SystemClock
from transforms.feed.connection import FeedConnection
from transforms.feed.coverage import Coverage
from transforms.feed.intake import AccountIntake
from transforms.feed.kept import KeptConnection
from transforms.feed.request import FeedSettings
from transforms.feed.status import ConnectionStatus, Phase
from transforms.feed.watch import LOOK_EVERY, SpareSlot, Watch

INTERRUPT_WAIT = 5.0  # seconds for a connection to end once its socket is shut


class FeedReader:
    """Reads a feed into a journal with up to `connections` overlapping streams, which watch each other.

    The number is a ceiling: the service has few slots, so each further connection is made only once those
    before it are live. While one of several is replaced there is one stream more, if `spare` is free.
    """

    def __init__(
        self,
        settings: FeedSettings,
        journal: AccountIntake,
        *,
        connections: int = 1,
        clock: Clock | None = None,
        spare: SpareSlot | None = None,
        on_end: Callable[[], None] = lambda: None,
        standing_by: bool = False,
    ) -> None:
        """spare: shared by all that read for one state directory.
        standing_by: only one connection is made until `take_over`.
        on_end: called once, when the service ended the input or a connection failed for good. The input
        has ended when every connection that was made has been told so."""
        self._journal = journal
        self._clock = clock or SystemClock()
        self._on_end = on_end
        self._stop = threading.Event()
        self._watch = Watch(self._clock, spare)
        self._coverage = coverage = Coverage(journal, self._clock, self._watch)
        self._connections: list[KeptConnection] = []
        for number in range(connections):
            name = "feed" if connections == 1 else f"feed {number + 1}"
            connect = partial(self._connect, settings.of(number), name, number + 1)
            self._connections.append(
                KeptConnection(connect, self._watch, self._clock, name=name, coverage=coverage)
            )
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._reading = 0  # connections that were made and have not been told that the input has ended
        self._ended = False
        self._most = 1 if standing_by else connections
        self._keeper = threading.Thread(target=self._keep, name="feed-keeper", daemon=True)

    @property
    def wanted(self) -> int:
        """How many streams there are when all is well."""
        return self._most

    @property
    def statuses(self) -> list[ConnectionStatus]:
        """What each connection is doing, replacements included."""
        return [status for each in self._connections[: self._most] for status in each.statuses]

    @property
    def heard_until(self) -> float | None:
        """Until when all that was published was received or is in a gap; None before the first stream."""
        return self._coverage.frontier

    @property
    def failure(self) -> BaseException | None:
        """What ended a connection for good, if anything has."""
        return next((c.failure for c in self._connections if c.failure is not None), None)

    @property
    def ended(self) -> bool:
        """Whether the service said that there will be no more events."""
        return self._ended

    def start(self) -> None:
        """Begin to read; returns at once."""
        self._keeper.start()

    def take_over(self) -> None:
        """Make the other connections, too."""
        self._most = len(self._connections)

    def hanging(self, seconds: float) -> list[str]:
        """Names of connections whose threads have not come round for so long."""
        return [each.name for each in self._connections if each.quiet_for() > seconds]

    def stop(self) -> None:
        """Stop reading; what was received is in the journal when this returns."""
        self._stop.set()
        self._keeper.join()
        self._interrupt(self._connections)
        for thread in self._threads:
            thread.join(INTERRUPT_WAIT)

    def _connect(self, settings: FeedSettings, name: str, number: int, coverage: Coverage) -> FeedConnection:
        return FeedConnection(
            settings,
            clock=self._clock,
            coverage=coverage,
            check_account=self._journal.check_account,
            on_ending=partial(self._watch.cut_age.ended, settings.transport),
            name=name,
            number=number,
        )

    def _keep(self) -> None:
        while True:
            started = self._connections[: len(self._threads)]
            if len(started) < self.wanted and all(each.status.phase is Phase.LIVE for each in started):
                self._start(self._connections[len(started)])
            self._watch.look()
            for connection in started:
                connection.look()
            if self._clock.wait(self._stop, LOOK_EVERY):
                return

    def _start(self, connection: KeptConnection) -> None:
        name = f"feed-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._run, args=(connection,), name=name, daemon=True)
        with self._lock:
            if self._stop.is_set():
                return
            self._reading += 1
        self._threads.append(thread)
        thread.start()

    def _run(self, connection: KeptConnection) -> None:
        try:
            connection.run(self._journal, self._stop)
        except Exception:  # noqa: BLE001 - kept as `failure` for the owner, who is told
            self._end(connection)
        else:
            if connection.status.end_of_input:
                self._told_the_end(connection)

    def _told_the_end(self, connection: KeptConnection) -> None:
        with self._lock:
            self._reading -= 1
            if self._reading:
                return
            self._ended = True
            self._stop.set()
        self._end(connection)

    def _end(self, ended: KeptConnection) -> None:
        self._stop.set()
        self._interrupt([other for other in self._connections if other is not ended])
        self._on_end()

    def _interrupt(self, connections: list[KeptConnection]) -> None:
        """All at once: each may have to hold its stream until that is old enough."""
        threads = [threading.Thread(target=each.interrupt, name="feed-end") for each in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
