"""Snapshots to look at: a healthy run, and ways to spoil it."""

from __future__ import annotations

from typing import Any

from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from transforms.feed.journal.cursor import Books
from transforms.feed.status import ConnectionStatus, Phase
from transforms.write.delivery.status import CircuitStatus, DeliveryStatus, Histogram

AT = 1_772_366_400.0  # 2026-03-01T12:00:00Z
LIVE = ConnectionStatus(phase=Phase.LIVE, last_event_at=AT - 0.4, last_heard_at=AT - 0.4)
BUSY = "Splunk at https://splunk:8088 is busy: Server is busy (code 9, status 503). The events are kept."


def delivery(name: str, **changes: Any) -> DeliveryStatus:
    """What a destination's delivery is doing: nothing unusual, but for `changes`."""
    usual: dict[str, Any] = {
        "name": name,
        "delivered": 90,
        "dead_lettered": {},
        "attempts": 10,
        "retries": 0,
        "unknown": 0,
        "pending": 10,
        "in_flight": 1,
        "waiting": 0,
        "circuit": CircuitStatus(),
        "last_error": "",
        "last_error_at": None,
        "oldest_taken_at": AT - 1,
        "request_seconds": Histogram(),
    }
    return DeliveryStatus(**usual | changes)


def destination(name: str, **changes: Any) -> DestinationSnapshot:
    """A destination that delivers, but for `changes`."""
    usual: dict[str, Any] = {
        "books": Books(received=100, delivered=90, dead_lettered=0, pending=10),
        "lag": 1.0,
        "delivery": delivery(name),
        "max_age": 2.0,
    }
    return DestinationSnapshot(name, **usual | changes)


def down(name: str) -> DestinationSnapshot:
    """A destination whose circuit is open."""
    circuit = CircuitStatus(open=True, since=AT - 12, next_probe=AT + 3, why=BUSY)
    status = delivery(name, circuit=circuit, last_error=BUSY, last_error_at=AT - 1, retries=4, waiting=3)
    return destination(name, delivery=status, lag=12.0)


def run(*destinations: DestinationSnapshot, **changes: Any) -> Snapshot:
    """A healthy run with these destinations, but for `changes`."""
    usual: dict[str, Any] = {
        "at": AT,
        "received": 1234,
        "duplicates": 0,
        "feed_dead_letters": 0,
        "gaps": 0,
        "gap_open": False,
        "connections": [LIVE],
        "journal_bytes": 4096,
        "journal_max_bytes": 10 * 1024**3,
        "started_at": AT - 90,
        "destinations": destinations,
    }
    return Snapshot(**usual | changes)
