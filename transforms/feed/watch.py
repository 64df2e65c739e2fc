"""The streams of one feed watch each other: one that lacks what another brought is replaced."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transforms.clock import Clock
from transforms.durable import open_private
from transforms.event import Event
from transforms.feed.reconnect import CutAge

LOOK_EVERY = 0.5  # seconds between looks
# The service publishes to all streams at once; what is three seconds late on one of them is missing there.
LATE = 3.0
# A stream may not have been subscribed yet when an event was published that another one brought only now.
AS_NEW = 1.0
# Of a bigger chunk's events only the last is compared: the stream is catching up, and that it is not deaf is
# seen. So comparing costs the same for each append, however many events come.
LOOK_INTO = 64
MOST_AWAITED = 4096  # ids that one stream is waited for
ANY = ""  # in an id's place where nobody knows which are new: then it is lacked by a stream that is silent
FORGIVEN_AFTER = 60.0  # seconds; a hole lies behind
# At least so many events came for so long without such a pause, and then none by any stream: all may be deaf
# at once. Each time it was only a burst that has ended, the next one has to be twice as long; and each time
# they were deaf, the flow goes on from before: they may be so again at once.
ENOUGH, STEADY, PAUSE, LONGEST_STEADY = 25, 2.0, 1.0, 300.0
SPARE_SLOT = "spare_slot"  # the file of that name in a state directory


@dataclass(eq=False)
class Watched:
    """One open stream. since, spoke_at, and the values of `awaited` are of the watch's own time.

    awaited: ids that others brought first, and when.
    suspect: why it is not to be relied on, "" while it is; lacks: and whether another has shown it;
    fell_silent: and whether it did bring events before.
    """

    since: float
    spoke_at: float
    awaited: dict[str, float] = field(default_factory=dict)
    suspect: str = ""
    lacks: bool = False
    fell_silent: bool = False


@dataclass(frozen=True)
class Deafness:
    """When all streams were taken for deaf, and the steady flow before it. Times are of the watch's own."""

    at: float
    steady_since: float
    steady_events: int


class SpareSlot:
    """Whoever has it may hold one stream more than are wanted: a replacement beside what it replaces.

    path: a file that makes it one for all processes of a directory. The service has five slots of each
    kind for an account: two streams of the job, one of its standby, one of a new version's standby beside
    them, and one replacement of any of these. Safe for threads.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: int | None = None

    def acquire(self) -> bool:
        """Whether it was free, and is the caller's now."""
        if not self._lock.acquire(blocking=False):
            return False
        if self._path is not None:
            with contextlib.suppress(OSError):  # no descriptor, no directory: rather one slot too many
                self._file = open_private(str(self._path), os.O_RDWR | os.O_CREAT)
        if self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another process has it
                self.release()
                return False
        return True

    def release(self) -> None:
        """The caller holds no more streams than are wanted."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()


class Watch:
    """Compares what the streams bring. Each id that one of them brings first is awaited from the others, one
    id an append; so it costs nothing for each event.

    cut_age: what the streams' ends teach. keepers: how many connections are kept here. Safe for threads.
    """

    def __init__(self, clock: Clock, spare: SpareSlot | None = None) -> None:
        self.spare = spare or SpareSlot()
        self.cut_age = CutAge()
        self.keepers = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: list[Watched] = []
        # It stands still while this process does: what waits in the sockets then is late for no stream.
        self._time = 0.0
        self._looked = clock.monotonic()
        self._steady_since = self._spoke_at = 0.0
        self._steady_events = 0
        self._steady = STEADY
        self._taken_for_deaf: Deafness | None = None

    def join(self) -> Watched:
        """A stream is live."""
        with self._lock:
            stream = Watched(self._time, self._time)
            self._streams.append(stream)
            return stream

    def leave(self, stream: Watched) -> None:
        """It is not open any more."""
        with self._lock, contextlib.suppress(ValueError):
            self._streams.remove(stream)

    def keeper(self, change: int) -> None:
        """A connection begins (1) or ceases (-1) to be kept."""
        with self._lock:
            self.keepers += change

    def brought(self, stream: Watched, events: Sequence[Event], fresh: Sequence[Event] | None) -> None:
        """`events` came by `stream`; those of them that had not come before are `fresh` (None: not known)."""
        if not events:
            return
        with self._lock:
            stream.spoke_at = self._time
            self._flow_goes_on(stream)
            self._steady_events += len(events if fresh is None else fresh)
            self._spoke_at = self._time
            if len(events) > LOOK_INTO:
                stream.awaited.clear()
            elif stream.awaited:
                stream.awaited.pop(ANY, None)
                for event in events:
                    stream.awaited.pop(event.id, None)
            if stream.lacks:
                return  # what it brings now the others may have brought long ago
            if fresh is None:
                self._await(ANY, stream, silent_for=AS_NEW)
            elif fresh:
                self._await(fresh[-1].id, stream)

    def _flow_goes_on(self, stream: Watched) -> None:
        """It begins anew after a pause. When all were taken for deaf and only new streams bring events, they
        were, and it never ceased; when one of the old does, it was a burst that had ended."""
        deaf = self._taken_for_deaf
        if deaf is not None and stream.since < deaf.at:
            self._taken_for_deaf = None
            self._steady = min(2 * self._steady, LONGEST_STEADY)
            self._steady_since, self._steady_events = self._time, 0
        elif self._time - self._spoke_at > PAUSE:
            self._steady_since = self._time if deaf is None else deaf.steady_since
            self._steady_events = 0 if deaf is None else deaf.steady_events

    def _await(self, event_id: str, first: Watched, silent_for: float = 0.0) -> None:
        for other in self._streams:
            is_new = self._time - other.since < AS_NEW
            speaks = self._time - other.spoke_at < silent_for
            if other is not first and not is_new and not speaks and len(other.awaited) < MOST_AWAITED:
                other.awaited.setdefault(event_id, self._time)

    def look(self) -> None:
        """Judge. Call it about every `LOOK_EVERY` seconds; of several callers one a time is enough."""
        with self._lock:
            now = self._clock.monotonic()
            elapsed = now - self._looked
            if elapsed < LOOK_EVERY / 2:
                return
            self._looked = now
            self._time += min(elapsed, 2 * LOOK_EVERY)
            for stream in self._streams:
                self._judge(stream)
            self._judge_silence()

    def _judge(self, stream: Watched) -> None:
        awaited = stream.awaited  # oldest first
        while awaited and self._time - next(iter(awaited.values())) > FORGIVEN_AFTER:
            del awaited[next(iter(awaited))]
        stream.lacks = bool(awaited) and self._time - next(iter(awaited.values())) >= LATE
        stream.fell_silent = stream.since < stream.spoke_at < self._time - (LATE - PAUSE)
        if stream.lacks:
            self._steady, self._taken_for_deaf = STEADY, None
            stream.suspect = "the stream lacks what another one received"
        elif stream.suspect and stream.spoke_at >= self._time - LOOK_EVERY:
            stream.suspect = ""

    def _judge_silence(self) -> None:
        """When all are deaf at once, none is told by another. One is replaced, and shows it of the others."""
        was_steady = self._spoke_at - self._steady_since >= self._steady and self._steady_events >= ENOUGH
        if was_steady and self._time - self._spoke_at >= LATE and self._streams:
            oldest = min(self._streams, key=lambda each: each.since)
            oldest.suspect = "events came every second, and then none by any stream"
            self._taken_for_deaf = Deafness(self._time, self._steady_since, self._steady_events)
            self._steady_since = math.inf  # once, until they come again
