"""What a connection is doing right now, for a status page, and what a cluster's metrics say of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from apache_beam.metrics import Metrics

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk
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


class FeedCounters:
    """Counts what comes in; only on the bundle's own thread, from any other Beam drops the increments."""

    def __init__(self) -> None:
        self._received = Metrics.counter(NAMESPACE, "feed_events_received")
        self._dead_lettered = Metrics.counter(NAMESPACE, "feed_events_dead_lettered")
        self._gaps = Metrics.counter(NAMESPACE, "feed_gaps")
        self._elsewhere = Metrics.counter(NAMESPACE, "feed_ranges_elsewhere")

    def declare(self) -> None:
        """Show every counter from the start, at 0 where nothing was counted; see DeliveryCounters.declare."""
        for counter in (self._received, self._dead_lettered, self._gaps, self._elsewhere):
            counter.inc(0)

    def count(self, output: Chunk | DeadLetter) -> None:
        """Count what goes on: the events of a chunk, a frame that is none, or a gap."""
        if isinstance(output, Chunk):
            self._received.inc(len(output.events))
        elif output.cause.startswith("feed_gap"):
            self._gaps.inc()
        else:
            self._dead_lettered.inc()

    def elsewhere(self) -> None:
        """A runner with several processes has shown a range to one that does not read it: 50 ms lost."""
        self._elsewhere.inc()

    def standing(self, connection: int, status: ConnectionStatus) -> None:
        """Record what one connection is doing. Gauges cannot be added up, so each has its own."""

        def gauge(name: str, value: int) -> None:
            Metrics.gauge(NAMESPACE, f"feed_{name}_{connection}").set(value)

        gauge("connections", int(status.phase is Phase.LIVE))
        gauge("reconnects", status.reconnects)
        if status.last_event_at is not None:
            gauge("last_event_epoch_seconds", int(status.last_event_at))
