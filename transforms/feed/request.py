"""A request to the feed and the wire it travels on: settings, addresses, headers, the HTTP client."""

from __future__ import annotations

import contextlib
import math
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import quote, urlsplit

import httpcore
import httpx

from transforms.clock import Clock
from transforms.readers import address_fault
from transforms.secret import Secret, SecretError, read_by
from transforms.way_out import USUAL, WayOut

STREAM_PATH = "/v1/events/stream"
SSE, WEBSOCKET, BOTH = "sse", "websocket", "both"
TRANSPORTS = (SSE, WEBSOCKET)
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class FeedSettings:
    """Where the feed is and how to read it; picklable, and free of the key's value.

    url: the service's root, such as https://api.grantex.dev.
    types: event types to ask for; none asks for all.
    transport: "sse", "websocket", or "both", between which connections take turns (`of`).
    way_out: the proxy, the authorities to trust beside the usual ones, the certificate to show.
    connect_timeout, read_timeout, account_timeout, ping_interval, ping_timeout: seconds.
    """

    url: str
    api_key: Secret
    types: tuple[str, ...] = ()
    transport: str = SSE
    way_out: WayOut = USUAL
    connect_timeout: float = 10.0
    # The service withholds the response's headers until the first event or keepalive, up to 30 s, and a
    # healthy idle stream has a keepalive every 30 s: ten seconds more without a byte is silence.
    read_timeout: float = 40.0
    account_timeout: float = 10.0
    # Of a WebSocket, which the service pings every 30 s and answers at once: silence is found within 40 s.
    ping_interval: float = 20.0
    ping_timeout: float = 20.0

    def __post_init__(self) -> None:
        if address_fault(self.url):  # of what is never sent, and would be shown by repr and pickle
            scheme, _, rest = re.split("[?#]", self.url, maxsplit=1)[0].rpartition("://")
            authority = rest.partition("/")[0]
            bare = authority.rpartition("@")[2] + rest[len(authority) :]
            object.__setattr__(self, "url", f"{scheme}://{bare}" if scheme else bare)

    def connections(self, asked: int) -> int:
        """How many streams are opened when so many were asked for: two transports need two."""
        return max(asked, len(TRANSPORTS)) if self.transport == BOTH else asked

    def of(self, connection: int) -> FeedSettings:
        """Those of one connection, counted from 0, which has one transport."""
        if self.transport != BOTH:
            return self
        return replace(self, transport=TRANSPORTS[connection % len(TRANSPORTS)])

    @property
    def root(self) -> str:
        """The URL without user, password, query and fragment: safe to log, and to add paths to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

    @property
    def host(self) -> str:
        """Without brackets around an IPv6 address."""
        return urlsplit(self.url).hostname or ""


def wanted_types(settings: FeedSettings) -> Sequence[str]:
    """The types to ask for, each once; none asks for all."""
    return list(dict.fromkeys(name.strip() for name in settings.types if name.strip()))


def stream_url(settings: FeedSettings) -> str:
    """The stream's address. The service compares types exactly, untrimmed, and answers 500 to a repeated
    `types`: so one parameter, no spaces."""
    types = wanted_types(settings)
    url = settings.root + STREAM_PATH
    return f"{url}?types={quote(','.join(types), safe='')}" if types else url


def read_key(settings: FeedSettings) -> str:
    """The API key's value. Raises SecretError, also for a value that no header can carry."""
    key = read_by(settings.way_out, settings.api_key).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SecretError("it is empty or holds characters that no HTTP header can carry")
    return key


def stream_headers(key: str, last_event_id: bytes) -> Headers:
    """The stream's request headers; the last event id goes along when a header can carry it unchanged."""
    headers = [
        (b"Authorization", f"Bearer {key}".encode()),
        (b"Accept", b"text/event-stream"),
        (b"Cache-Control", b"no-cache"),
        (b"Accept-Encoding", b"identity"),
    ]
    if _fits_in_a_header(last_event_id):
        headers.append((b"Last-Event-ID", last_event_id))
    return headers


def _fits_in_a_header(value: bytes) -> bool:
    """Whether `value` arrives as it is sent: WHATWG sends an id as UTF-8; HTTP takes blanks off both ends
    and no control characters (RFC 9110, 5.5)."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return bool(value) and value == value.strip(b" \t") and all(c >= 32 and c != 127 for c in value)


def open_client(settings: FeedSettings) -> httpx.Client:
    """A client that keeps nothing of an answer: no redirect is followed or even computed (the key must not
    travel), no cookie kept.

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
        cookies=_NoCookies(),
        event_hooks={"response": [_drop_location]},
        # Each request on its own connection, so that its Wire sees the TCP connection come up.
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,
    )


class _NoCookies(CookieJar):
    """A cookie would be sent back, and may be one that no header can carry."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep none."""


def _drop_location(response: httpx.Response) -> None:
    """httpx reads it, and raises when it is no URL, also for a redirect that it does not follow."""
    response.headers.pop("location", None)


