"""The practice service's webhooks on their way out: signed, framed, paced and repeated as the service does.

That is: five attempts, at the next tick and then 30, 60, 120 and 240 s later, each rounded up to a tick;
twenty deliveries a tick, five at once, ten seconds of patience. The older generation sends chunks, the newer
a length. An answer of 204, 205 or 304 ends the older one's process.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from pipelines.practice.feed_stream import Prepared, prepare
from pipelines.practice.ledger import Generation
from transforms.clock import Clock, SystemClock
from transforms.feed.webhook_signature import sign, sign_v1

TICK = 30.0  # seconds
PER_TICK = 20
AT_ONCE = 5
PATIENCE = 10.0  # seconds for an answer
WAITS = (30.0, 60.0, 120.0, 240.0)  # after each attempt but the last
DEADLY = (204, 205, 304)


class Registered(Protocol):
    """A webhook, as far as sending to it goes."""

    @property
    def url(self) -> str: ...
    @property
    def secret(self) -> str: ...
    @property
    def events(self) -> Sequence[str]: ...


@dataclass(eq=False)
class Outgoing:
    """One event on its way to one webhook. status: pending, delivered, failed."""

    webhook: Registered
    event_id: str
    body: bytes = field(repr=False)
    due: float  # epoch seconds
    status: str = "pending"
    attempts: int = 0
    last_error: str = ""


class WebhookSender:
    """Delivers what is published to the webhooks that want it, a tick at a time; safe for threads.

    webhooks: those that there are, looked at anew each time: `feed.ledger.webhooks.values()`.
    crashed: an answer has ended it, and nothing more is sent until it is set to False.
    """

    def __init__(
        self,
        webhooks: Iterable[Registered] = (),
        generation: Generation = "O",
        clock: Clock | None = None,
        per_tick: int = PER_TICK,
    ) -> None:
        self._webhooks = webhooks
        self.generation: Generation = generation
        self.outgoing: list[Outgoing] = []
        self.crashed = False
        self._clock = clock or SystemClock()
        self._per_tick = per_tick
        self._lock = threading.Lock()

    def publish(self, events: Sequence[bytes]) -> None:
        """Events for every webhook whose types they are; the first attempt is the next tick's."""
        self.publish_prepared(prepare(events))

    def publish_prepared(self, prepared: Prepared) -> None:
        """As `publish`, of events that are prepared for the streams as well."""
        now = self._clock.now()
        with self._lock:
            for webhook in self._webhooks:
                self.outgoing += [
                    Outgoing(webhook, event_id, event, now)
                    for (event_id, kind), event in zip(prepared.heads, prepared.events, strict=True)
                    if kind in webhook.events
                ]

    def tick(self) -> int:
        """Attempt what is due, the oldest first; returns how many."""
        if self.crashed:
            return 0
        now = self._clock.now()
        with self._lock:
            due = [one for one in self.outgoing if one.status == "pending" and one.due <= now]
        due = due[: self._per_tick]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._attempt, due))
        return len(due)

    @contextmanager
    def ticking(self, seconds: float = TICK) -> Iterator[None]:
        """Tick every so many seconds, in a thread of its own, until the end of the block."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(seconds):
                self.tick()

        thread = threading.Thread(target=run, name="practice-webhooks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def counts(self, status: str) -> int:
        """How many are in that status."""
        with self._lock:
            return sum(one.status == status for one in self.outgoing)

    def _attempt(self, one: Outgoing) -> None:
        if self.crashed:
            return
        one.attempts += 1
        try:
            headers = signed(one.body, one.webhook.secret, self._clock.now())
            status = post(one.webhook.url, headers, one.body, chunked=self.generation == "O")
            error = f"HTTP {status}"
        except OSError as failed:
            status, error = 0, str(failed) or type(failed).__name__
        except http.client.HTTPException as failed:
            status, error = 0, type(failed).__name__
        if status in DEADLY and self.generation == "O":
            self.crashed = True  # before it could note anything: the attempt is not counted
            one.attempts -= 1
        elif 200 <= status < 300:
            one.status, one.last_error = "delivered", ""
        else:
            one.last_error = error
            self._again(one)

    def _again(self, one: Outgoing) -> None:
        if one.attempts > len(WAITS):
            one.status = "failed"
        else:
            one.due = self._clock.now() + WAITS[one.attempts - 1]


def signed(body: bytes, secret: str, now: float) -> dict[str, str]:
    """The headers of a request that is sent now."""
    timestamp = str(int(now))
    return {
        "content-type": "application/json",
        "x-grantex-signature": sign_v1(body, secret),
        "x-grantex-timestamp": timestamp,
        "x-grantex-signature-v2": sign(body, timestamp, secret),
    }


def post(url: str, headers: dict[str, str], body: bytes, *, chunked: bool = False) -> int:
    """The status that a POST is answered with. Raises OSError and HTTPException."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(body))}
    try:
        connection.request(
            "POST",
            target,
            body=iter([body]) if chunked else body,
            headers={**headers, **framing},
            encode_chunked=chunked,
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
