"""What a connection is doing right now, for a status page, and the metrics of the feed on a cluster."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from apache_beam.metrics import Metrics

from transforms import event_types
from transforms.dead_letter import DeadLetter, counted_as
from transforms.event import Chunk
from transforms.feed.intake import is_gap, seconds_of
from transforms.write.metrics import NAMESPACE


class Phase(str, enum.Enum):
    """Where a connection stands."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    WAITING_FOR_HEADERS = "connected, waiting for the first event or keepalive"
    LIVE = "live"
    PAUSED = "paused: the journal is full"
    WAITING = "waiting to reconnect"


class State(str, enum.Enum):
    """How a connection does among the others, in the word that is shown."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    LIVE = "live"
    SUSPECT = "suspect"  # another one shows that it lacks events
    REPLACING = "replacing"  # opened to take another one's place
    PAUSED = "paused"

    @classmethod
    def of(cls, phase: Phase) -> State:
        """Of a connection that nothing is known against."""
        known = {Phase.STOPPED: cls.STOPPED, Phase.LIVE: cls.LIVE, Phase.PAUSED: cls.PAUSED}
        return known.get(phase, cls.CONNECTING)


@dataclass(frozen=True)
class ConnectionStatus:
    """A snapshot; times are seconds since the epoch, None for never.

    live_since: when its stream went live, None while it has none.
    state: None where nobody compares it with others.

    until, why: when and why it will connect again, while it waits.
    reconnects: streams lost and opened again so far.
    last_problem: the last reason in plain words, "" when there was none.
    end_of_input: the service said that there will be no more events.
    transport: how it reads, "sse" or "websocket".
    """

    phase: Phase = Phase.STOPPED
    until: float | None = None
    why: str = ""
    last_event_at: float | None = None
    last_heard_at: float | None = None
    reconnects: int = 0
    last_problem: str = ""
    end_of_input: bool = False
    transport: str = "sse"
    live_since: float | None = None
    state: State | None = None


# Names and what they are, for docs/metrics.md: nothing is counted under a name that is not here.
COUNTERS: Mapping[str, str] = {
    "feed_events_received": "Events that came in.",
    "feed_events_dead_lettered": "Frames that are no event.",
    "feed_gaps": "Intervals in which events may have been missed.",
    "feed_gap_milliseconds": "How long the gaps were together.",
    "feed_ranges_elsewhere": "Times that a runner with several Python processes showed a range to one that "
    "does not read it: 50 ms each.",
}
REPEATED = "feed_events_repeated"
BY_TYPE, CAUSES = "feed_received", "feed_dead_letters"  # a type, or the first word of a cause, follows
GAUGES: Mapping[str, str] = {
    "feed_connections": "1 while the connection is live.",
    "feed_reconnects": "Streams that it has lost.",
    "feed_last_event_epoch_seconds": "When its last event came.",
    "feed_last_heard_epoch_seconds": "When an event or a keepalive came last.",
}


class FeedCounters:
    """Counts what comes in; only on the bundle's own thread, from any other Beam drops the increments."""

    def __init__(self) -> None:
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in COUNTERS}
        self._causes: set[str] = set()

    def declare(self) -> None:
        """Show every counter from the start, at 0 where nothing was counted; see DeliveryCounters.declare."""
        for counter in self._counters.values():
            counter.inc(0)

    def count(self, output: Chunk | DeadLetter) -> None:
        """Count what goes on: the events of a chunk, a frame that is none, or a gap."""
        if isinstance(output, Chunk):
            self._counters["feed_events_received"].inc(len(output.events))
            for event_type, count in event_types.counted(output.events).items():
                Metrics.counter(NAMESPACE, f"{BY_TYPE}_{event_type.replace('.', '_')}").inc(count)
            return
        cause = counted_as(output.cause, self._causes)
        self._causes.add(cause)
        Metrics.counter(NAMESPACE, f"{CAUSES}_{cause}").inc()
        if is_gap(output):
            self._counters["feed_gaps"].inc()
            self._counters["feed_gap_milliseconds"].inc(round(seconds_of(output) * 1000))
        else:
            self._counters["feed_events_dead_lettered"].inc()

    def elsewhere(self) -> None:
        """A runner with several processes has shown a range to one that does not read it: 50 ms lost."""
        self._counters["feed_ranges_elsewhere"].inc()

    def standing(self, connection: int, status: ConnectionStatus) -> None:
        """Record what one connection is doing. Gauges cannot be added up, so each has its own."""
        live = int(status.phase is Phase.LIVE)
        values = (live, status.reconnects, status.last_event_at, status.last_heard_at)
        for name, value in zip(GAUGES, values, strict=True):
            if value is not None:
                Metrics.gauge(NAMESPACE, f"{name}_{connection}").set(int(value))
