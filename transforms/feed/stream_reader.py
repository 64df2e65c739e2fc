"""What one stream brings: its frames become events and dead letters, and these an append to the intake."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence, Set

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.coverage import Coverage, Stream
from transforms.feed.intake import Intake, JournalFull
from transforms.parse import TOO_LARGE, Frame, parse_frames
from transforms.reminder import Reminder
from transforms.write.created_at import epoch_milliseconds

_log = logging.getLogger("grantex.feed")
# Four full reads of the socket, about 900 ordinary events: two chunks. Each append is a commit, and with half
# as much in each an event costs a tenth more.
GATHER_BYTES = 256 * 1024
LONG_PAUSE = 60.0  # seconds
FULL_RETRY = 1.0  # seconds; room comes when a destination catches up, not sooner
# What a stream that is read to its last byte may have been behind: the service's clock may be wrong by more.
MAX_LATE = 60.0
# `createdAt` has milliseconds: what came later in the same one may be missing.
FINEST = 0.001
# A keepalive does not say when it was sent, and an event may still be on its way.
ON_ITS_WAY = 1.0


class IntakeFailure(Exception):
    """The intake, or the check of the account, raised `error`: no failure of the network. (httpcore takes the
    cause off an exception.)"""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class StreamReader:
    """Takes the frames of one stream; those that are not in the intake yet are in its hand.

    types: keep only events of these, and those without a type, as the service filters; empty keeps all.
    stop: set when no more is to be waited for.
    connection: what it is called where the intake keeps how events came.
    on_taken: called with (now, how many events) after every append, or keepalive.
    on_paused: called with True when the intake is full, with False when there is room again.
    on_long_pause: called once it has been full for `LONG_PAUSE`.
    before_append: called before anything is kept; what it raises ends the reading.
    """

    def __init__(
        self,
        intake: Intake,
        coverage: Coverage,
        stop: threading.Event,
        clock: Clock,
        *,
        types: Set[str] = frozenset(),
        connection: str = "",
        on_taken: Callable[[float, int], None] = lambda now, events: None,
        on_paused: Callable[[bool], None] = lambda paused: None,
        on_long_pause: Callable[[], None] = lambda: None,
        before_append: Callable[[], None] = lambda: None,
    ) -> None:
        self._types = types
        self._connection = connection
        self._intake = intake
        self._coverage = coverage
        self._stop = stop
        self._clock = clock
        self._on_taken = on_taken
        self._on_paused, self._on_long_pause = on_paused, on_long_pause
        self._before_append = before_append
        self._stream: Stream | None = None  # none before it is live, while the intake is full, at a stop
        self.has_been_live = False
        self._paused: JournalFull | None = None
        self._trouble = Reminder()
        self._in_hand: list[Frame] = []
        self._bytes = 0

    @property
    def is_live(self) -> bool:
        """Whether it is among the open streams."""
        return self._stream is not None

    @property
    def stream(self) -> Stream | None:
        """The open stream, if there is one."""
        return self._stream

    def went_live(self) -> None:
        """All that is published from now on comes by it.

        When `stop` is set it is not counted among the open streams: the others may be closed already, and the
        hole between them would be a gap of its own. Whoever starts next records the whole of it.
        """
        self.has_been_live = True
        if not self._stop.is_set():
            self._stream = self._coverage.live()

    def lost(self, reason: str) -> None:
        """The stream has ended without being asked to."""
        if self._stream is not None:
            self._coverage.lost(self._stream, reason)
            self._stream = None

    def replaced(self, reason: str) -> None:
        """The stream was ended on purpose, as another connection has this one's place."""
        self._coverage.replaced(self._stream, reason)
        self._stream = None

    def stopped(self) -> None:
        """The stream was ended on purpose."""
        if self._stream is not None:
            self._coverage.stopped(self._stream)
            self._stream = None

    def add_frames(self, frames: Sequence[Frame], size: int) -> None:
        """Take the frames that a read of `size` bytes has completed. Raises IntakeFailure."""
        self._in_hand += frames
        self._bytes += size
        if self._bytes >= GATHER_BYTES:
            self.hand_over()

    def before_read(self, is_waiting: Callable[[], bool]) -> None:
        """The network is about to be read: unless bytes are waiting, that may block, so append first."""
        if self._bytes:
            now = self._clock.monotonic()
            if not is_waiting():
                self.hand_over(now)

    def hand_over(self, all_read_at: float | None = None) -> None:
        """Append everything received so far.

        all_read_at: when the last byte that had arrived was read (monotonic seconds); None when not known.

        Raises IntakeFailure, but not for JournalFull: then it waits, reading nothing, until there is room or
        `stop` is set, and tries a last time.
        """
        if not self._bytes:
            return
        self._bytes = 0
        monotonic, now = self._clock.monotonic(), self._clock.now()
        frames, self._in_hand = self._in_hand, []
        events, letters = parse_frames(frames, now)
        heard = _heard_until(events, monotonic, now, all_read_at)
        if self._types:
            events = [event for event in events if not event.type or event.type in self._types]
        try:
            self._before_append()
            if events or letters:
                self._append(events, letters, heard)
            elif self._stream is not None:
                self._intake.heard(self._coverage.heard(self._stream, heard))
        except Exception as error:
            raise IntakeFailure(error) from error
        self._on_taken(now, len(events))

    def _append(self, events: Sequence[Event], letters: Sequence[DeadLetter], heard: float) -> None:
        is_long = self._clock.monotonic() + LONG_PAUSE
        while True:
            last_try = self._stop.is_set()  # asked first: who stops it may have made room before
            try:
                self._append_once(events, letters, heard)
                break
            except JournalFull as full:
                self.lost(f"{full.place} was full")
                if last_try:
                    text = "stopped while %s was full: %d received events were not kept"
                    _log.error(text, full.place, len(events))
                    return
                self._pause(full, len(events))
                self._clock.wait(self._stop, FULL_RETRY)
                if self._clock.monotonic() >= is_long:
                    is_long = math.inf
                    self._on_long_pause()
        if not self.is_live:
            self._resume()

    def _append_once(self, events: Sequence[Event], letters: Sequence[DeadLetter], heard: float) -> None:
        """What was in hand when the intake was full lies in a gap, so it moves nothing."""
        if self._stream is None:
            self._intake.append(events, letters, self._coverage.frontier, self._connection)
            return
        too_large = any(letter.cause.startswith(TOO_LARGE) for letter in letters)
        since = self._coverage.frontier if too_large else None
        reach = self._coverage.reach(self._stream, heard)
        fresh = self._intake.append(events, letters, reach, self._connection)
        self._coverage.took(self._stream, heard, events, fresh)
        if too_large:
            self._coverage.missed("an event was too large to be taken: its beginning is a dead letter", since)

    def _pause(self, full: JournalFull, held: int) -> None:
        if self._trouble.is_due(full.place, self._clock.monotonic()):
            text = "%s is full (%s): reading the feed pauses with %d events in hand; %s"
            _log.error(text, full.place, full, held, full.advice)
        if self._paused is None:
            self._paused = full
            self._on_paused(True)

    def _resume(self) -> None:
        self.went_live()
        if self._paused is not None:
            _log.warning("%s has room again: reading the feed goes on", self._paused.place)
            self._paused = None
            self._trouble.over()
            self._on_paused(False)


def _heard_until(events: Sequence[Event], monotonic: float, now: float, all_read_at: float | None) -> float:
    """Until when (monotonic seconds) all that was published on a stream has been received, as far as these
    events tell, the newest last; `monotonic` and `now` are the same moment.

    Not the time of reading: after a stall, what was published since waits in the socket.
    """
    created = epoch_milliseconds(events[-1].created_at) if events else None
    heard = -math.inf if created is None else monotonic - max(0.0, now - created / 1000) - FINEST
    if all_read_at is None:
        return heard
    if created is None:
        return all_read_at - ON_ITS_WAY
    return min(max(heard, all_read_at - MAX_LATE), all_read_at)
