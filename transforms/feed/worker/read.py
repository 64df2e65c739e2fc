"""The splittable DoFn that reads the feed on workers: a bundle is what the ring holds, then a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import Coder
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.direct_runner import Local
from transforms.event import Chunk, Event
from transforms.feed.status import FeedCounters
from transforms.feed.worker import sessions as of_process
from transforms.feed.worker.range import FeedRange, FeedRangeCoder
from transforms.feed.worker.ring import Part
from transforms.feed.worker.sessions import PROCESS, Hold, Session, Sessions, WorkerFeed
from transforms.held import HELD
from transforms.in_process import Ticket


class FeedRangeTracker(RestrictionTracker):  # type: ignore[misc]
    """What is claimed is named by what is left after it: the last offset of a chunk, and whose it is.

    A process that takes over names its own session from its first claim on. A runner that split a running
    range (Prism does) would read the feed twice, so only fraction 0 splits.
    """

    def __init__(self, restriction: FeedRange) -> None:
        self._range = restriction
        self._left = restriction
        self._split = False

    def current_restriction(self) -> FeedRange:
        return self._range

    def try_claim(self, position: FeedRange) -> bool:
        """Claim all that lies before `position`; False once the rest was given away."""
        if self._split:
            return False
        self._left = position
        return True

    def try_split(self, fraction_of_remainder: float) -> Any:
        if fraction_of_remainder != 0 or self._split or self._left.finished:
            return None
        self._split = True
        same = self._left.session == self._range.session
        start = self._range.start if same else 0
        self._range = replace(self._left, start=start, stop=self._left.start)
        return self._range, self._left

    def check_done(self) -> bool:
        """Raises ValueError when something is left that was neither claimed nor given away."""
        if not self._split and not self._left.finished:
            raise ValueError(f"{self._left} was not read to its end")
        return True

    def current_progress(self) -> RestrictionProgress:
        """Bytes waiting in the ring: an open range of offsets would report 9e18 and scale a cluster up."""
        remaining = 0 if self._split else PROCESS.pending_bytes(self._left)
        return RestrictionProgress(completed=0, remaining=remaining)

    def is_bounded(self) -> bool:
        return False


class FeedRangeProvider(RestrictionProvider):  # type: ignore[misc]
    """One open range for each connection, which is the element; sized by the bytes that are pending."""

    def initial_restriction(self, element: int) -> FeedRange:
        return FeedRange(element)

    def create_tracker(self, restriction: FeedRange) -> FeedRangeTracker:
        return FeedRangeTracker(restriction)

    def restriction_size(self, element: int, restriction: FeedRange) -> int:
        return PROCESS.pending_bytes(restriction)

    def split(self, element: int, restriction: FeedRange) -> Iterator[FeedRange]:
        yield restriction

    def truncate(self, element: int, restriction: FeedRange) -> FeedRange:
        """The pipeline drains: whoever has the ring is to flush it, and end."""
        return replace(restriction, draining=True)

    def restriction_coder(self) -> Coder:
        return FeedRangeCoder()


# Under load all chunks have as many: destinations then cut them at the same places, and what they make of the
# parts is made once for all (write/keyed/packing.py).
CHUNK_EVENTS = 1000
# A bundle's output goes on when it ends, and the ring is freed when the next one begins: so they are short.
# With 20,000 a burst takes 30 MB more, of what is on its way to the runner and back, and as long.
BUNDLE_EVENTS = 8_000
BUNDLE_SECONDS = 0.5
# How long the runner is asked to wait when there is nothing: little while events come, more when none do.
FIRST_DELAY = 0.05
MAX_DELAY = 0.5
LOOK_SECONDS = 0.5  # between looks, while a bundle waits for the feed, at whether it still should
TICK_SECONDS = 0.5  # between looks at the clock while sinks gather
SEEK_DELAY = 0.05  # before the runner shows the range to a process again that does not own it
_NEVER = threading.Event()
_RANGE = beam.DoFn.RestrictionParam(FeedRangeProvider())
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class ReadOnWorker(beam.DoFn):
    """Takes connection numbers; gives Chunks, and DeadLetters under `tag`.

    There is no bundle finalizer: a range that comes back at an offset says that all below it is committed.
    """

    def __init__(self, feed: WorkerFeed, tag: str, shared: Ticket[Local] | None = None) -> None:
        """shared: with a runner inside this process."""
        self._feed = feed
        self._shared = shared
        self._tag = tag
        self._counters = FeedCounters()

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(self, element: int, tracker: Any = _RANGE, watermark: Any = _WATERMARK) -> Iterator[Any]:
        self._counters.declare()
        elsewhere = self._counters.elsewhere
        shared = None if self._shared is None else self._shared.live
        for output in read_bundle(
            of_process.PROCESS, self._feed, tracker, watermark, elsewhere=elsewhere, shared=shared
        ):
            self._counters.count(output)
            if isinstance(output, DeadLetter):
                yield TaggedOutput(self._tag, output)
            else:
                yield TimestampedValue(output, _timestamp(output, watermark))
        status = of_process.PROCESS.status(self._feed, element)
        if status is not None:
            self._counters.standing(element, status)


def read_bundle(
    sessions: Sessions,
    feed: WorkerFeed,
    tracker: Any,
    watermark: Any,
    clock: Clock | None = None,
    elsewhere: Callable[[], object] = lambda: None,
    shared: Local | None = None,
) -> Iterator[Chunk | DeadLetter]:
    """One bundle of one connection; ends by a claim of the end, or the remainder deferred.

    elsewhere: called when this process does not read the range, which is given back for another one.
    """
    clock = clock or SystemClock()
    in_process, shared = shared is not None, shared or Local()
    shared.reads()
    wanted = tracker.current_restriction()
    if wanted.finished:
        return
    hold = sessions.hold(feed, wanted)
    if hold is None:
        elsewhere()
        seeking = replace(wanted, sought_since=wanted.sought_since or clock.now())
        if tracker.try_claim(seeking):
            tracker.defer_remainder(Duration(SEEK_DELAY))
        return
    # Its first bundle may have the other ranges behind it, whose connections are to be opened as well.
    idle = 0.0 if hold.is_first or in_process else feed.idle_seconds
    with hold:
        if not tracker.try_claim(hold.left):
            return
        yield from hold.letters
        if hold.session is not None:
            bundle = _Bundle(hold, hold.session, tracker, watermark, clock, shared, feed.ring_bytes // 2)
            yield from bundle.read(lambda: sessions.draining or shared.stopped, idle)


class _Bundle:
    """What is left of the range, while a bundle claims it chunk by chunk."""

    def __init__(
        self,
        hold: Hold,
        session: Session,
        tracker: Any,
        watermark: Any,
        clock: Clock,
        shared: Local,
        most_bytes: int,
    ) -> None:
        """most_bytes: in the ring, with which nothing more is gathered."""
        self._hold, self._session, self._ring = hold, session, session.ring
        self._tracker, self._watermark, self._clock = tracker, watermark, clock
        self._left = hold.left
        self._shared, self._most_bytes = shared, most_bytes
        self._events: Sequence[Event] = ()  # claimed, and on their way into a chunk
        self._first, self._oldest = 0, 0.0
        self._has_waited = self._is_stopped = False

    def read(self, draining: Callable[[], bool], idle: float) -> Iterator[Chunk | DeadLetter]:
        """idle: seconds for which the bundle itself waits when the feed sends nothing."""
        session = self._session
        if (draining() or self._left.draining) and not session.over:
            session.finish_reading()
        early = session.not_before - self._clock.monotonic()
        if early > 0 and not session.over:  # a runner that does not know delays
            self._ring.wait(self._left.start, early)
        began, count, letters, over = self._clock.monotonic(), 0, 0, session.over
        while self._goes_on(began, count, idle):
            over = session.over  # asked before the last look at the ring
            self._is_stopped = not over and self._has_no_room()
            part = None
            if not self._is_stopped:
                part = self._ring.read(self._left.start, CHUNK_EVENTS, self._left.stop)
            if part is None:
                yield from self._rest()
                if over or (letters and not count) or (self._is_stopped and count):
                    break
                if not (self._gathers() if count else self._awaits(began + idle, draining)):
                    break
                if count:
                    yield Chunk((), self._left.start, self._clock.now())
                continue
            if not self._claim(part):
                yield from self._rest()
                return  # checkpointed: the chunk stays in the ring for whoever resumes
            count, letters = count + len(part.events), letters + len(part.letters)
            yield from self._chunks(part)
        yield from self._rest()
        self._end(over, count, idle)

    def _chunks(self, part: Part) -> Iterator[Chunk | DeadLetter]:
        """What is claimed, in chunks of one size as long as there is enough of it."""
        if not self._events:
            self._first, self._oldest = part.first, part.oldest
        self._events = [*self._events, *part.events] if self._events else part.events
        while len(self._events) >= CHUNK_EVENTS:
            chunk = Chunk(self._events[:CHUNK_EVENTS], self._first, self._oldest)
            self._events = self._events[CHUNK_EVENTS:]
            self._first, self._oldest = self._first + CHUNK_EVENTS, part.oldest
            yield chunk
        if part.letters:  # the offsets of a chunk's events have no holes
            yield from self._rest()
            yield from part.letters

    def _rest(self) -> Iterator[Chunk]:
        events, self._events = self._events, ()
        if events:
            yield Chunk(events, self._first, self._oldest)

    def _has_no_room(self) -> bool:
        """Something waits, and a destination's key has no room for it (see held.ROOM)."""
        return self._ring.end > self._left.start and bool(HELD.full(self._clock.monotonic()))

    def _gathers(self) -> bool:
        """Whether there may be more for the sinks to gather; waits for it."""
        if self._shared.gather:
            self._ring.wait(self._left.start, TICK_SECONDS)
        return bool(self._shared.gather)

    def _awaits(self, until: float, draining: Callable[[], bool]) -> bool:
        """Whether it still makes sense to wait for the feed; waits for it, until `until` (monotonic seconds).

        Each pause that the runner is asked for instead stays in the state of Beam's Flink runner for good
        (before apache/beam#39191, 12 KB each).
        """
        left = until - self._clock.monotonic()
        self._has_waited = left <= 0
        if left <= 0 or draining() or not self._hold.is_valid:
            return False
        if self._is_stopped:
            self._clock.wait(_NEVER, min(left, LOOK_SECONDS))
            return True
        if self._hold.others_wait():
            return False
        self._ring.wait(self._left.start, min(left, LOOK_SECONDS), self._hold.others_wait)
        return True

    def _goes_on(self, began: float, count: int, idle: float) -> bool:
        """A bundle is short, unless it waits for the feed or sinks gather: then it lasts as they may."""
        elapsed = self._clock.monotonic() - began
        if not count:
            return elapsed < max(BUNDLE_SECONDS, idle + LOOK_SECONDS)
        if not self._shared.gather:
            return count < BUNDLE_EVENTS and elapsed < BUNDLE_SECONDS
        gathering = elapsed < self._shared.gather and self._ring.bytes < self._most_bytes
        return gathering and not self._shared.stopped

    def _claim(self, part: Part) -> bool:
        complete = part.heard_until or self._left.complete_until
        left = replace(self._left, start=part.end, complete_until=complete)
        if not self._hold.is_valid or not self._tracker.try_claim(left):
            return False
        self._left = left
        self._session.claimed = part.end
        return True

    def _end(self, over: bool, count: int, idle: float) -> None:
        session, left = self._session, self._left
        if left.finished or not self._hold.is_valid:
            return
        quiet = self._ring.quiet_since(left.start)
        if quiet is None:
            session.idle, session.not_before = 0, 0.0
            self._tracker.defer_remainder(Duration(MAX_DELAY) if self._is_stopped else None)
        elif over:
            if session.failure is not None:
                raise RuntimeError(f"reading the feed failed: {session.failure}") from session.failure
            session.finished = self._tracker.try_claim(left.finish())
            self._shared.ended()
        elif self._tracker.try_claim(replace(left, complete_until=quiet or left.complete_until)):
            _advance(self._watermark, self._clock.now())
            session.idle = 0 if count or (idle and self._has_waited) else session.idle + 1
            delay = min(MAX_DELAY, FIRST_DELAY * 2 ** min(session.idle, 10))
            session.not_before = self._clock.monotonic() + delay
            self._tracker.defer_remainder(Duration(delay))


def _advance(watermark: Any, now: float) -> None:
    """Everything that came is out, and what comes is newer; the watermark never goes back."""
    current = watermark.current_watermark()
    watermark.set_watermark(max(Timestamp.of(now), current) if current else Timestamp.of(now))


def _timestamp(chunk: Chunk, watermark: Any) -> Timestamp:
    """When it arrived, but never behind the watermark: it may have been taken just before that moved, or by
    a process whose clock is behind that of the one before it."""
    current = watermark.current_watermark()
    taken_at = Timestamp.of(chunk.taken_at)
    return max(taken_at, current) if current else taken_at
