"""Whose API key it is: `GET /v1/me`, asked beside the stream, which never waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import msgspec

from transforms.clock import SystemClock
from transforms.feed.reconnect import EndingKind, ending_of_error, something_in_between, why
from transforms.feed.request import FeedSettings, Wire, open_client, read_key
from transforms.preflight import Finding
from transforms.secret import SecretError, redact
from transforms.write.answer import decoded

ACCOUNT_PATH = "/v1/me"
MAX_BODY = 64 * 1024
# The service answers in milliseconds. For so long the first events are held back, lest those of another
# account are kept; their stream is open meanwhile.
PATIENCE = 1.0
_log = logging.getLogger("grantex.feed")


class AccountCheck:
    """Finds out whose key it is, once, and asks again at each attempt until that is known.

    check: called with the developer's id, on the thread that calls `confirm`; what it raises comes out there.
    """

    def __init__(self, settings: FeedSettings, check: Callable[[str], None] | None) -> None:
        self._settings = settings
        self._check = check
        self._asking: threading.Thread | None = None
        self._until = 0.0  # monotonic seconds
        self._developer_id: str | None = None

    def ask(self, client: httpx.Client, key: str) -> None:
        """Ask in a thread of its own, unless it is known or being asked; returns at once."""
        if self._check is None or (self._asking is not None and self._asking.is_alive()):
            return
        self._until = time.monotonic() + PATIENCE
        self._asking = threading.Thread(
            target=self._ask, args=(client, key), name="feed-account", daemon=True
        )
        self._asking.start()

    def confirm(self) -> None:
        """Events are about to be kept: wait a moment for the answer, and have it checked."""
        if self._check is None:
            return
        if self._asking is not None:
            self._asking.join(max(0.0, self._until - time.monotonic()))
        if self._developer_id is not None:
            self._check(self._developer_id)
            self._check = None

    def _ask(self, client: httpx.Client, key: str) -> None:
        self._developer_id = fetch_developer_id(client, self._settings, key)


@contextmanager
def _asking(client: httpx.Client, settings: FeedSettings, key: str) -> Iterator[httpx.Response]:
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", "Accept-Encoding": "identity"}
    wire = Wire(SystemClock(), headers_within=settings.account_timeout)
    try:
        with client.stream(
            "GET",
            settings.root + ACCOUNT_PATH,
            headers=headers,
            timeout=settings.account_timeout,
            extensions={"trace": wire.trace},
        ) as response:
            yield response
    finally:
        wire.release()


class _Me(msgspec.Struct):
    developerId: str


_me = msgspec.json.Decoder(_Me).decode


def _body(response: httpx.Response, until: float) -> bytes:
    """The answer, or as much of it as is read; `until`: monotonic seconds."""
    body = bytearray()
    for block in response.iter_raw():
        body += block
        if len(body) > MAX_BODY or time.monotonic() > until:
            break
    return bytes(body)


def fetch_developer_id(client: httpx.Client, settings: FeedSettings, key: str) -> str | None:
    """The `developerId` that `GET /v1/me` answers (the service's public source), or None when it cannot
    be known now: another status, no JSON, a network error, or no answer in `account_timeout` seconds."""
    until = time.monotonic() + settings.account_timeout
    try:
        with _asking(client, settings, key) as response:
            if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
                return None
            body = _body(response, until)
        return _me(body).developerId or None
    except Exception as error:  # noqa: BLE001 - whatever an answer causes, it is only not known yet
        _log.debug("whose API key it is could not be asked: %s", type(error).__name__)
        return None


def try_key(
    settings: FeedSettings, seen: Callable[[httpx.Headers, bytes], None] = lambda headers, body: None
) -> Iterator[Finding]:
    """Try the API key with `GET /v1/me`, which opens no stream: one that is closed in its first milliseconds
    costs one of the five slots. Raises nothing that a reply or a broken connection can cause.

    seen: told of the service's own answer, when it took the key.
    """
    what, where = "the API key", settings.root
    try:
        key = read_key(settings)
        with open_client(settings) as client, _asking(client, settings, key) as reply:
            status, body = reply.status_code, _body(reply, time.monotonic() + settings.account_timeout)
            in_between = something_in_between(where, status, reply.headers, body)
    except SecretError as error:
        yield Finding(what, False, f"{error}.")
    except Exception as error:  # noqa: BLE001 - whatever an answer causes, the key may still be right
        yield not_reached(settings, what, error)
    else:
        if status == 200 and decoded(_me, body) is not None:
            seen(reply.headers, body)
            yield Finding(what, True)
        elif in_between:
            yield Finding(what, None, f"{in_between}: let this program through it, or correct --feed_url.")
        elif status in (401, 403):
            cause = f"{where} refused the key (status {status}): give one that is valid as --feed_api_key."
            yield Finding(what, False, cause)
        else:
            yield Finding(what, None, f"{where} answered {status} when asked whose key it is.")


def not_reached(settings: FeedSettings, what: str, error: Exception) -> Finding:
    """What an exception of a request says of `what`: certificates and a proxy's sign-in need a person, and
    all else may pass by itself."""
    if not isinstance(error, httpx.HTTPError):  # of reading certificates, and of proxies that are none
        return Finding(what, False, f"{settings.root} could not be reached: {redact(str(error))}.")
    proxy = str(settings.way_out.proxy(settings.root) or "")
    ending = ending_of_error(error, proxy=proxy)
    passed = False if ending.kind is EndingKind.TLS or "407" in ending.detail else None
    reason = "no answer came in time" if ending.kind is EndingKind.SILENCE else why(ending)
    return Finding(what, passed, f"{settings.root} could not be reached: {reason}.")
