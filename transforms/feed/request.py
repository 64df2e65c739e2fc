"""What is asked of the service: its settings, addresses and headers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpcore
import httpx
import msgspec

from transforms.preflight import Finding
from transforms.secret import Secret, SecretError, redact
from transforms.way_out import USUAL, WayOut

STREAM_PATH = "/v1/events/stream"
ACCOUNT_PATH = "/v1/me"


@dataclass(frozen=True)
class FeedSettings:
    """Where the feed is and how to read it; picklable, and free of the key's value.

    url: the service's root, such as https://api.grantex.dev.
    types: event types to ask for; none asks for all.
    way_out: the proxy, the authorities to trust beside the usual ones, the certificate to show.
    connect_timeout, read_timeout, account_timeout: seconds.
    """

    url: str
    api_key: Secret
    types: tuple[str, ...] = ()
    way_out: WayOut = USUAL
    connect_timeout: float = 10.0
    # The service withholds the response's headers until the first event or keepalive, up to 30 s, and a
    # healthy idle stream has a keepalive every 30 s: two and a half of them without a byte is silence.
    read_timeout: float = 75.0
    account_timeout: float = 10.0

    @property
    def root(self) -> str:
        """The URL without user, password, query and fragment: safe to log, and to add paths to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def stream_url(settings: FeedSettings) -> str:
    """The stream's address. The service compares types exactly, untrimmed, and answers 500 to a repeated
    `types`: so one parameter, no spaces."""
    types = dict.fromkeys(name.strip() for name in settings.types if name.strip())
    url = settings.root + STREAM_PATH
    return f"{url}?types={quote(','.join(types), safe='')}" if types else url


def read_key(settings: FeedSettings) -> str:
    """The API key's value. Raises SecretError, also for a value that no header can carry."""
    key = settings.api_key.read().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SecretError("it is empty or holds characters that no HTTP header can carry")
    return key


def stream_headers(key: str, last_event_id: str) -> dict[str, str]:
    """The stream's request headers; the last event id goes along when a header can carry it."""
    headers = {
        "Authorization": f"Bearer {key}",
        "Accept": "text/event-stream",
        "Cache-Control": "no-store",
        "Accept-Encoding": "identity",
    }
    if last_event_id and last_event_id.isprintable():
        headers["Last-Event-ID"] = last_event_id
    return headers


def open_client(settings: FeedSettings) -> httpx.Client:
    """A client that never follows a redirect (the key must not travel).

    Raises OSError (ssl.SSLError included) when an authority or a certificate cannot be read, ProxyError for a
    proxy that is none, and SecretError when its password is not of this process.
    """
    proxy = settings.way_out.proxy(settings.root)
    timeout = httpx.Timeout(settings.connect_timeout, read=settings.read_timeout)
    return httpx.Client(
        verify=settings.way_out.tls() if settings.root.startswith("https:") else False,
        proxy=None if proxy is None else httpx.Proxy(proxy.url, auth=proxy.login()),
        timeout=timeout,
        follow_redirects=False,
        # Each request on its own connection, so that its Wire sees the TCP connection come up.
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,
    )


def is_certificate_problem(error: BaseException) -> bool:
    """Whether a connection failed in its TLS handshake."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


MAX_BODY = 64 * 1024


class _Me(msgspec.Struct):
    developerId: str


def fetch_developer_id(
    client: httpx.Client, settings: FeedSettings, key: str, extensions: dict[str, Any] | None = None
) -> str | None:
    """The `developerId` that `GET /v1/me` answers (the service's public source), or None when it cannot
    be known now: another status, no JSON, a network error, or no answer in `account_timeout` seconds."""
    until = time.monotonic() + settings.account_timeout
    try:
        with client.stream(
            "GET",
            settings.root + ACCOUNT_PATH,
            headers=_account_headers(key),
            timeout=settings.account_timeout,
            extensions=extensions,
        ) as response:
            if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
                return None
            body = bytearray()
            for block in response.iter_raw():
                body += block
                if len(body) > MAX_BODY or time.monotonic() > until:
                    return None
        return msgspec.json.decode(body, type=_Me).developerId or None
    except (httpx.HTTPError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _account_headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Accept": "application/json", "Accept-Encoding": "identity"}


def try_key(settings: FeedSettings) -> Iterator[Finding]:
    """Try the API key with `GET /v1/me`, which opens no stream: one that is closed in its first milliseconds
    costs one of the five slots. Raises nothing that a reply or a broken connection can cause."""
    what, where = "the API key", settings.root
    try:
        key = read_key(settings)
        with open_client(settings) as client:
            reply = client.get(
                where + ACCOUNT_PATH, headers=_account_headers(key), timeout=settings.account_timeout
            )
    except SecretError as error:
        yield Finding(what, False, f"{error}.")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        yield Finding(
            what, None, f"{where} could not be reached ({redact(str(error)) or type(error).__name__})."
        )
    else:
        if reply.status_code == 200:
            yield Finding(what, True)
        elif reply.status_code in (401, 403):
            yield Finding(
                what, False, f"{where} refused the key (status {reply.status_code}): give one that is valid."
            )
        else:
            yield Finding(what, None, f"{where} answered {reply.status_code} when asked whose key it is.")


class Wire:
    """Hand `trace` to httpx as the request extension of that name; httpcore then shows its stream
    (https://www.encode.io/httpcore/extensions/#trace).

    on_tcp: called once the TCP connection is up, long before the response's headers.
    before_read: called each time httpcore is about to read from the network because everything received
        so far has been handed out, on the reading thread; what it raises comes out of the response. The
        argument says whether bytes are already waiting.
    """

    def __init__(
        self,
        on_tcp: Callable[[], None] = lambda: None,
        before_read: Callable[[bool], None] = lambda waiting: None,
    ) -> None:
        self._on_tcp = on_tcp
        self._before_read = before_read
        self._lock = threading.Lock()
        self.is_watched = False  # whether `before_read` will be called
        self._is_cut = False
        self._socket: socket.socket | None = None

    def trace(self, name: str, info: dict[str, Any]) -> None:
        """httpcore's trace callback."""
        if name.endswith("connect_tcp.complete"):
            stream = info["return_value"]
            # A second handle on the same connection: it stays valid when TLS takes over the first.
            handle = stream.get_extra_info("socket").dup()
            with self._lock:
                self._socket = handle
                if self._is_cut:
                    _shut(handle)
            self._on_tcp()
            self._watch(stream)
        elif name.endswith("start_tls.complete"):
            self._watch(info["return_value"])

    def cut(self) -> None:
        """End every read and write on the connection at once, also one that is yet to come; thread-safe."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                _shut(self._socket)

    def release(self) -> None:
        """Let go of the connection, once the response is closed."""
        with self._lock:
            if self._socket is not None:
                _shut(self._socket)
                self._socket.close()
                self._socket = None

    def _watch(self, stream: httpcore.NetworkStream) -> None:
        read = stream.read

        def watched(max_bytes: int, timeout: float | None = None) -> bytes:
            self._before_read(bool(stream.get_extra_info("is_readable")))
            return read(max_bytes, timeout)

        # httpcore has no other place to ask at: a backend of our own would lose httpx's proxies.
        stream.read = watched  # type: ignore[method-assign]
        self.is_watched = True


def _shut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already gone
        handle.shutdown(socket.SHUT_RDWR)
