"""What keys of destinations hold on this worker: said when it grows, and past a bound reading is slowed.

On a cluster a subscription's messages are acknowledged once the first stages have committed them. So the
backlog of a destination that is away is in the job's state alone, and the subscription's age, on which people
have alerts, stays near 0.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from transforms.clock import Clock

log = logging.getLogger("grantex.write")
# Bytes of one key in the job's state, where events are about a quarter of what they were. Up to 32 MB a
# backlog is kept in blocks of 4 MB (keyed/backlog.py); beyond that in blocks of 32 MB, slower to read.
MUCH = 32_000_000
# A key has room for 2 GB, but a subscription keeps what waits for less, and tells those who watch its age.
# 1.8 million events of 280 bytes: over four keys two hours at 1,000 events/s.
BOUND = 128_000_000
# Reading is slowed and not stopped: a bundle that waits for ever, or fails, would hold up the drain as well,
# and every bundle waits in a thread that deliveries need, too. With 12 threads a worker takes 1.2 bundles a
# second, and the rest stays in the subscription, whose age then tells.
SLOW_SECONDS = 10.0
# A key that has not been heard of for so long has moved to another worker: those that are here are heard of
# whenever one of their batches closes or their destination is tried.
FORGET_SECONDS = 300.0


@dataclass
class _Key:
    size: int
    at: float  # monotonic seconds
    warn_at: int = MUCH


class Held:
    """What each key of this process held when it was last looked at; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, str], _Key] = {}
        self._room = threading.Event()

    def note(self, name: str, key: str, events: int, size: int, at: float, why: str = "") -> None:
        """A key of destination `name` holds so much, at `at` (monotonic seconds); `why`: its last error.

        Warns when that is MUCH, at each doubling, and says when it is over.
        """
        with self._lock:
            known = self._keys.setdefault((name, key), _Key(0, at))
            known.size, known.at = size, at
            warns, over = size >= known.warn_at, not size and known.warn_at > MUCH
            while size >= known.warn_at:
                known.warn_at *= 2
            if over:
                del self._keys[name, key]
            if not any(each.size >= BOUND for each in self._keys.values()):
                self._room.set()
        if warns:
            log.warning(
                "%s has not taken %d events of key %s, %d MB of this job's state%s. Only this job has them: "
                "put the destination right, or drain the job (what is left then becomes dead letters); "
                "cancelling it loses them%s",
                name,
                events,
                key,
                size // 1_000_000,
                f": {why}" if why else "",
                "; reading from Pub/Sub is slowed" if size >= BOUND else "",
            )
        elif over:
            log.info("%s: nothing is left of key %s", name, key)

    def size(self, now: float) -> int:
        """The most that one key holds; those that are elsewhere by now are forgotten. `now`: monotonic."""
        with self._lock:
            self._keys = {each: key for each, key in self._keys.items() if now - key.at < FORGET_SECONDS}
            most = max((key.size for key in self._keys.values()), default=0)
            if most >= BOUND:
                self._room.clear()
            return most

    def slow_down(self, clock: Clock) -> bool:
        """Wait for SLOW_SECONDS, or until there is room, when a key is past BOUND; True when it was."""
        if self.size(clock.monotonic()) < BOUND:
            return False
        clock.wait(self._room, SLOW_SECONDS)
        return True


HELD = Held()  # of this process
