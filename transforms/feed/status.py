"""What a connection is doing right now, for a status page."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(str, enum.Enum):
    """Where a connection stands."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    WAITING_FOR_HEADERS = "connected, waiting for the first event or keepalive"
    LIVE = "live"
    PAUSED = "paused: the journal is full"
    WAITING = "waiting to reconnect"


@dataclass(frozen=True)
class ConnectionStatus:
    """A snapshot; times are seconds since the epoch, None for never.

    until, why: when and why it will connect again, while it waits.
    reconnects: streams lost and opened again so far.
    last_problem: the last reason in plain words, "" when there was none.
    end_of_input: the service said that there will be no more events.
    """

    phase: Phase = Phase.STOPPED
    until: float | None = None
    why: str = ""
    last_event_at: float | None = None
    last_heard_at: float | None = None
    reconnects: int = 0
    last_problem: str = ""
    end_of_input: bool = False
