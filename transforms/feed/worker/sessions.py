"""The sessions of one worker process, and which of them a range is read from."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Protocol

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.feed.connection import FeedConnection
from transforms.feed.coverage import Coverage
from transforms.feed.intake import Gap, Intake, as_dead_letter
from transforms.feed.kept import KeptConnection
from transforms.feed.request import FeedSettings
from transforms.feed.status import ConnectionStatus
from transforms.feed.watch import LOOK_EVERY, Watch
from transforms.feed.worker.range import OPEN_END, FeedRange
from transforms.feed.worker.ring import Ring

log = logging.getLogger("grantex.feed")
INTERRUPT_WAIT = 5.0  # seconds for a connection to end once its socket is shut
# Some 100,000 ordinary events: over a minute of 1,500 a second.
RING_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class WorkerFeed:
    """How workers read a feed; picklable, and free of the key's value.

    reader: names this reading among all that a process takes part in.
    connections: how many overlapping streams there are, each a range of its own.
    ring_bytes: memory for what waits to be committed, for each connection in a process.
    seek_seconds: how long the owner of a range is looked for among the processes before another one opens
        a connection of its own. A worker that is replaced takes longer to start than that.
    orphan_seconds: how long a connection is kept that the runner does not come back to.
    idle_seconds: for which a bundle waits for the feed, before the runner is asked for a pause.
    """

    feed: FeedSettings
    reader: str
    connections: int = 1
    ring_bytes: int = RING_BYTES
    seek_seconds: float = 3.0
    orphan_seconds: float = 30.0
    idle_seconds: float = 5.0


class Connection(Protocol):
    """What a session needs of a KeptConnection."""

    @property
    def failure(self) -> BaseException | None:
        """What ended it for good, if anything has."""

    @property
    def status(self) -> ConnectionStatus:
        """What it is doing."""

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Read into `intake` until `stop` is set, or the service ends the input."""

    def interrupt(self) -> None:
        """End the read that is under way."""

    def look(self) -> None:
        """Called every `LOOK_EVERY` seconds: replace its stream, if there is reason to."""


Connect = Callable[[WorkerFeed, Clock, str, Watch], Connection]


def connect(feed: WorkerFeed, clock: Clock, name: str, watch: Watch) -> Connection:
    """A real connection. watch: of those that this process has of the feed."""
    learn = partial(watch.cut_age.ended, feed.feed.transport)

    def one(coverage: Coverage) -> FeedConnection:
        return FeedConnection(feed.feed, clock=clock, coverage=coverage, on_ending=learn, name=name)

    return KeptConnection(one, watch, clock, name=name)


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
        watch: Watch,
        replaces: bytes = b"",
        complete_until: float = 0.0,
        connect: Connect = connect,
        on_orphan: Callable[[Session], None] = lambda session: None,
        changed: threading.Condition | None = None,
    ) -> None:
        """complete_until: from when on events may be missing, in epoch seconds (0: none can be).

        changed: shared by the rings of one reader.
        """
        self.id = uuid.uuid4().bytes
        self.replaces = replaces
        self.claimed = 0
        self.finished = False
        self.born_at = clock.now()
        self.idle = 0
        self.not_before = 0.0
        several = feed.connections > 1
        self.name = f"feed {number + 1}" if several else "feed"
        label = f"connection {number + 1} of {feed.connections}: " if several else ""
        self.ring = Ring(feed.ring_bytes, clock, label, changed)
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
        self._neighbours = watch
        self._connection = connect(replace(feed, feed=feed.feed.of(number)), clock, self.name, watch)
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

    def lease(self) -> int:
        """A bundle begins: from now on it alone reads here. Returns its lease."""
        with self._lock:
            self._lease += 1
            self._held = True
            return self._lease

    def is_leased(self, lease: int) -> bool:
        """Whether no later bundle has begun: a runner may repeat one that it gave up and that still runs."""
        return self._lease == lease

    def give_back(self, lease: int) -> None:
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
            self._neighbours.look()
            self._connection.look()
            if self.is_orphan():
                self._on_orphan(self)
                return


