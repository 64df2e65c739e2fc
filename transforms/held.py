"""What keys of destinations hold on this worker: said when it grows, and past a bound it holds up reading.

On a cluster a subscription's messages are acknowledged once the first stages have committed them. So the
backlog of a destination that is away is in the job's state alone, and the subscription's age, on which people
have alerts, stays near 0: then it is read slowly. The feed keeps nothing for us: straight from it reading
goes on while each key has room, and stops then, as on one machine when the journal is full.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from transforms.clock import Clock

log = logging.getLogger("grantex.write")
# Bytes of one key in the job's state, where events are about a quarter of what they were. Up to 24 MB a
# backlog is kept in blocks of 1 MB (keyed/backlog.py); beyond that in blocks of 32 MB, slower to read.
MUCH = 32_000_000
# A key's blocks have room for so much (keyed/backlog.py). The feed is read no further then, and what its
# connection cannot keep is a gap, on record: state that grows for ever ends the job, with all that it has.
ROOM = 2_000_000_000
# A subscription keeps what waits for less, and tells those who watch its age.
# 2.5 million events of 280 bytes: over four keys almost three hours at 1,000 events/s.
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
    why: str = ""
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
            known.size, known.at, known.why = size, at, why
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
                _of_reading(size),
            )
        elif over:
            log.info("%s: nothing is left of key %s", name, key)

    def size(self, now: float) -> int:
        """The most that one key holds; those that are elsewhere by now are forgotten. `now`: monotonic."""
        with self._lock:
            return self._most(now)[1].size

    def full(self, now: float) -> str:
        """Which key has no more room, in words; "" while all have. `now`: monotonic seconds."""
        with self._lock:
            (name, key), most = self._most(now)
        why = f" ({most.why})" if most.why else ""
        size = f"{most.size // 1_000_000} MB of key {key}"
        return f"{name} has not taken {size}{why}" if most.size >= ROOM else ""

    def slow_down(self, clock: Clock) -> bool:
        """Wait for SLOW_SECONDS, or until there is room, when a key is past BOUND; True when it was."""
        if self.size(clock.monotonic()) < BOUND:
            return False
        clock.wait(self._room, SLOW_SECONDS)
        return True

    def _most(self, now: float) -> tuple[tuple[str, str], _Key]:
        """The key that holds most; one that holds nothing when there is none."""
        self._keys = {each: key for each, key in self._keys.items() if now - key.at < FORGET_SECONDS}
        found = max(self._keys.items(), key=lambda each: each[1].size, default=(("", ""), _Key(0, now)))
        if found[1].size >= BOUND:
            self._room.clear()
        return found


def _of_reading(size: int) -> str:
    """What that means for reading, for the end of a message."""
    if size >= ROOM:
        return "; until it has room, nothing is read straight from the feed, and little from Pub/Sub"
    if size >= BOUND:
        return (
            "; from Pub/Sub less is read until then, and straight from the feed nothing more once it is "
            f"{ROOM // 1_000_000} MB"
        )
    return ""


HELD = Held()  # of this process
