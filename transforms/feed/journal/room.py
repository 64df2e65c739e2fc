"""Whether there is room for more events: on the disk, and within the journal's own bound."""

from __future__ import annotations

from pathlib import Path

from transforms.clock import Clock
from transforms.feed.intake import JournalFull
from transforms.feed.journal.disk import Reserve, too_little_free

CHECK_DISK_EVERY = 1.0  # seconds


class Room:
    """Asked before every append. The journal's lock guards all calls."""

    def __init__(self, directory: Path, reserve: Reserve, max_bytes: int, clock: Clock) -> None:
        self._directory = directory
        self._reserve = reserve
        self._max_bytes = max_bytes
        self._clock = clock
        self._checked = clock.monotonic()
        self._short = False

    def check(self, kept_bytes: int) -> None:
        """Raises JournalFull. Puts the reserve back once there is room for it: no event goes before that."""
        now = self._clock.monotonic()
        if now - self._checked >= CHECK_DISK_EVERY:
            self._checked = now
            self._short = too_little_free(self._directory) or not self._reserve.restore()
        if self._short:
            raise JournalFull(f"the disk of {self._directory} has too little room left")
        if kept_bytes >= self._max_bytes:
            raise JournalFull(f"the journal holds --journal_max_bytes={self._max_bytes} bytes")

    def full(self) -> JournalFull:
        """What to raise when a write found the disk full; until the next look at it nobody tries again."""
        self._short, self._checked = True, self._clock.monotonic()
        return JournalFull(f"the disk of {self._directory} is full")
