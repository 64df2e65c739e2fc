"""The service's delivery ledger, read politely: pages, a walk from the top, and where a time lies in them.

A row for every event of a webhook's types, written before the event is published; newest first, a hundred a
page, no filter by time, no payload (the service's public source). New rows push older ones to later pages, so
a walk from the top may see a row twice and never skips one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

from transforms import event_types, ulid
from transforms.clock import Clock, SystemClock
from transforms.feed.reconnect import something_in_between
from transforms.feed.request import FeedSettings, read_key
from transforms.proxies import ProxyError
from transforms.retry import Backoff, retry_after
from transforms.secret import SecretError, redact
from transforms.write.answer import decoded
from transforms.write.created_at import epoch_seconds
from transforms.write.over_http.connection import HttpConnection, Reply, Target

log = logging.getLogger("grantex.ledger")
WEBHOOKS = "/v1/webhooks"
PAGE_SIZE = 100  # the most that the service gives
# Rows stand in the order in which they were written, which that of their ids' times follows to within this.
SLACK = 10.0  # seconds
REMEMBERED = 4 * PAGE_SIZE  # ids of the last rows read, by which repeats are dropped
# Requests a minute are one budget of the user's own calls, our reconnects and this: a fifth is left alone.
LEFT_TO_USER = 5
MINUTE = 60.0
UNTOLD = 0.75  # seconds between requests where no header tells the budget: four fifths of the smallest plan's
AGAIN = Backoff(base=1.0, cap=30.0)
T = TypeVar("T")


class LedgerError(Exception):
    """The ledger cannot be read now. The message says why and what to do."""


class LedgerGone(LedgerError):
    """There is no such webhook, or not of this key: its ledger died with it."""


class Stopped(Exception):
    """Whoever reads was told to stop."""


class Webhook(msgspec.Struct, frozen=True):
    """A registered webhook, as the service lists it."""

    id: str
    url: str = ""
    events: tuple[str, ...] = ()
    createdAt: str = ""

    @property
    def created_at(self) -> float:
        """Epoch seconds; 0 when it is not told."""
        return epoch_seconds(self.createdAt)

    def covers(self, event_type: str) -> bool:
        """Whether the ledger has rows of this type."""
        return event_type in self.events or "*" in self.events

    def lacks(self, types: Sequence[str]) -> list[str]:
        """Those of `types`, of all known ones when there are none, that the ledger has no rows of."""
        return [each for each in types or sorted(event_types.KNOWN) if not self.covers(each)]


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One row: an event that the service published."""

    eventId: str
    eventType: str = ""
    createdAt: str = ""

    @property
    def at(self) -> float:
        """When the event was made, by its id; else when the row was written. Epoch seconds."""
        packed = ulid.pack(self.eventId)
        return self.written_at if packed is None else ulid.seconds(packed)

    @property
    def written_at(self) -> float:
        """When the row was written; 0 when it is not told. Epoch seconds."""
        return epoch_seconds(self.createdAt)


class Page(msgspec.Struct, frozen=True):
    """A page, newest first. `total`: rows in all."""

    deliveries: tuple[Delivery, ...]
    total: int
    pageSize: int = PAGE_SIZE


class _Webhooks(msgspec.Struct):
    webhooks: tuple[Webhook, ...]


_page = msgspec.json.Decoder(Page).decode
_webhooks = msgspec.json.Decoder(_Webhooks | tuple[Webhook, ...]).decode  # type: ignore[operator]