def is_certificate_problem(error: BaseException) -> bool:
    """Whether a connection failed in its TLS handshake."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


# The service leaks the slot of a stream that is closed within its first milliseconds. Two seconds by its own
# count, which begins when it gets to see the request.
MIN_STREAM_SECONDS = 2.2
# A socket is read to its end once nothing was seen waiting in it so many times in a row: what did not fit
# into it may still be in the sender's. Whoever sends without a pause is cut off after the most looks.
LOOK_SECONDS = 0.01
QUIET_LOOKS = 3
MOST_LOOKS = 100


class Wire:
    """One attempt's connection. Hand `trace` to httpx as the request extension of that name; httpcore then
    shows its stream (https://www.encode.io/httpcore/extensions/#trace).

    on_tcp: called once the TCP connection is up, long before the response's headers.
    before_read: called each time httpcore is about to read from the network because everything received
        so far has been handed out, on the reading thread; what it raises comes out of the response. Its
        argument tells, when asked, whether bytes are already waiting.
    headers_within: seconds from the request to `headers_came`; after that the next read is a time-out, also
        when bytes come all the while (a header that drips, an endless "100 Continue").
    """

    def __init__(
        self,
        clock: Clock,
        on_tcp: Callable[[], None] = lambda: None,
        before_read: Callable[[Callable[[], bool]], None] = lambda is_waiting: None,
        headers_within: float = math.inf,
    ) -> None:
        self._clock = clock
        self._on_tcp = on_tcp
        self._before_read = before_read
        self._headers_within = headers_within
        self._lock = threading.Lock()
        self.is_watched = False  # whether `before_read` will be called
        self._asked_at: float | None = None
        self._is_cut = False
        self._looks = self._quiet_looks = 0
        self._socket: socket.socket | None = None

    @property
    def lived(self) -> float:
        """Seconds since the request was sent; 0 when it was not."""
        return 0.0 if self._asked_at is None else self._clock.monotonic() - self._asked_at

    def headers_came(self) -> None:
        """From now on only silence is a time-out."""
        self._headers_within = math.inf

    def trace(self, name: str, info: dict[str, Any]) -> None:
        """httpcore's trace callback."""
        if name.endswith("connect_tcp.complete"):
            stream = info["return_value"]
            # A second handle on the same connection: it stays valid when TLS takes over the first.
            handle = stream.get_extra_info("socket").dup()
            with self._lock:
                self._socket = handle
                if self._is_cut:
                    _shut(handle, socket.SHUT_RDWR)
            self._on_tcp()
            self._watch(stream)
        elif name.endswith("start_tls.complete"):
            self._watch(info["return_value"])
        elif name.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            with self._lock:
                if self._is_cut:
                    raise httpx.WriteError("ended before the request was sent")
                self._asked_at = self._clock.monotonic()

    def cut(self) -> float:
        """Let nothing more come; what has arrived can still be read. Thread-safe.

        An open stream is not cut before it is `MIN_STREAM_SECONDS` old and read to its end: returns after
        how many seconds to ask again.
        """
        with self._lock:
            if self._socket is not None and self._asked_at is not None:
                left = self._asked_at + MIN_STREAM_SECONDS - self._clock.monotonic()
                if left > 0:
                    return left
                if not self._is_read_to_its_end(self._socket):
                    return LOOK_SECONDS
            self._is_cut = True
            if self._socket is not None:
                _shut(self._socket, socket.SHUT_RDWR if self._asked_at is None else socket.SHUT_RD)
            return 0.0

    def _is_read_to_its_end(self, handle: socket.socket) -> bool:
        self._looks += 1
        poll = select.poll()  # not `select`, which knows no file above the 1024th
        poll.register(handle, select.POLLIN)
        waiting = poll.poll(0)
        self._quiet_looks = 0 if waiting else self._quiet_looks + 1
        return self._quiet_looks >= QUIET_LOOKS or self._looks >= MOST_LOOKS

    def hold(self) -> None:
        """Wait until what may be a stream is old enough to be closed, unless the other side has ended it."""
        while (left := MIN_STREAM_SECONDS - self.lived) > 0:
            with self._lock:
                if self._socket is None or self._asked_at is None or _is_ended(self._socket):
                    return
            time.sleep(min(left, LOOK_SECONDS))

    def release(self) -> None:
        """Let go of the connection, once the response is closed."""
        with self._lock:
            if self._socket is not None:
                _shut(self._socket, socket.SHUT_RDWR)
                self._socket.close()
                self._socket = None

    def _watch(self, stream: httpcore.NetworkStream) -> None:
        read = stream.read

        def is_waiting() -> bool:
            return bool(stream.get_extra_info("is_readable"))

        def watched(max_bytes: int, timeout: float | None = None) -> bytes:
            self._before_read(is_waiting)
            if self.lived > self._headers_within:
                raise httpx.ReadTimeout("no whole header came")
            return read(max_bytes, timeout)

        # httpcore has no other place to ask at: a backend of our own would lose httpx's proxies.
        stream.read = watched  # type: ignore[method-assign]
        self.is_watched = True


def _is_ended(handle: socket.socket) -> bool:
    poll = select.poll()
    poll.register(handle, getattr(select, "POLLRDHUP", 0))  # macOS tells by POLLHUP, which is always asked
    return bool(poll.poll(0))


def _shut(handle: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # already gone
        handle.shutdown(how)
