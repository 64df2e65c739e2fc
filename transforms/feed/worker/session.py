"""A session: one connection to the feed and its ring, kept in this process from bundle to bundle."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from transforms.clock import Clock
from transforms.feed.connection import FeedConnection
from transforms.feed.intake import Intake
from transforms.feed.request import FeedSettings
from transforms.feed.status import ConnectionStatus
from transforms.feed.worker.ring import Ring

log = logging.getLogger("grantex.feed")

INTERRUPT_WAIT = 5.0  # seconds for a connection to end once its socket is shut
# Some 100,000 ordinary events: over a minute of 1,500 a second.
RING_BYTES = 64 * 1024**2
LOOK_EVERY = 1.0  # seconds between looks at whether the runner still comes back


@dataclass(frozen=True)
class WorkerFeed:
    """How workers read a feed; picklable, and free of the key's value.

    reader: names this reading among all that a process takes part in.
    connections: how many overlapping streams there are, each a range of its own.
    ring_bytes: memory for what waits to be committed, for each connection in a process.
    seek_seconds: how long the owner of a range is looked for among the processes before another one opens
        a connection of its own. A worker that is replaced takes longer to start than that.
    orphan_seconds: how long a connection is kept that the runner does not come back to.
    """

    feed: FeedSettings
    reader: str
    connections: int = 1
    ring_bytes: int = RING_BYTES
    seek_seconds: float = 3.0
    orphan_seconds: float = 30.0


class Connection(Protocol):
    """What a session needs of a FeedConnection."""

    failure: BaseException | None

    @property
    def status(self) -> ConnectionStatus:
        """What it is doing."""

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Read into `intake` until `stop` is set, or the service ends the input."""

    def interrupt(self) -> None:
        """End the read that is under way."""


Connect = Callable[[WorkerFeed, Clock, str], Connection]


def connect(feed: WorkerFeed, clock: Clock, name: str) -> Connection:
    """A real connection."""
    return FeedConnection(feed.feed, clock=clock, name=name)


class Session:
    """Reads from its birth on, whether or not a bundle is there to take what came.

    id: names its offsets; `replaces` is the session whose range it took over, empty for the first.
    claimed: the offset after the last one that a bundle claimed.
    finished: a bundle claimed that nothing will come any more.
    born_at: when it began, epoch seconds.
    idle: bundles in a row that found nothing.
    not_before: when the runner was asked to come back, monotonic seconds.
    """

    def __init__(
        self,
        feed: WorkerFeed,
        number: int,
        *,
        clock: Clock,
        replaces: bytes = b"",
        complete_until: float = 0.0,
        connect: Connect = connect,
        on_orphan: Callable[[Session], None] = lambda session: None,
    ) -> None:
        """complete_until: from when on events may be missing, in epoch seconds (0: none can be)."""
        self.id = uuid.uuid4().bytes
        self.replaces = replaces
        self.claimed = 0
        self.finished = False
        self.born_at = clock.now()
        self.idle = 0
        self.not_before = 0.0
        several = feed.connections > 1
        self.name = f"feed {number + 1}" if several else "feed"
        self.ring = Ring(
            feed.ring_bytes, clock, f"connection {number + 1} of {feed.connections}: " if several else ""
        )
        if complete_until:
            self.ring.open_gap("the process that read the feed did not come back", complete_until)
        self._clock = clock
        self._orphan_seconds = feed.orphan_seconds
        self._on_orphan = on_orphan
        self._lock = threading.Lock()
        self._lease = 0
        self._held = False
        self._left_at = clock.monotonic()
        self._stop = threading.Event()
        self._closed = threading.Event()
        self._connection = connect(feed, clock, self.name)
        self._reader = threading.Thread(target=self._read, name=f"{self.name}-reader", daemon=True)
        self._watch = threading.Thread(target=self._look, name=f"{self.name}-watch", daemon=True)

    def start(self) -> None:
        """Begin to read; returns at once."""
        self._reader.start()
        self._watch.start()

    @property
    def failure(self) -> BaseException | None:
        """What ended its connection for good, if anything has."""
        return self._connection.failure

    @property
    def status(self) -> ConnectionStatus:
        """What its connection is doing."""
        return self._connection.status

    @property
    def over(self) -> bool:
        """Nothing will be added to the ring any more."""
        return not self._reader.is_alive()

    def now(self) -> float:
        """Its clock, epoch seconds."""
        return self._clock.now()

    def take(self) -> int:
        """A bundle begins: from now on it alone reads here. Returns its lease."""
        with self._lock:
            self._lease += 1
            self._held = True
            return self._lease

    def is_leased(self, lease: int) -> bool:
        """Whether no later bundle has begun: a runner may repeat one that it gave up and that still runs."""
        return self._lease == lease

    def leave(self, lease: int) -> None:
        """The bundle ends."""
        with self._lock:
            if self._lease == lease:
                self._held = False
                self._left_at = self._clock.monotonic()

    def is_orphan(self) -> bool:
        """Nobody came back for so long that another process must have taken over."""
        with self._lock:
            return not self._held and self._clock.monotonic() - self._left_at >= self._orphan_seconds

    def finish_reading(self) -> None:
        """Close the connection; what it received is in the ring when this returns."""
        self.ring.last_call()
        self._stop.set()
        self._connection.interrupt()
        self._reader.join(INTERRUPT_WAIT)

    def close(self) -> int:
        """Close the connection and let go of everything; returns how many received events that loses."""
        self._closed.set()
        self.ring.close()
        self._stop.set()
        self._connection.interrupt()
        self._reader.join(INTERRUPT_WAIT)
        lost = self.ring.events_from(self.claimed) + self.ring.refused
        self.ring.evict(self.ring.end)
        return lost

    def _read(self) -> None:
        try:
            self._connection.run(self.ring, self._stop)
        except Exception:
            # kept as `failure` for the next bundle, which fails with it
            log.debug("%s: ended", self.name, exc_info=True)

    def _look(self) -> None:
        while not self._clock.wait(self._closed, LOOK_EVERY):
            if self.is_orphan():
                self._on_orphan(self)
                return
