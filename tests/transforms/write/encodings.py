"""Events and batches as the feed makes them, for the tests of destinations."""

from __future__ import annotations

import json

from transforms.event import Batch, Event

CREATED_AT = "2026-03-01T12:00:00.123Z"  # 1772366400.123


def event(number: int, created_at: str = CREATED_AT, event_id: str | None = None) -> Event:
    """Event `number` of a feed, with its exact JSON."""
    event_id = event_id if event_id is not None else f"evt_01JXYZ{number:020d}"
    fields = {"id": event_id, "type": "grant.created", "createdAt": created_at, "data": {"n": number}}
    return Event(event_id, "grant.created", created_at, json.dumps(fields, separators=(",", ":")).encode())


def batch(count: int, partition: str = "") -> Batch:
    """A batch of the events 0 to `count` - 1."""
    return Batch([event(number) for number in range(count)], partition=partition)
