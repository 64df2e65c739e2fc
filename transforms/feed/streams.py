"""How many of this process's streams are open, and with it when a gap begins and ends."""

from __future__ import annotations

import threading

from transforms.feed.intake import Intake


class OpenStreams:
    """Shared by all connections of one process: only the loss of the last open stream opens a gap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0

    @property
    def open(self) -> int:
        """Streams whose response headers have come and that have not ended."""
        return self._open

    def start(self, intake: Intake) -> None:
        """A connection is about to be made for the first time: since the last run nobody listened."""
        with self._lock:
            if self._open == 0:
                intake.open_gap("not running")

    def add(self, intake: Intake) -> None:
        """A stream's headers are there."""
        with self._lock:
            self._open += 1
            intake.close_gap()

    def lose(self, intake: Intake, reason: str) -> None:
        """A stream has ended without being asked to."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                intake.open_gap(reason)

    def remove(self) -> None:
        """A stream was ended on purpose: whoever stops the last one also knows that it stopped."""
        with self._lock:
            self._open -= 1
