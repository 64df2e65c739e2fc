"""The practice service's webhooks and their delivery ledger: a row for every event, 100 a page, a rate limit.

What feed.md says of the service: newest first; `pageSize` 20 unless given and 100 at most; no filter by time;
404 for a webhook that is another's or gone; every authenticated answer counts against requests a minute.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import islice
from typing import Literal, NamedTuple
from urllib.parse import parse_qs

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Prepared, prepare
from pipelines.practice.http_server import Answer, Request
from transforms.clock import Clock, SystemClock
from transforms.event_types import KNOWN
from transforms.feed.intake import iso

Generation = Literal["O", "N"]
# What the older service takes for a webhook; the newer takes all types.
OLD_TYPES = ("grant.created", "grant.revoked", "token.issued")
WEBHOOKS = "/v1/webhooks"
_DELIVERIES = re.compile(rf"{WEBHOOKS}/([^/]+)/deliveries")
USUAL_PAGE, LARGEST_PAGE = 20, 100
MINUTE = 60.0
UNLIMITED = 1_000_000  # requests a minute


class Entry(NamedTuple):
    """One row of the ledger, as long as nobody asks for it."""

    event_id: str
    event_type: str
    at: float  # epoch seconds


@dataclass(eq=False)
class Webhook:
    """A registered webhook and its part of the ledger, oldest first."""

    id: str
    developer: str
    url: str
    events: tuple[str, ...]
    created_at: float
    secret: str = field(repr=False)
    rows: list[Entry] = field(default_factory=list, repr=False)


class Ledger:
    """Safe for threads. `webhooks` may be changed at any time: what is deleted takes its rows along."""

    def __init__(
        self,
        generation: Generation = "N",
        clock: Clock | None = None,
        requests_per_minute: int = UNLIMITED,
        arriving: int = 0,
    ) -> None:
        """arriving: rows that are added before each page is answered, as on a busy service."""
        self.generation: Generation = generation
        self.requests_per_minute = requests_per_minute
        self.arriving = arriving
        self.most_webhooks = 30  # of a developer; the free plan's
        self.webhooks: dict[str, Webhook] = {}
        self.dropped: list[str] = []  # ids of events that no stream was sent
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._to_drop = 0
        self._minute: dict[str, tuple[float, int]] = {}  # developer -> beginning (monotonic), requests in it
        self._arrivals = generate()

    # What the service does by itself

    def register(self, developer: str, url: str, events: Sequence[str]) -> Webhook:
        """A new webhook. Raises ValueError with the service's message for types that it does not take."""
        valid = OLD_TYPES if self.generation == "O" else sorted(KNOWN)
        if not events or not set(events) <= set(valid):
            wrong = ", ".join(each for each in events if each not in valid)
            raise ValueError(f"Invalid event types: {wrong}. Valid: {', '.join(valid)}")
        made = Webhook(
            f"wh_{secrets.token_hex(8)}",
            developer,
            url,
            tuple(events),
            self._clock.now(),
            secrets.token_hex(24),
        )
        with self._lock:
            self.webhooks[made.id] = made
        return made

    def published(self, prepared: Prepared) -> Prepared:
        """Enter these events; returns those of them that the streams are to be sent."""
        with self._lock:
            if not self.webhooks and not self._to_drop:
                return prepared
            now = self._clock.now()
            for webhook in self.webhooks.values():
                webhook.rows += [
                    Entry(id, kind, now) for id, kind in prepared.heads if kind in webhook.events
                ]
            number = min(self._to_drop, len(prepared.heads))
            if not number:
                return prepared
            self._to_drop -= number
            self.dropped += [event_id for event_id, _ in prepared.heads[:number]]
            return prepare(prepared.events[number:])

    def drop(self, number: int) -> None:
        """The next so many events are entered and sent to no stream, as when the service's Redis restarts."""
        with self._lock:
            self._to_drop += number

    # Its answers

    def answer(self, request: Request, developer: str) -> Answer | None:
        """The answer to a request for webhooks or deliveries; None for any other path."""
        if request.path == WEBHOOKS and request.method == "POST":
            return self._create(request, developer)
        if request.method != "GET":
            return None
        if request.path == WEBHOOKS:
            return self._list(developer)
        if found := _DELIVERIES.fullmatch(request.path):
            return self._page(found[1], request, developer)
        return None

    def limited(self, answer: Answer, developer: str) -> Answer:
        """`answer` with what is left of the developer's minute, or 429 when nothing is."""
        with self._lock:
            now, limit = self._clock.monotonic(), self.requests_per_minute
            begun, count = self._minute.get(developer, (now, 0))
            if now - begun >= MINUTE:
                begun, count = now, 0
            self._minute[developer] = (begun, count + 1)
        reset = str(math.ceil(begun + MINUTE - now))
        headers = (
            ("X-RateLimit-Limit", str(limit)),
            ("X-RateLimit-Remaining", str(max(0, limit - count - 1))),
            ("X-RateLimit-Reset", reset),
            ("Date", formatdate(self._clock.now(), usegmt=True)),
        )
        if count >= limit:
            refused = error(429, "RATE_LIMIT_EXCEEDED", "Rate limit exceeded")
            return refused._replace(headers=(*headers, ("Retry-After", reset)))
        return answer._replace(headers=(*answer.headers, *headers))

    def _list(self, developer: str) -> Answer:
        with self._lock:
            found = [each for each in self.webhooks.values() if each.developer == developer]
        shown = [
            {"id": w.id, "url": w.url, "events": w.events, "createdAt": iso(w.created_at)} for w in found
        ]
        return Answer(200, json.dumps({"webhooks": shown}).encode())

    def _create(self, request: Request, developer: str) -> Answer:
        try:
            asked = json.loads(request.body)
            url, events = str(asked["url"]), list(asked["events"])
        except (ValueError, KeyError, TypeError):
            return error(400, "BAD_REQUEST", "url and events are required")
        if sum(each.developer == developer for each in self.webhooks.values()) >= self.most_webhooks:
            most = f"free plan allows {self.most_webhooks} webhook(s). Upgrade at /v1/billing/checkout"
            return error(402, "PLAN_LIMIT_EXCEEDED", f"Plan limit reached: {most}")
        try:
            made = self.register(developer, url, events)
        except ValueError as why:
            return error(400, "BAD_REQUEST", str(why))
        shown = {"id": made.id, "url": url, "events": events, "createdAt": iso(made.created_at)}
        return Answer(201, json.dumps({**shown, "secret": made.secret}).encode())

    def _page(self, webhook_id: str, request: Request, developer: str) -> Answer:
        webhook = self.webhooks.get(webhook_id)
        if webhook is None or webhook.developer != developer:
            return error(404, "NOT_FOUND", "Webhook not found")
        query = parse_qs(request.query)
        try:
            number = max(1, int(query.get("page", ["1"])[0]))
            size = max(1, min(LARGEST_PAGE, int(query.get("pageSize", [str(USUAL_PAGE)])[0])))
        except ValueError:
            return error(400, "BAD_REQUEST", "page and pageSize must be integers")
        with self._lock:
            self._let_arrive(webhook)
            total = len(webhook.rows)
            end = max(0, total - (number - 1) * size)
            rows = webhook.rows[max(0, end - size) : end]
        deliveries = [_delivery(webhook, row, end - i) for i, row in enumerate(reversed(rows))]
        page = {"deliveries": deliveries, "total": total, "page": number, "pageSize": size}
        return Answer(200, json.dumps(page).encode())

    def _let_arrive(self, webhook: Webhook) -> None:
        if self.arriving:
            now = self._clock.now()
            heads = prepare(islice(self._arrivals, self.arriving)).heads
            webhook.rows += [Entry(event_id, webhook.events[0], now) for event_id, _ in heads]


def _delivery(webhook: Webhook, row: Entry, number: int) -> dict[str, object]:
    created = iso(row.at)
    return {
        "id": f"whd_{webhook.id}_{number}",
        "webhookId": webhook.id,
        "eventId": row.event_id,
        "eventType": row.event_type,
        "status": "delivered",
        "attempts": 1,
        "maxAttempts": 5,
        "url": webhook.url,
        "lastError": None,
        "createdAt": created,
        "deliveredAt": created,
    }


def error(status: int, code: str, message: str) -> Answer:
    """An answer in the service's form of errors."""
    return Answer(status, json.dumps({"message": message, "code": code, "requestId": "req-1"}).encode())
