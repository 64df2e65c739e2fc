"""An intake that keeps everything in memory and tells tests what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from transforms.clock import SystemClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import JournalFull


class MemoryIntake:
    """`full`: how many more appends are refused. `failure`: what the next append raises."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.letters: list[DeadLetter] = []
        self.appends: list[int] = []
        self.gaps: list[str] = []  # reasons of all gaps so far
        self.closed: list[tuple[float | None, float | None]] = []  # since and until of those that ended
        self.gap_is_open = False
        self._since: float | None = None
        self.heard_count = 0
        self.heard_until: float | None = None
        self.full = 0
        self.failure: BaseException | None = None
        self._changed = threading.Condition()

    def append(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None = None,
        connection: str = "",
    ) -> None:
        with self._changed:
            if self.failure is not None:
                raise self.failure
            if self.full:
                self.full -= 1
                raise JournalFull("no room for testing")
            self.events += events
            self.heard_until = heard_until
            self.letters += letters
            self.appends.append(len(events))
            self._changed.notify_all()

    def heard(self, until: float | None = None) -> None:
        with self._changed:
            self.heard_count += 1
            self.heard_until = until
            self._changed.notify_all()

    def open_gap(self, reason: str, since: float | None = None) -> None:
        with self._changed:
            if not self.gap_is_open:
                self.gaps.append(reason)
                self._since = since
            self.gap_is_open = True
            self._changed.notify_all()

    def close_gap(self, until: float | None = None) -> None:
        with self._changed:
            if self.gap_is_open:
                self.closed.append((self._since, until))
            self.gap_is_open = False
            self._changed.notify_all()

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout), "the intake never saw what was waited for"


class HurriedClock(SystemClock):
    """The real clock, on which nobody waits longer than a moment; `waits` are the seconds asked for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self.waits.append(-1.0 if timeout is None else timeout)
        return event.wait(0.01)
