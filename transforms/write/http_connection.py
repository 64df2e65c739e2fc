"""One kept-alive HTTP connection that posts bodies cheaply and can be closed from another thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx
from isal import isal_zlib

# An address that does not complete a handshake within 5 s is down; waiting longer only delays saying so.
CONNECT_SECONDS = 5.0
# Both are for one read or write that makes no progress at all, not for the whole request. A receiver with
# full queues may sit on a request for a while before it says "busy", and each time-out is a possible
# repeat: 30 s is what load balancers in front of such services give it (AWS: 60 s, nginx: 60 s).
WRITE_SECONDS = 30.0
READ_SECONDS = 30.0
# Splunk drops idle connections after 12 s (`busyKeepAliveIdleTimeout`), most others later: leaving first
# avoids the race in which a request is sent into a connection that is being closed.
IDLE_SECONDS = 10.0
# Replies of these services are a line of JSON; the rest of a proxy's page tells nobody anything.
MAX_REPLY = 64 * 1024

# Level 1 of python-isal on 1 MB of events: 1.6 ms at ratio 3.7, where zlib takes 12.9 ms at level 1
# (ratio 3.5) and 20.6 ms at level 6 (3.95). Level 0 saves nothing (1.6 ms at 2.4), 3 costs 4.3 ms.
GZIP_LEVEL = 1
GZIP_WINDOW = 31  # 32 KiB window, gzip header and trailer


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered. `body` is cut at MAX_REPLY, and short when the connection broke in it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def gzip(body: bytes) -> bytes:
    """`body` as one gzip member, the same bytes each time."""
    packer = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    return bytes(packer.compress(body) + packer.flush())


def user_agent() -> str:
    try:
        return f"grantex-beam/{version('grantex-beam')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "grantex-beam/0"


class HttpConnection:
    """Posts to one URL over one connection, for one thread at a time; `close` may come from any thread.

    It hands a prepared request to httpx's transport: 0.22 ms of CPU a request against 0.51 ms through
    `httpx.Client`. Redirects, cookies and proxies of the environment are therefore not followed.

    Nothing is ever sent twice in here. httpcore drops a kept-alive connection that the server has closed
    before it is used again; when the close and our request cross, nobody can tell whether the request was
    read, so that is an error like any other and the caller counts the second attempt as a possible repeat.

    Raises OSError when `ca_file` cannot be read (ssl.SSLError when it holds no certificate).
    """

    def __init__(self, url: str, headers: Mapping[str, str], ca_file: str | None = None) -> None:
        self._request = httpx.Request(
            "POST",
            url,
            headers={"User-Agent": user_agent(), "Accept-Encoding": "identity", **headers},
            extensions={
                "timeout": {
                    "connect": CONNECT_SECONDS,
                    "write": WRITE_SECONDS,
                    "read": READ_SECONDS,
                    "pool": CONNECT_SECONDS,
                },
                "trace": self._trace,
            },
        )
        self._transport = httpx.HTTPTransport(
            verify=trust(self._request.url.scheme, ca_file),
            limits=httpx.Limits(
                max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS
            ),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._busy = False
        self._closed = False

    def set_header(self, name: str, value: str) -> None:
        """Send `value` from the next request on."""
        self._request.headers[name] = value

    def post(self, body: bytes) -> Reply:
        """Send `body` once. Raises httpx.TransportError when no status line came back."""
        with self._lock:
            if self._closed:
                raise httpx.ConnectError("the connection was closed by this program")
            self._busy = True
        try:
            return self._send(body)
        finally:
            with self._lock:
                self._busy = False
                closed = self._closed
            if closed:
                self._transport.close()

    def close(self) -> None:
        """Let go of the connection. A `post` that hangs in another thread fails at once."""
        with self._lock:
            self._closed = True
            busy = self._busy
            if busy and self._socket is not None:
                interrupt(self._socket)
        if not busy:
            self._transport.close()

    def _send(self, body: bytes) -> Reply:
        request = self._request
        request.headers["Content-Length"] = str(len(body))
        request.stream = httpx.ByteStream(body)
        response = self._transport.handle_request(request)
        parts: list[bytes] = []
        try:
            size = 0
            for part in response.iter_raw():
                parts.append(part)
                size += len(part)
                if size >= MAX_REPLY:
                    break
        except httpx.TransportError:
            pass  # the status line has said it all: a 2xx is a delivery even when its body never came
        finally:
            response.close()
        return Reply(response.status_code, response.headers, b"".join(parts)[:MAX_REPLY])

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore's public way to see its socket, which `close` has to reach."""
        if not event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            return
        with self._lock:
            self._socket = info["return_value"].get_extra_info("socket")
            if self._closed and self._socket is not None:
                interrupt(self._socket)


def interrupt(connection: socket.socket) -> None:
    """Wake whoever reads or writes on `connection`. The base class's method, because the TLS one would
    take the TLS state away under the other thread."""
    with contextlib.suppress(OSError):  # the peer has gone already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def trust(scheme: str, ca_file: str | None) -> ssl.SSLContext:
    """Whom to believe: the usual authorities and those in `ca_file`; nobody for plain HTTP, where reading
    the bundle would cost 20 ms for nothing."""
    if scheme != "https":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx.create_ssl_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
