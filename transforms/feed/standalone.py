"""The source of a ReadFromGrantex in somebody's own pipeline: a journal, its connections, one cursor."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk
from transforms.feed.journal import Journal
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.feed.source import Turn, register, registered, unregister

HEARTBEAT = 5.0  # seconds after which a bundle ends with nothing read
BUNDLE_SECONDS = 0.5
READ_EVENTS = 5_000


@dataclass(frozen=True)
class StandaloneSource:
    """Picklable settings of the source; `open` makes it live in this process, once."""

    feed: FeedSettings
    state_dir: str
    name: str
    connections: int = 1
    max_events: int | None = None
    max_seconds: float | None = None

    def open(self, name: str) -> None:
        """Register the live source under `name` unless it is. Raises JournalError."""
        with _opening:
            if registered(name) is None:
                register(name, LiveSource(self, name))


_opening = threading.Lock()


class LiveSource:
    """Reads on while its pipeline asks. Its cursor moves when a bundle resumes behind what was read: the
    runner resumes a restriction only once the bundle before is committed."""

    def __init__(self, settings: StandaloneSource, registered_as: str) -> None:
        self._settings = settings
        self._registered_as = registered_as
        self._wake = threading.Event()
        self._journal = Journal(Path(settings.state_dir), feed_url=settings.feed.root)
        self._journal.listeners.append(self._wake.set)
        self._cursor = self._journal.cursor(settings.name)
        self._first = self._cursor.position
        self._until = None if settings.max_seconds is None else time.monotonic() + settings.max_seconds
        self._reader = FeedReader(
            settings.feed, self._journal, connections=settings.connections, on_end=self._wake.set
        )
        self._reader.start()

    def position(self, restriction_start: int) -> int:
        if restriction_start > self._cursor.position:
            self._cursor.advance(restriction_start)
            self._journal.trim()
        return max(restriction_start, self._cursor.position)

    def wait(self, position: int) -> Turn:
        while True:
            self._wake.clear()
            if self._enough(position):
                return Turn(done=True)
            if self._journal.end > position:
                return Turn(READ_EVENTS)
            if self._over():
                return Turn(done=True)
            timeout = HEARTBEAT if self._until is None else max(0.0, self._until - time.monotonic())
            if not self._wake.wait(min(HEARTBEAT, timeout)) and self._until is None:
                return Turn()

    def _enough(self, position: int) -> bool:
        most = self._settings.max_events
        return most is not None and position - self._first >= most

    def _over(self) -> bool:
        if self._reader.failure is not None:
            raise self._reader.failure
        return self._reader.ended or (self._until is not None and time.monotonic() >= self._until)

    def finished(self, position: int) -> None:
        self._reader.stop()
        self._cursor.advance(position)
        unregister(self._registered_as)
        self._journal.close()

    def next(self, position: int, bundle_seconds: float) -> Turn | None:
        more = self._journal.end > position and bundle_seconds < BUNDLE_SECONDS
        return Turn(READ_EVENTS) if more and not self._enough(position) else None

    def read(self, position: int, events: int) -> Sequence[Chunk]:
        return self._journal.read(position, events)

    def strays(self) -> Sequence[tuple[int, DeadLetter]]:
        return self._journal.strays()

    def drop_strays(self, up_to: int) -> None:
        self._journal.drop_strays(up_to)

    def caught_up(self, position: int) -> bool:
        return self._journal.end <= position

    def pending_bytes(self, position: int) -> int:
        return self._journal.pending_bytes(position)
