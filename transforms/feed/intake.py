"""What the feed's connections ask of whatever keeps events: a journal, or a worker's memory; and its gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

import msgspec

from transforms.dead_letter import DeadLetter
from transforms.event import Event

# Of `append`: says nothing about what was heard, as it did not come by a stream.
NOT_HEARD = -math.inf


class JournalFull(Exception):
    """There is no room now. Nothing of the call was kept: hold on to it, stop reading, try again.

    place: what is full, in plain words; advice: what a person can do about it.
    """

    def __init__(
        self,
        why: str,
        place: str = "the journal",
        advice: str = "free disk space, raise --journal_max_bytes, or bring the slow destination back",
    ) -> None:
        super().__init__(why)
        self.place, self.advice = place, advice


class Intake(Protocol):
    """Where received events become durable. Safe to call from several connection threads."""

    def append(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None = None,
        connection: str = "",
    ) -> Sequence[Event] | None:
        """Take events, and frames that are no events; durable when it returns.

        heard_until: as for `heard`; the present when None, NOT_HEARD for what came another way.
        connection: how they came, for a person: "sse 1", "websocket 2", "webhook".
        Ids taken before are dropped (same bytes) or kept aside as dead letters (`id_conflict`). Returns
        the events that were new, None when it does not know ids. Raises JournalFull.
        """

    def heard(self, until: float | None = None) -> None:
        """All that the feed published until `until` (epoch seconds; the present, when None) was taken.
        Cheap: call it for every read."""

    def open_gap(self, reason: str, since: float | None = None) -> None:
        """From `since` (epoch seconds; the last moment `heard`, when None) the feed may be losing events.

        Does nothing while a gap is open.
        """

    def close_gap(self, until: float | None = None) -> None:
        """The feed is live again: ends the open gap, if there is one, at `until` (epoch seconds; now, when
        None)."""


class AccountIntake(Intake, Protocol):
    """One that takes the events of one account only."""

    def check_account(self, developer_id: str) -> None:
        """Remember whose events these are at the first call. Raises when they were another account's."""


@dataclass(frozen=True)
class Gap:
    """Epoch seconds; `until` is None while the gap is open."""

    since: float
    until: float | None
    reason: str

    @property
    def seconds(self) -> float:
        """How long it was; 0 while it is open."""
        return 0.0 if self.until is None else self.until - self.since


def as_dead_letter(gap: Gap) -> DeadLetter:
    """A gap among the dead letters, for whoever audits them; its `raw` is a JSON object of the interval."""
    until = gap.until or gap.since
    record = {
        "since": iso(gap.since),
        "until": iso(until),
        "seconds": round(until - gap.since, 3),
        "reason": gap.reason,
    }
    return DeadLetter(
        stage="feed",
        destination="",
        cause=f"feed_gap: {gap.reason}",
        raw=msgspec.json.encode(record),
        at=until,
    )


def is_gap(letter: DeadLetter) -> bool:
    """Whether it is a gap."""
    return letter.cause.startswith("feed_gap")


def seconds_of(gap: DeadLetter) -> float:
    """How long a gap was that is among the dead letters."""
    seconds: float = msgspec.json.decode(gap.raw)["seconds"]
    return seconds


def iso(epoch: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return (
        datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
