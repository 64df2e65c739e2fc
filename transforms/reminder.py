"""A trouble that lasts is said again now and then: whoever looks later sees the log's last lines only."""

from __future__ import annotations

import math

REMIND_SECONDS = 300.0


class Reminder:
    """When one trouble is to be logged: as it begins, as it changes, and every REMIND_SECONDS meanwhile.

    For one thread, or under its user's lock.
    """

    def __init__(self) -> None:
        self._trouble: str | None = None
        self._said_at = -math.inf

    def is_due(self, trouble: str, now: float) -> bool:
        """Whether to log `trouble` now (monotonic seconds); True counts as logged."""
        if trouble == self._trouble and now - self._said_at < REMIND_SECONDS:
            return False
        self._trouble, self._said_at = trouble, now
        return True

    def over(self) -> None:
        """The next one is a new trouble, whatever it is."""
        self._trouble = None
