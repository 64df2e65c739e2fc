"""Dead letters: rejected events with their original bytes and cause, and the stage that writes them."""

from __future__ import annotations

import msgspec


class DeadLetter(msgspec.Struct, frozen=True):
    """One event or frame that no retry can deliver, kept so that a person can replay it."""

    stage: str  # "feed" or "write"
    destination: str  # "" for the feed
    cause: str  # machine word, then detail: "not_json: unexpected character at byte 3"
    raw: bytes  # the original bytes
    event_id: str = ""
    attempts: int = 0
    at: float = 0.0  # seconds since the epoch
