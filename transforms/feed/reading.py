"""One response's bytes on their way into the intake, gathered while more are already waiting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import Intake, JournalFull
from transforms.feed.parse import parse_frames
from transforms.feed.sse import Frame, FrameReader

_log = logging.getLogger("grantex.feed")

# Two full reads of the socket, about 450 ordinary events: the size of a chunk. Each append is a commit.
GATHER_BYTES = 128 * 1024
FULL_RETRY = 1.0  # seconds; room comes when a destination catches up, not sooner


class Reading:
    """The state of one stream: the frame reader, and frames that are not in the intake yet.

    on_taken: called with (now, how many events) after every append, or keepalive.
    on_paused: called with True when the journal is full, with False when there is room again.
    """

    def __init__(
        self,
        intake: Intake,
        stop: threading.Event,
        clock: Clock,
        on_taken: Callable[[float, int], None],
        on_paused: Callable[[bool], None],
    ) -> None:
        self.frames = FrameReader()
        self._intake = intake
        self._stop = stop
        self._clock = clock
        self._on_taken = on_taken
        self._on_paused = on_paused
        self._pending: list[Frame] = []
        self._bytes = 0

    def add(self, block: bytes) -> None:
        """Take a block of the body."""
        self._pending += self.frames.feed(block)
        self._bytes += len(block)
        if self._bytes >= GATHER_BYTES:
            self.take()

    def before_read(self, waiting: bool) -> None:
        """The network is about to be read: unless bytes are waiting, that may block, so append first."""
        if not waiting:
            self.take()

    def take(self) -> None:
        """Append everything received so far. Returns with the intake's exceptions, but for JournalFull:
        then it waits, reading nothing, until there is room or `stop` is set, and tries a last time."""
        if not self._bytes:
            return
        self._bytes = 0
        now = self._clock.now()
        frames, self._pending = self._pending, []
        events, strays = parse_frames(frames, now)
        if events or strays:
            self._append(events, strays)
        self._intake.heard()
        self._on_taken(now, len(events))

    def _append(self, events: Sequence[Event], strays: Sequence[DeadLetter]) -> None:
        paused: JournalFull | None = None
        while True:
            last_try = self._stop.is_set()  # asked first: who stops it may have made room before
            try:
                self._intake.append(events, strays)
                break
            except JournalFull as full:
                if last_try:
                    text = "stopped while %s was full: %d received events were not kept"
                    _log.error(text, full.place, len(events))
                    return
                if paused is None:
                    paused = full
                    self._pause(full, len(events))
                self._clock.wait(self._stop, FULL_RETRY)
        if paused is not None:
            _log.warning("%s has room again: reading the feed goes on", paused.place)
            self._intake.close_gap()
            self._on_paused(False)

    def _pause(self, full: JournalFull, held: int) -> None:
        _log.error(
            "%s is full (%s): reading the feed pauses with %d events in hand; %s",
            full.place,
            full,
            held,
            full.advice,
        )
        self._intake.open_gap(f"{full.place} was full")
        self._on_paused(True)
