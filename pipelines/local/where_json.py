"""What `where` and `/where` answer: one JSON object for each id, and the same in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transforms.feed.intake import Gap, iso
from transforms.feed.journal.receipts import Found, Standing


def answer(found: Found) -> dict[str, Any]:
    """For JSON. Times are RFC 3339 in UTC; null stands for what is not known or is not so.

    `received_at` is null when it was not received (then `destinations` is empty, and `gap` says whether
    its time lies in one), or nobody knows any more (then `destinations` say "not_kept").
    """
    return {
        "id": found.id,
        "received_at": _iso(found.received_at),
        "connection": found.connection or None,
        "destinations": {name: _standing(each) for name, each in found.destinations.items()},
        "gap": found.gap and _gap(found.gap),
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {"since": iso(gap.since), "until": _iso(gap.until), "reason": gap.reason}


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "state": standing.state,
        "at": _iso(standing.at),
        "place": standing.place or None,
        "cause": standing.cause or None,
        "attempts": standing.attempts,
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)


def in_words(found: Found) -> Iterator[str]:
    """Lines for a person."""
    if found.received_at is None and (found.expired or not found.destinations):
        yield f"{found.id}  {_not_received(found)}"
        return
    by = f" by {found.connection}" if found.connection else ""
    when = "" if found.received_at is None else f"  received {iso(found.received_at)}{by}"
    yield f"{found.id}{when}"
    if not found.destinations:
        yield "  no destination was there then"
    width = max([len(name) for name in found.destinations], default=0)
    for name, standing in found.destinations.items():
        yield f"  {name:{width}}  {_in_words(standing)}"


def _not_received(found: Found) -> str:
    if found.expired:
        return "not known any more: receipts from then are not kept"
    if found.gap is None:
        return "not received, and no gap is on record when it was made"
    until = "now" if found.gap.until is None else iso(found.gap.until)
    return f"not received: the feed was not heard from {iso(found.gap.since)} to {until} ({found.gap.reason})"


def _in_words(standing: Standing) -> str:
    tries = f", {standing.attempts} attempt{'s' * (standing.attempts != 1)}" if standing.attempts else ""
    at = "" if standing.at is None else f" {iso(standing.at)}"
    if standing.state == "delivered":
        return f"delivered{at}{tries}{': ' + standing.place if standing.place else ''}"
    if standing.state == "dead_letter":
        return f"dead letter{at}{tries}: {standing.cause}"
    if standing.state == "pending":
        return f"pending{tries}{f'; last error{at}: {standing.cause}' if standing.cause else ''}"
    return {"not_kept": "settled; its receipt is not kept", "filtered": "filtered: not asked for"}[
        standing.state
    ]
