"""Which moments of the feed a stream of ours heard: what none of them heard is a gap."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transforms.clock import Clock
from transforms.event import Event
from transforms.feed.intake import Intake
from transforms.feed.watch import Watch, Watched


class Moment(NamedTuple):
    """Monotonic seconds, and what the wall clock was ahead of them then."""

    at: float
    ahead: float


@dataclass(eq=False)
class Stream:
    """One open stream. All that was published between `live_from` and `heard` was received; what came later
    is not known until it is heard again, or lost. watched: how it does beside the others."""

    live_from: Moment
    heard: Moment
    watched: Watched
    is_open: bool = True


BEFORE = Moment(-math.inf, 0.0)  # all else


class Coverage:
    """Shared by the streams that fill one intake, and the only one to tell it of gaps.

    Everything before the frontier was heard by some stream, or is in a recorded gap. An open stream that
    reaches back to the frontier may only be quiet, so nothing is decided before it is heard or lost: then
    what no other stream had heard is recorded afterwards. Safe for threads.
    """

    def __init__(self, intake: Intake, clock: Clock, watch: Watch | None = None) -> None:
        """watch: compares the streams; None where there is but one."""
        self._intake = intake
        self._watch = watch or Watch(clock)
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: list[Stream] = []  # those that are open, and lost ones that reach beyond the frontier
        self._frontier: Moment | None = None  # None before the first stream
        self._reason = ""  # why the stream was lost that reached to the frontier
        self._readers = 0

    @property
    def open(self) -> int:
        """How many streams are open."""
        return sum(stream.is_open for stream in self._streams)

    @property
    def frontier(self) -> float | None:
        """Epoch seconds; None before the first stream."""
        with self._lock:
            return None if self._frontier is None else self._epoch(self._frontier)

    def begin(self) -> None:
        """A connection begins to be made and kept: since the last run nobody listened."""
        with self._lock:
            self._readers += 1
            if self._frontier is None:
                self._intake.open_gap("not running")

    def live(self) -> Stream:
        """A stream's headers are there: all that is published from now on comes by it."""
        with self._lock:
            now = self._moment(self._clock.monotonic())
            stream = Stream(now, now, self._watch.join())
            self._streams.append(stream)
            if self._frontier is None:
                self._frontier = now
                self._intake.close_gap(self._epoch(now))
            self._settle()
            self._intake.heard(self._epoch(self._frontier))
            return stream

    def reach(self, stream: Stream, at: float) -> float:
        """Until when nothing will be missing once `stream` is heard until `at`; epoch seconds."""
        with self._lock:
            return self._epoch(self._reach(stream, self._moment(at)))

    def took(
        self, stream: Stream, at: float, events: Sequence[Event], fresh: Sequence[Event] | None
    ) -> float:
        """As `heard`, with `events` that came by it; see `Watch.brought`."""
        self._watch.brought(stream.watched, events, fresh)
        return self._heard(stream, at)

    def heard(self, stream: Stream, at: float) -> float:
        """All that came by `stream` until `at` (monotonic seconds) is in the intake; returns `reach`.

        A keepalive of a stream that lacks events says nothing of those.
        """
        return self._heard(stream, -math.inf if stream.watched.lacks else at)

    def _heard(self, stream: Stream, at: float) -> float:
        with self._lock:
            stream.heard = max(stream.heard, self._moment(at))
            self._frontier = self._reach()
            return self._epoch(self._frontier)

    def missed(self, reason: str, since: float | None) -> None:
        """Something that came on an open stream since then (epoch seconds) could not be taken."""
        with self._lock:
            self._intake.open_gap(reason, since)
            self._intake.close_gap(self._clock.now())

    def lost(self, stream: Stream, reason: str) -> None:
        """It has ended without being asked to, or nothing more is taken from it."""
        self._end(stream, reason, or_nobody_listens=True)

    def stopped(self, stream: Stream) -> None:
        """It was ended on purpose. Whoever starts next records a gap from what was heard last."""
        self._end(stream, "not running", or_nobody_listens=False)

    def replaced(self, stream: Stream | None, reason: str) -> None:
        """A connection was ended on purpose, as another one has taken its place; `stream` is what it had."""
        if stream is not None:
            self._end(stream, reason, or_nobody_listens=True)
        with self._lock:
            self._readers -= 1

    def finished(self) -> None:
        """A connection was told that nothing will be published any more; so, if it was the last to be told,
        nothing is missing from now on."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._intake.close_gap(self._clock.now())

    def _end(self, stream: Stream, reason: str, or_nobody_listens: bool) -> None:
        with self._lock:
            if not stream.is_open:
                return
            stream.is_open = False
            self._watch.leave(stream.watched)
            if self._frontier is not None and stream.heard >= self._frontier:
                self._reason = reason
            self._settle(or_nobody_listens)

    def _reach(self, heard: Stream | None = None, at: Moment = BEFORE) -> Moment:
        """The frontier, moved over all that was heard without a hole; `heard` is about to be, until `at`."""
        reach = self._frontier or BEFORE
        for each in sorted(self._streams, key=lambda one: one.live_from):
            if each.live_from <= reach:
                reach = max(reach, each.heard, at if each is heard else BEFORE)
        return reach

    def _settle(self, or_nobody_listens: bool = True) -> None:
        """Record what is now known to be a gap: up to the next stream, or open while there is none."""
        while self._frontier is not None:
            self._frontier = frontier = self._reach()
            self._streams = [each for each in self._streams if each.is_open or each.live_from > frontier]
            if any(each.live_from <= frontier for each in self._streams):
                return
            if self._streams or or_nobody_listens:
                self._intake.open_gap(self._reason, self._epoch(frontier))
            if not self._streams:
                return
            self._frontier = min(each.live_from for each in self._streams)
            self._intake.close_gap(self._epoch(self._frontier))

    def _moment(self, at: float) -> Moment:
        return Moment(at, self._clock.now() - self._clock.monotonic())

    def _epoch(self, moment: Moment) -> float:
        """What the wall clock said then; or would have said, when it was set back since. A jump ahead may as
        well be a machine that slept, which the monotonic clock does not count: that belongs to the gap."""
        return moment.at + min(moment.ahead, self._clock.now() - self._clock.monotonic())
