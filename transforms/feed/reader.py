"""The feed's connections in their threads, filling a journal."""

from __future__ import annotations

import threading
from collections.abc import Callable

from transforms.clock import Clock, SystemClock
from transforms.feed.connection import FeedConnection
from transforms.feed.coverage import Coverage
from transforms.feed.journal import Journal
from transforms.feed.request import FeedSettings
from transforms.feed.status import ConnectionStatus, Phase

STAGGER = 1.0  # seconds between looks at whether the connections before are live
INTERRUPT_WAIT = 5.0  # seconds for a connection to end once its socket is shut


class FeedReader:
    """Reads a feed into a journal with up to `connections` overlapping streams.

    The number is a ceiling: the service has few slots, so each further connection is made only once those
    before it are live.
    """

    def __init__(
        self,
        settings: FeedSettings,
        journal: Journal,
        *,
        connections: int = 1,
        clock: Clock | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """on_end: called once, when the service ended the input or a connection failed for good. The input
        has ended when every connection that was made has been told so."""
        self._journal = journal
        self._clock = clock or SystemClock()
        self._on_end = on_end
        self._stop = threading.Event()
        self._coverage = coverage = Coverage(journal, self._clock)
        self._connections = [
            FeedConnection(
                settings.of(number),
                clock=self._clock,
                coverage=coverage,
                check_account=journal.check_account,
                name="feed" if connections == 1 else f"feed {number + 1}",
            )
            for number in range(connections)
        ]
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._reading = 0  # connections that were made and have not been told that the input has ended
        self._ended = False
        self._starter = threading.Thread(target=self._start_all, name="feed-starter", daemon=True)

    @property
    def statuses(self) -> list[ConnectionStatus]:
        """What each connection is doing."""
        return [connection.status for connection in self._connections]

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
        self._starter.start()

    def stop(self) -> None:
        """Stop reading; what was received is in the journal when this returns."""
        self._stop.set()
        self._starter.join()
        for connection in self._connections:
            connection.interrupt()
        for thread in self._threads:
            thread.join(INTERRUPT_WAIT)

    def _start_all(self) -> None:
        for number, connection in enumerate(self._connections):
            thread = threading.Thread(
                target=self._run, args=(connection,), name=f"feed-{number + 1}", daemon=True
            )
            with self._lock:
                if self._stop.is_set():
                    return
                self._reading += 1
            self._threads.append(thread)
            thread.start()
            while number + 1 < len(self._connections) and connection.status.phase is not Phase.LIVE:
                if self._clock.wait(self._stop, STAGGER):
                    return

    def _run(self, connection: FeedConnection) -> None:
        try:
            connection.run(self._journal, self._stop)
        except Exception:  # noqa: BLE001 - kept as `failure` for the owner, who is told
            self._end(connection)
        else:
            if connection.status.end_of_input:
                self._told_the_end(connection)

    def _told_the_end(self, connection: FeedConnection) -> None:
        with self._lock:
            self._reading -= 1
            if self._reading:
                return
            self._ended = True
            self._stop.set()
        self._end(connection)

    def _end(self, ended: FeedConnection) -> None:
        self._stop.set()
        for other in self._connections:
            if other is not ended:
                other.interrupt()
        self._on_end()