class Ledger:
    """Reads the ledger over one kept connection. For one thread; `close` may come from any.

    stop: ends every wait. tries: of a request that is not answered, before LedgerError. on_wait: told before
    each wait for the rate limit, of its seconds.
    """

    def __init__(
        self,
        settings: FeedSettings,
        *,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
        tries: int = 3,
        on_wait: Callable[[float], None] = lambda seconds: None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.requests = 0
        self.ahead = 0.0  # seconds that the service's clock is ahead of ours, by its last answer
        self._settings, self._tries, self._on_wait, self._uniform = settings, tries, on_wait, uniform
        self._clock = clock or SystemClock()
        self._stop = stop or threading.Event()
        self._connection: HttpConnection | None = None
        self._key = ""
        self._free_at = -math.inf  # monotonic: when the next request may be sent

    def webhooks(self) -> Sequence[Webhook]:
        """The webhooks of this key. Raises LedgerError, Stopped."""
        found = self._get(WEBHOOKS, _webhooks)
        return found.webhooks if isinstance(found, _Webhooks) else found

    def page(self, webhook_id: str, number: int) -> Page:
        """One page, counted from 1. Raises LedgerError, Stopped."""
        path = f"{WEBHOOKS}/{quote(webhook_id, safe='')}/deliveries?page={number}&pageSize={PAGE_SIZE}"
        page: Page = self._get(path, _page)
        if page.pageSize < 1:
            raise LedgerError(
                f"{self._settings.root} answered a page of {page.pageSize} rows: that is no ledger"
            )
        return page

    def walk(self, webhook_id: str, first: int = 1) -> Iterator[Sequence[Delivery]]:
        """The rows from page `first` on, a page at a time, newest first and without repeats, to the oldest.
        Raises LedgerError, Stopped."""
        number, older = first, math.inf  # rows that are older than what was read: their number never grows
        seen: dict[str, None] = {}
        while True:
            page = self.page(webhook_id, number)
            yield [each for each in page.deliveries if each.eventId not in seen]
            seen |= dict.fromkeys([each.eventId for each in page.deliveries])
            for event_id in list(seen)[: max(0, len(seen) - REMEMBERED)]:
                del seen[event_id]
            if len(page.deliveries) < page.pageSize:
                return
            older = min(older, page.total - number * page.pageSize)
            # After a wait, whole pages may have been pushed down: those are passed over, but for one (the
            # total may have been counted a moment before the rows were read).
            number = max(number + 1, int(page.total - older) // page.pageSize)

    def page_before(self, webhook_id: str, until: float) -> int:
        """A page that all rows of up to `until` (epoch seconds) stand behind, near the last such: it is newer
        as a whole and stays so, as rows only move to later pages; 1 when there is none. Raises as `page`."""
        page = self.page(webhook_id, 1)
        if not self._is_newer(page, until):
            return 1
        newer, other = 1, page.total // page.pageSize + 1
        while other - newer > 1:
            middle = (newer + other) // 2
            if self._is_newer(self.page(webhook_id, middle), until):
                newer = middle
            else:
                other = middle
        return newer

    def close(self) -> None:
        """Let go; a request that hangs in another thread fails at once."""
        if self._connection is not None:
            self._connection.close()

    @staticmethod
    def _is_newer(page: Page, until: float) -> bool:
        return bool(page.deliveries) and min(each.at for each in page.deliveries) > until + SLACK

    # Requests

    def _get(self, path: str, decode: Callable[[bytes], T]) -> T:
        failures = 0
        while True:
            self._wait(self._free_at - self._clock.monotonic())
            try:
                reply = self._ask(path)
            except (httpx.TransportError, OSError, SecretError, ProxyError) as error:
                why = (
                    f"{self._settings.root} could not be asked ({redact(str(error)) or type(error).__name__})"
                )
            else:
                if reply.status == 429:
                    wait = retry_after(reply.headers, self._clock.now()) or MINUTE
                    self._free_at = max(self._free_at, self._clock.monotonic() + wait)
                    continue
                if reply.status == 200 and (found := decoded(decode, reply.body)) is not None:
                    return found
                why, is_final = self._refused(reply, path)
                if is_final:
                    raise LedgerGone(why) if reply.status == 404 else LedgerError(why)
            failures += 1
            if failures >= self._tries:
                raise LedgerError(why)
            self._wait(AGAIN.seconds(failures, self._uniform))

    def _ask(self, path: str) -> Reply:
        if self._connection is None:
            self._connection = HttpConnection(self._settings.root, {}, self._settings.way_out)
        prefix = httpx.URL(self._settings.root).raw_path.rstrip(b"/")
        for attempt in range(2):
            self._key = self._key or read_key(self._settings)
            headers = {"Authorization": f"Bearer {self._key}", "Accept": "application/json"}
            reply = self._connection.post(b"", Target(prefix + path.encode(), headers, "GET"))
            self.requests += 1
            self._note(reply.headers)
            if reply.status != 401 or attempt:
                break
            old, self._key = self._key, ""
            if read_key(self._settings) == old:
                break
        return reply

    def _note(self, headers: Mapping[str, str]) -> None:
        """When the next request may be sent, and what time it is there."""
        now = self._clock.monotonic()
        limit, left, reset = (
            _number(headers, f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")
        )
        if limit is None or left is None:
            self._free_at = now + UNTOLD
        elif left * LEFT_TO_USER <= limit:
            self._free_at = now + self._until(reset)
        with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
            theirs = parsedate_to_datetime(headers.get("date", "")).timestamp()
            self.ahead = theirs - self._clock.now()

    def _until(self, reset: float | None) -> float:
        """Seconds until the budget is full again: `X-RateLimit-Reset` is seconds from now, or a time."""
        if reset is None:
            return MINUTE
        if reset > 1e9:
            reset -= self._clock.now() + self.ahead
        return min(max(reset, 0.0), MINUTE) + self._uniform(0.0, 1.0)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._on_wait(seconds)
            self._clock.wait(self._stop, seconds)
        if self._stop.is_set():
            raise Stopped

    def _refused(self, reply: Reply, path: str) -> tuple[str, bool]:
        """Why it was not answered, and whether another try is no use."""
        root, status = self._settings.root, reply.status
        if other := something_in_between(root, status, reply.headers, reply.body):
            return other, False
        if status in (401, 403):
            return (
                f"{root} refused the key (status {status}): give one that may read webhooks",
                True,
            )
        if status == 404:
            webhook = path.removeprefix(WEBHOOKS).split("/")[1] if path.count("/") > 3 else "its webhooks"
            return (
                f"{root} knows no webhook {webhook} of this key, and the ledger of a deleted one is gone: "
                "name another with --ledger_webhook, or register one with `grantex-beam provision feed`"
            ), True
        return f"{root} answered {status} when asked for its delivery ledger", False


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(headers.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def choose(webhooks: Sequence[Webhook], wanted: str, own_url: str = "") -> Webhook:
    """The webhook whose ledger is read: the one of that id; for `auto` our own receiver's, else the one of
    most types, else the oldest. Raises LedgerError when there is none."""
    if wanted != "auto":
        for each in webhooks:
            if each.id == wanted:
                return each
        known = ", ".join(each.id for each in webhooks) or "none"
        raise LedgerGone(f"the service knows no webhook {wanted} of this key; it knows: {known}")
    if not webhooks:
        raise LedgerGone(
            "the service keeps a ledger for webhooks only, and this key has none: register one with "
            "`grantex-beam provision feed`"
        )
    return max(webhooks, key=lambda each: (each.url == own_url, len(each.events), -each.created_at))
