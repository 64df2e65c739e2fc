"""Events per second over the last half minute: destinations deliver in bursts, a second says nothing."""

from __future__ import annotations

from collections import deque

from pipelines.local.snapshot import Snapshot

SECONDS = 30.0


class Rates:
    """Remembers counts of past snapshots."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, dict[str, int]]] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """The newest snapshot."""
        if self._looks and snapshot.at < self._looks[-1][0]:
            self._looks.clear()  # the wall clock was set back
        counts = {item.name: item.books.delivered for item in snapshot.destinations}
        self._looks.append((snapshot.at, snapshot.received, counts))
        while len(self._looks) > 2 and self._looks[1][0] <= snapshot.at - SECONDS:
            self._looks.popleft()

    @property
    def received(self) -> float:
        """Events received a second."""
        return self._rate(self._looks[0][1], self._looks[-1][1]) if self._looks else 0.0

    def delivered(self, name: str) -> float:
        """Events delivered a second to a destination."""
        if not self._looks:
            return 0.0
        then, now = self._looks[0][2], self._looks[-1][2]
        return self._rate(then.get(name, now.get(name, 0)), now.get(name, 0))

    def _rate(self, then: int, now: int) -> float:
        seconds = self._looks[-1][0] - self._looks[0][0]
        return max(0, now - then) / seconds if seconds > 0 else 0.0
