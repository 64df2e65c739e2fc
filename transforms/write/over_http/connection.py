"""One kept-alive HTTP connection that posts cheaply and can be closed from another thread; its credential."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

import httpx
from isal import isal_zlib

from transforms.proxies import Proxy, host_and_port
from transforms.secret import Secret, SecretError, read_by, usable
from transforms.way_out import USUAL, WayOut
from transforms.write.failure import is_credential
from transforms.write.over_http.reply import Incoming, Reply, receive
from transforms.write.over_http.sockets import dial, has_news, interrupt, send

__all__ = ["HttpConnection", "Reply", "gzip"]
# An address that does not complete a handshake within 5 s is down; waiting longer only delays saying so.
CONNECT_SECONDS = 5.0
# For one write that makes no progress at all, not for the whole request.
WRITE_SECONDS = 30.0
# Splunk drops idle connections after 12 s (`busyKeepAliveIdleTimeout`), most others later: leaving first
# avoids the race in which a request is sent into a connection that is being closed.
IDLE_SECONDS = 10.0
CLOSED = "the connection was closed by this program"
# A proxy may itself wait for the host to be connected.
TUNNEL_SECONDS = 2 * CONNECT_SECONDS
# What a header's value may be (RFC 9110, 5.5); anything else could end the header and begin another.
_VALUE = re.compile(r"[!-~]([ -~\t]*[!-~])?")
# Level 1 of python-isal on 1 MB of events: 1.6 ms at ratio 3.7, where zlib takes 12.9 ms at level 1
# (ratio 3.5) and 20.6 ms at level 6 (3.95). Level 0 saves nothing (1.6 ms at 2.4), 3 costs 4.3 ms.
GZIP_LEVEL = 1
GZIP_WINDOW = 31  # 32 KiB window, gzip header and trailer


def gzip(body: bytes) -> bytes:
    """`body` as one gzip member, the same bytes each time."""
    packer = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    return bytes(packer.compress(body) + packer.flush())


@functools.cache  # importlib reads the file of our version at each call: 1 ms
def user_agent() -> str:
    try:
        return f"grantex-beam/{version('grantex-beam')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "grantex-beam/0"


class Target:
    """What requests to one path are sent with."""

    def __init__(self, path: bytes, headers: Mapping[str, str], method: str = "POST") -> None:
        self.method = method
        self.path = path
        self.headers = {"User-Agent": user_agent(), "Accept-Encoding": "identity", **headers}
        self.head = b""  # made once, until a header changes


class HttpConnection:
    """Posts to one service over one connection, for one thread at a time; `close` may come from any thread.

    It speaks HTTP/1.1 itself: a request costs 0.05 ms of CPU, against 0.18 ms through http.client and 0.51 ms
    through `httpx.Client`, which at 100 events a batch was a seventh of all CPU. Redirects and cookies are
    not followed.

    Nothing is ever sent twice in here. A kept-alive connection that the server has closed is replaced before
    it is used; when the close and our request cross, nobody can tell whether the request was read, so that
    is an error like any other and the caller counts the second attempt as a possible repeat.

    seconds: that a reply may take, whatever comes meanwhile; None is REPLY_SECONDS.

    Raises OSError when an authority or certificate cannot be read (ssl.SSLError when it is none), ProxyError
    for a proxy that is none, and httpx.UnsupportedProtocol for a URL that is neither http nor https.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], way_out: WayOut = USUAL, seconds: float | None = None
    ) -> None:
        self._url = httpx.URL(url)
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise httpx.UnsupportedProtocol("the URL must begin with http:// or https:// and name a host")
        self.way_out = way_out
        self._proxy = way_out.proxy(url)
        self._tls = way_out.tls() if self._url.scheme == "https" else None
        self._seconds = seconds
        self._targets = [Target(self._url.raw_path, headers)]
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._incoming: Incoming | None = None
        self._used_at = 0.0
        self._busy = False
        self._closed = False

    def set_header(self, name: str, value: str) -> None:
        """Send `value` from the next request on, to whatever path."""
        for target in self._targets:
            target.headers[name] = value
            target.head = b""

    def beside(self, path: str, headers: Mapping[str, str], method: str = "POST") -> Target:
        """Another path of the same service (relative to the URL, or from the root), for `post`: over the
        same connection, with its own headers and those that `set_header` sets from now on."""
        target = Target(self._url.join(path).raw_path, headers, method)
        self._targets.append(target)
        return target

    def post(self, body: bytes, target: Target | None = None) -> Reply:
        """Send `body` once, to the URL or to another target. Raises httpx.TransportError when no status
        line came back."""
        with self._lock:
            if self._closed:
                raise httpx.ConnectError(CLOSED)
            self._busy = True
        try:
            return self._exchange(body, target or self._targets[0])
        finally:
            with self._lock:
                self._busy = False
                closed = self._closed
            if closed:
                self._drop()

    def close(self) -> None:
        """Let go of the connection. A `post` that hangs in another thread fails at once, unless it is looking
        up the host's name, which nothing can interrupt."""
        with self._lock:
            self._closed = True
            busy = self._busy
            if busy and self._socket is not None:
                interrupt(self._socket)
        if not busy:
            self._drop()

    def _exchange(self, body: bytes, target: Target) -> Reply:
        head = target.head or self._new_head(target)
        incoming = self._usable() or self._connect()
        reply: Reply | None = None
        try:
            assert self._socket is not None
            self._socket.settimeout(WRITE_SECONDS)
            send(self._socket, b"%bContent-Length: %d\r\n\r\n" % (head, len(body)), body)
            reply = receive(incoming)
        finally:
            if reply is None or not reply.again:
                self._drop()
        if reply.status == 407 and self._proxy is not None:
            raise httpx.ProxyError(f"the proxy {self._proxy} answered 407 to the request")
        self._used_at = time.monotonic()
        return reply

    def _new_head(self, target: Target) -> bytes:
        """Request line and headers but for the length. Raises httpx.LocalProtocolError for a value that
        would not be a header; it is not shown, as it may be a secret. Raises SecretError for a proxy's."""
        path, headers = target.path, target.headers
        if self._proxy is not None and self._tls is None:  # the proxy sends it on
            path = b"http://%b%b" % (self._url.netloc, path)
            headers = {**headers, **self._proxy.headers()}
        lines = [b"%b %b HTTP/1.1" % (target.method.encode(), path), b"Host: %b" % self._url.netloc]
        for name, value in headers.items():
            if not _VALUE.fullmatch(value):
                raise httpx.LocalProtocolError(f"the value of {name} cannot be sent as a header")
            lines.append(f"{name}: {value}".encode())
        target.head = b"\r\n".join([*lines, b""])
        return target.head

    def _usable(self) -> Incoming | None:
        """The kept connection, unless it is old or the server has closed it (or sent what nobody asked)."""
        connection = self._socket
        if connection is None:
            return None
        unread = connection.pending() if isinstance(connection, ssl.SSLSocket) else 0
        if time.monotonic() - self._used_at < IDLE_SECONDS and not unread and not has_news(connection):
            return self._incoming
        self._drop()
        return None

    def _connect(self) -> Incoming:
        """Raises httpx.ConnectTimeout, ConnectError, ProxyError, and SecretError for a proxy's password."""
        host = self._url.raw_host.decode("ascii")
        port = self._url.port or (443 if self._tls else 80)
        proxy = self._proxy
        through = f" through the proxy {proxy}" if proxy else ""
        try:
            first = (proxy.host, proxy.port) if proxy else (host, port)
            connection = dial(*first, CONNECT_SECONDS, self._hold)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                if proxy:
                    tunnel(connection, proxy, host, port)
                connection = self._secured(connection, self._tls, host)
        except (httpx.ProxyError, SecretError):
            self._drop()
            raise
        except TimeoutError as error:
            self._drop()
            raise httpx.ConnectTimeout(f"no connection{through} within {CONNECT_SECONDS:.0f} s") from error
        except OSError as error:
            self._drop()
            raise httpx.ConnectError(f"no connection{through}: {error}" if proxy else str(error)) from error
        self._incoming = incoming = Incoming(connection, self._seconds)
        return incoming

    def _secured(self, connection: socket.socket, tls: ssl.SSLContext, host: str) -> socket.socket:
        # A certificate's names are without the dot that may end a full one.
        name = host.rstrip(".")
        secured = tls.wrap_socket(connection, server_hostname=name, do_handshake_on_connect=False)
        self._hold(secured)
        secured.settimeout(CONNECT_SECONDS)
        secured.do_handshake()
        return secured

    def _hold(self, connection: socket.socket) -> None:
        """Where `close` finds the socket. Raises ConnectionAbortedError when it has been already."""
        with self._lock:
            self._socket = connection
            if self._closed:
                raise ConnectionAbortedError(CLOSED)

    def _drop(self) -> None:
        """Close the connection; the next request makes a new one."""
        with self._lock:
            connection, self._socket = self._socket, None
        self._incoming = None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def tunnel(connection: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Have `proxy` at the other end of `connection` pass on whatever follows to `host`.

    Raises httpx.ProxyError, with what it answered, and SecretError for its password.
    """
    target = host_and_port(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {user_agent()}"]
    lines += [f"{name}: {value}" for name, value in proxy.headers().items()]
    incoming = Incoming(connection, TUNNEL_SECONDS)
    try:
        send(connection, "\r\n".join([*lines, "", ""]).encode("ascii"))
        reply = receive(incoming, "CONNECT")
    except httpx.TransportError as error:
        raise httpx.ProxyError(f"the proxy {proxy} did not pass us on to {target}: {error}") from error
    if not 200 <= reply.status < 300:
        raise httpx.ProxyError(f"the proxy {proxy} answered {reply.status} when asked for {target}")
    if incoming.rest:
        raise httpx.ProxyError(f"the proxy {proxy} sent more than its answer when asked for {target}")


def by_status(reply: Reply) -> bool:
    """Whether a reply's status says that the credential was refused."""
    return is_credential(reply.status)


class Credential:
    """Posts over `connection` with the secret in `header`, behind `prefix`.

    what: the secret in plain words, for errors. is_refused: whether a reply refuses it.
    """

    def __init__(
        self,
        connection: HttpConnection,
        secret: Secret,
        what: str,
        header: str,
        prefix: str = "",
        is_refused: Callable[[Reply], bool] = by_status,
    ) -> None:
        self._connection = connection
        self._secret = secret
        self._what = what
        self._header = header
        self._prefix = prefix
        self._is_refused = is_refused
        self._value = ""

    def post(self, body: bytes, target: Target | None = None) -> Reply:
        """Post once; a second time only after a refused secret that has meanwhile been replaced.

        Raises SecretError, and httpx.TransportError when no status line came back.
        """
        if not self._value:
            self._read()
        reply = self._connection.post(body, target)
        if self._is_refused(reply) and self._read():
            reply = self._connection.post(body, target)
        return reply

    def _read(self) -> bool:
        """Read the secret again; True when it is another one. Raises SecretError, never with the value."""
        value = usable(read_by(self._connection.way_out, self._secret), self._what)
        if value == self._value:
            return False
        self._value = value
        self._connection.set_header(self._header, f"{self._prefix}{value}")
        return True
