"""Which refusals become dead letters: of events that are refused while others are taken, within a limit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from typing import Any

HOUR = 3600.0
# One event that is refused after others were taken is to blame itself, also in a quiet feed, where the next
# one may come hours later. A second one in a row may be the beginning of an outage, and waits for evidence.
BELIEVED = 1
# Events that are remembered. What is forgotten is merely refused once more.
REMEMBERED = 100_000


class _Origin:
    """The batch that events came from. proven: in which run without a failure some of it was delivered."""

    __slots__ = ("proven",)

    def __init__(self, proven: int = -1) -> None:
        self.proven = proven


class DeadLetterLimit:
    """At most `limit` dead letters within an hour (None: no limit), and none without evidence.

    A destination that refuses everything (a wrong path or setting) would turn a feed into dead letters. So a
    refusal is believed only when the destination shows that it takes other events:

    - of the same batch, and nothing failed since, or
    - any, after this event was first refused, and it is refused again, or
    - before, when it is a single one: at most `believed` of them between two deliveries.

    Until then the event is suspected: kept, set apart from its batch, tried again, others first. Whatever is
    delivered proves that the settings are right. So a single event that is to blame waits for the next good
    one at most, and a destination that begins to refuse everything makes `believed` dead letters (none, if it
    has never taken anything).

    One for the life of a destination in a process, so that neither a lane's restarts nor the keys of a
    cluster begin with nothing; it need not outlive the process, as what is forgotten is found out again. Safe
    for threads.
    """

    def __init__(self, limit: int | None, believed: float = BELIEVED) -> None:
        self.limit = limit
        self._believed = believed
        self._times: deque[float] = deque()
        self._deliveries = 0
        self._run = 0  # attempts between two failures are one run
        self._credit = 0.0
        self._suspected: dict[str, int] = {}  # event id -> deliveries when it was first refused
        self._origins: dict[str, _Origin] = {}  # of batches that were cut, or taken in part
        self._lock = threading.Lock()

    def delivered(self, event_ids: Collection[str], left: Collection[str] = ()) -> None:
        """An attempt has delivered these, and has left some of the same batch. `event_ids` may be left out
        for a whole batch at its first attempt."""
        with self._lock:
            self._deliveries += 1
            self._credit = self._believed
            origins = [self._origins.pop(one) for one in event_ids if one in self._origins]
            for one in event_ids if self._suspected else ():
                self._suspected.pop(one, None)
            if left:
                origins.append(self._of_one_batch(left))
            for origin in origins:
                origin.proven = self._run

    def cut(self, event_ids: Collection[str]) -> None:
        """These are of one batch, which is cut now."""
        with self._lock:
            self._of_one_batch(event_ids)

    def failed(self) -> None:
        """An attempt got nothing through: what was taken before it proves nothing about what comes after."""
        with self._lock:
            self._run += 1

    def believes(self, event_ids: Collection[str]) -> set[str]:
        """Those of the events that are to blame themselves, all refused by an attempt that delivered nothing.
        The others are suspected from now on."""
        with self._lock:
            now = self._deliveries
            believed = {
                one for one in event_ids if self._suspected.get(one, now) < now or self._is_proven(one)
            }
            fresh = [one for one in event_ids if one not in believed]
            if 0 < len(fresh) <= self._credit:
                self._credit -= len(fresh)
                return believed.union(fresh)
            for one in fresh:
                self._suspected.setdefault(one, now)
            _bound(self._suspected)
            return believed

    def _is_proven(self, event_id: str) -> bool:
        origin = self._origins.get(event_id)
        return origin is not None and origin.proven == self._run

    def _of_one_batch(self, event_ids: Collection[str]) -> _Origin:
        known = [self._origins[one] for one in event_ids if one in self._origins]
        origin = known[0] if known else _Origin()
        for one in event_ids:
            self._origins.setdefault(one, origin)
        _bound(self._origins)
        return origin

    def suspects(self, event_id: str) -> bool:
        """Whether the event was refused, and nobody knows yet whether it is to blame."""
        return event_id in self._suspected

    def allow(self, event_id: str, now: float) -> bool:
        """Count one more dead letter at `now` (monotonic seconds), or refuse it; its event stays believed to
        be to blame, also when the letter cannot be written and all of it comes again."""
        with self._lock:
            self._suspected[event_id] = -1
            _bound(self._suspected)
            self._origins.pop(event_id, None)
            if self.limit is None:
                return True
            while self._times and self._times[0] <= now - HOUR:
                self._times.popleft()
            if len(self._times) >= self.limit:
                return False
            self._times.append(now)
            return True


def _bound(known: dict[str, Any]) -> None:
    while len(known) > REMEMBERED:
        del known[next(iter(known))]