@dataclass(frozen=True)
class Hold:
    """A bundle's right to read; a context manager.

    session: None when there is nothing to read from, and what is left is nothing.
    left: the range to begin with, in offsets of the session.
    letters: gaps that this bundle is to record.
    others_wait: whether there is something for another range of this process.
    is_first: nobody has read from the session before.
    """

    session: Session | None
    left: FeedRange
    letters: Sequence[DeadLetter] = ()
    lease: int = 0
    others_wait: Callable[[], bool] = lambda: False
    is_first: bool = False

    @property
    def is_valid(self) -> bool:
        """Whether no later bundle reads the same session."""
        return self.session is not None and self.session.is_leased(self.lease)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.session is not None:
            self.session.give_back(self.lease)


class Sessions:
    """At most one session for each connection of a reader. Safe for threads."""

    def __init__(self, *, clock: Clock | None = None, connect: Connect = connect) -> None:
        self._clock = clock or SystemClock()
        self._connect = connect
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], Session] = {}
        self._watches: dict[str, Watch] = {}  # one for each reader: its connections that live here
        self._changed: dict[str, threading.Condition] = {}  # one for the rings of each reader
        self._letters: dict[str, list[DeadLetter]] = {}
        self._draining = threading.Event()

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Every range that this process reads ends after what its ring holds. Returns at once."""
        self._draining.set()
        with self._lock:
            sessions = list(self._open.values())
        for session in sessions:
            session.ring.wake()

    def hold(self, feed: WorkerFeed, wanted: FeedRange) -> Hold | None:
        """Where to read `wanted`. None: its owner may be another process, let the runner try that one.

        A range that comes back says that all below it is committed: that is evicted, and nothing else.
        Raises RuntimeError when its connection failed for good; the next bundle opens another one.
        """
        with self._lock:
            key = (feed.reader, wanted.connection)
            session = self._open.get(key)
            if session is not None and session.failure is not None:
                self._note(feed.reader, _lose(self._open.pop(key)))
                raise RuntimeError(f"reading the feed failed: {session.failure}") from session.failure
            if session is not None and wanted.session in (session.id, session.replaces):
                return self._resume(feed, session, wanted)
            if wanted.session and not self._sought_long_enough(feed, wanted):
                return None
            if wanted.draining or self.draining or wanted.stop != OPEN_END:
                return self._nothing(feed, wanted)
            if session is not None:  # it waited for a range that another process has taken over since
                self._note(feed.reader, _lose(self._open.pop(key)))
            return self._take_over(feed, wanted)

    def pending_bytes(self, wanted: FeedRange) -> int:
        """About how many bytes wait in this process for a range."""
        with self._lock:
            found = [each for each in self._open.values() if each.id == wanted.session]
        return found[0].ring.pending_bytes(wanted.start) if found and not wanted.finished else 0

    def status(self, feed: WorkerFeed, number: int) -> ConnectionStatus | None:
        """What a connection is doing in this process; None when it is none of its."""
        with self._lock:
            session = self._open.get((feed.reader, number))
        return session.status if session is not None else None

    def close(self) -> None:
        """Close every session; what they hold is lost."""
        with self._lock:
            for session in self._open.values():
                session.close()
            self._open.clear()

    def _sought_long_enough(self, feed: WorkerFeed, wanted: FeedRange) -> bool:
        return bool(wanted.sought_since) and self._clock.now() - wanted.sought_since >= feed.seek_seconds

    def _resume(self, feed: WorkerFeed, session: Session, wanted: FeedRange) -> Hold:
        """The bundle before is committed, or comes again, or a checkpoint before it was restored."""
        session.finished = False
        ring = session.ring
        ring.note(self._take_letters(feed.reader))
        start = wanted.start if wanted.session == session.id else 0
        letters = []
        first = ring.first
        if start < first:
            since = wanted.complete_until or session.born_at
            reason = "the runner went back to before what this process still had in memory"
            letters.append(as_dead_letter(Gap(since, max(since, ring.first_taken_at), reason)))
            log.warning("%s: feed gap: %s", session.name, reason)
        elif wanted.session == session.id:
            ring.evict(start)
        complete = wanted.complete_until or session.born_at
        left = replace(
            wanted, session=session.id, start=max(start, first), complete_until=complete, sought_since=0.0
        )
        return Hold(session, left, letters, session.lease(), self._others(feed.reader, session))

    def _take_over(self, feed: WorkerFeed, wanted: FeedRange) -> Hold:
        session = Session(
            feed,
            wanted.connection,
            clock=self._clock,
            watch=self._watches.setdefault(feed.reader, Watch(self._clock)),
            replaces=wanted.session,
            complete_until=wanted.complete_until,
            connect=self._connect,
            changed=self._changed.setdefault(feed.reader, threading.Condition()),
            on_orphan=lambda orphan: self._orphan(feed.reader, wanted.connection, orphan),
        )
        if wanted.session:
            log.warning("%s: connected again: the process that read it did not come back", session.name)
        self._open[(feed.reader, wanted.connection)] = session
        lease = session.lease()
        session.ring.note(self._take_letters(feed.reader))
        session.start()
        complete = wanted.complete_until or session.born_at  # the first claim: what came since may be lost
        left = replace(wanted, session=session.id, start=0, complete_until=complete, sought_since=0.0)
        return Hold(session, left, (), lease, self._others(feed.reader, session), is_first=True)

    def _others(self, reader: str, session: Session) -> Callable[[], bool]:
        """Whether something waits at another connection of the same reader, which this runner may show to one
        thread after the other."""

        def wait() -> bool:
            open_now = list(self._open.items())
            return any(
                other is not session and key[0] == reader and other.ring.end > other.claimed
                for key, other in open_now
            )

        return wait

    def _nothing(self, feed: WorkerFeed, wanted: FeedRange) -> Hold:
        letters = self._take_letters(feed.reader)
        if wanted.complete_until:
            reason = "the process that read the feed did not come back before the end"
            letters.append(as_dead_letter(Gap(wanted.complete_until, self._clock.now(), reason)))
        return Hold(None, wanted.finish(), letters)

    def _orphan(self, reader: str, number: int, session: Session) -> None:
        with self._lock:
            if not session.is_orphan():  # the runner came back just now
                return
            if self._open.get((reader, number)) is session:
                del self._open[(reader, number)]
        letters = _lose(session)
        with self._lock:
            self._note(reader, letters)

    def _note(self, reader: str, letters: Sequence[DeadLetter]) -> None:
        """For the next bundle of this process: only a bundle can give them to the pipeline."""
        self._letters.setdefault(reader, []).extend(letters)

    def _take_letters(self, reader: str) -> list[DeadLetter]:
        return self._letters.pop(reader, [])


def _lose(session: Session) -> list[DeadLetter]:
    """Close a session that nobody reads any more, and say what that loses."""
    since = session.ring.heard_before or session.born_at
    lost = session.close()
    if session.finished:
        return []
    why = "the runner did not come back to their process" if session.failure is None else "reading failed"
    log.warning("%s: closed; %d received events are dropped: %s", session.name, lost, why)
    if not lost:
        return []
    reason = f"{lost} received events were dropped: {why}"
    return [as_dead_letter(Gap(since, max(since, session.now()), reason))]


PROCESS = Sessions()  # of this process


def drain() -> None:
    """Ends what this process reads as a drain does: flushed, then finished. For a driver whose workers are
    inside it (Prism, the in-process runner); it cannot be taken back."""
    PROCESS.drain()
