"""What the log says of a destination while it is delivered to: outages and dead letters, now and then."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from transforms.reminder import Reminder
from transforms.write.delivery.outbox import Circuit

# Dead letters "go on" for so many seconds after the last one; so often they are logged meanwhile.
GO_ON = 60.0
NEEDS_YOU = " (needs you: it does not heal by itself)"


class Told:
    """The same lines however it is driven, by ticks or by timers. Safe for threads.

    name: of the destination, for a person.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._away: set[str] = set()  # keys whose circuit is open
        self._outage = Reminder()
        self._untold, self._told_at = 0, -math.inf  # of dead letters
        self._lock = threading.Lock()

    def settled(self, key: str, circuit: Circuit, reasons: Sequence[str], now: float) -> list[str]:
        """The warnings that are due after an attempt, in order.

        key: of several that have a circuit each; circuit: after the attempt; reasons: why events became dead
        letters by it; now: as the circuit's times.
        """
        if not (reasons or circuit.is_open or self._away):
            return []  # as nearly always
        with self._lock:
            return [*self._of_outage(key, circuit, now), *self._of_dead_letters(reasons, now)]

    def _of_outage(self, key: str, circuit: Circuit, now: float) -> list[str]:
        was_away = bool(self._away)
        if not circuit.is_open:
            self._away.discard(key)
            if self._away or not was_away:
                return []
            self._outage.over()
            return [f"{self._name} takes events again"]
        self._away.add(key)
        who = NEEDS_YOU if circuit.needs_you else ""
        if not self._outage.is_due(who, now):
            return []
        if was_away:
            minutes = (now - (now if circuit.since is None else circuit.since)) // 60
            return [f"{self._name} has taken no events for {minutes:.0f} minutes: {circuit.why}{who}"]
        return [f"{self._name} is left alone for now and only probed with one batch: {circuit.why}{who}"]

    def _of_dead_letters(self, reasons: Sequence[str], now: float) -> list[str]:
        """The first one, and once a minute while they go on."""
        self._untold += len(reasons)
        if not reasons or now - self._told_at < GO_ON:
            return []
        count, self._untold, self._told_at = self._untold, 0, now
        words = f"refused {count} events, which are dead letters now; the last one"
        return [f"{self._name} {words}: {reasons[-1]}"]
