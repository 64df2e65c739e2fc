"""The local status server: the page, its /status.json, /metrics, /healthz and /readyz."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

from pipelines.local.metrics import exposition
from pipelines.local.snapshot import Look, Snapshot
from pipelines.local.status_json import status_json

log = logging.getLogger("grantex.status")

PLAIN = "text/plain; charset=utf-8"
REQUEST_SECONDS = 10.0  # for a client to send its request and to read the answer, in all
# A scraper, a browser and two probes are a handful. One more ends the oldest, which hangs most likely.
MOST_CONNECTIONS = 32

# The page loads nothing from elsewhere, and nobody may frame it or read it from another origin.
SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Answer = tuple[int, str, bytes]  # status, content type, body


class PortTaken(Exception):
    """Nobody else may listen on the status port."""


class StatusServer:
    """Serves snapshots on a port of its own until it is closed."""

    def __init__(
        self, host: str, port: int, look: Look, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Bind to `host` and `port` (0: any free one). Raises PortTaken.

        look: takes a snapshot; called in the server's threads.
        """
        kind = _Server6 if ":" in host else _Server
        try:
            self._server = kind((host, port), _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise PortTaken(_why_not(host, port, error)) from error
        self._server.look, self._server.monotonic = look, monotonic
        self._server.only_loopback = is_loopback(str(self._server.server_address[0]))
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _why_not(host: str, port: int, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {port} is taken on {host}: another process listens there"
    return f"{host}:{port} cannot be listened on ({getattr(error, 'strerror', None) or error})"


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are at most MOST_CONNECTIONS, each for REQUEST_SECONDS:
    a time-out for each read alone would let a client that sends a byte now and then stay for ever."""

    daemon_threads = True
    look: Look
    monotonic: Callable[[], float]
    only_loopback = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._since: dict[socket.socket, float] = {}  # of open connections, the oldest first
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._since[request] = self.monotonic()
            while len(self._since) > MOST_CONNECTIONS:
                self._end_oldest()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called twice a second: end what has had its time."""
        with self._lock:
            late = self.monotonic() - REQUEST_SECONDS
            while next(iter(self._since.values()), math.inf) <= late:
                self._end_oldest()

    def _end_oldest(self) -> None:
        """Wake its thread, which closes it. Not closed yet: that comes after `shutdown_request`."""
        connection = next(iter(self._since))
        del self._since[connection]
        with contextlib.suppress(OSError):  # the client was faster
            connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, or a last look while the job ends, is nothing to print."""
        log.debug("a status request failed", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "grantex-beam"
    sys_version = ""
    timeout = REQUEST_SECONDS
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = PLAIN

    def do_GET(self) -> None:
        self._answer(*self._find())

    do_HEAD = do_GET

    def _find(self) -> Answer:
        if self.server.only_loopback and not names_loopback(self.headers.get("Host")):
            # A web page elsewhere could make its own name point here and then read the answers.
            return 421, PLAIN, b"ask for this page as 127.0.0.1 or localhost\n"
        path = self.path.partition("?")[0]
        if path in _FILES:
            return _FILES[path]
        page = _PAGES.get(path)
        return page(self.server.look()) if page else _NOT_FOUND

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in SAFE.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and reachable from nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_loopback(header: str | None) -> bool:
    """Whether a Host header names this machine. A browser always sends one; what sends none is no browser."""
    if header is None:
        return True
    try:
        return is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def _status_json(snapshot: Snapshot) -> Answer:
    return 200, "application/json", status_json(snapshot)


def _metrics(snapshot: Snapshot) -> Answer:
    return 200, CONTENT_TYPE_LATEST, exposition(snapshot)


def _healthz(snapshot: Snapshot) -> Answer:
    """Alive for as long as the books balance and no lane fails again and again: an outage elsewhere is no
    reason to be restarted."""
    wrong = [item.name for item in snapshot.destinations if not item.books.balanced]
    if wrong:
        return 500, PLAIN, f"the books do not balance for {', '.join(wrong)}\n".encode()
    failing = [item.name for item in snapshot.destinations if item.keeps_failing]
    if failing:
        return 500, PLAIN, f"restarting again and again: {', '.join(failing)}\n".encode()
    return 200, PLAIN, b"ok\n"


def _readyz(snapshot: Snapshot) -> Answer:
    """Ready: the feed is live, so events are being received."""
    if snapshot.live:
        return 200, PLAIN, b"ready\n"
    doing = "; ".join(f"{status.phase.value} {status.why}".strip() for status in snapshot.connections)
    return 503, PLAIN, f"the feed is not live: {doing or 'stopped'}\n".encode()


def _file(name: str, content_type: str) -> Answer:
    return 200, content_type, (resources.files("pipelines.local") / "page" / name).read_bytes()


_NOT_FOUND: Answer = (404, PLAIN, b"here are /, /status.json, /metrics, /healthz and /readyz\n")
_FILES: dict[str, Answer] = {
    "/": _file("index.html", "text/html; charset=utf-8"),
    "/page.css": _file("page.css", "text/css; charset=utf-8"),
    "/page.js": _file("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": _file("icon.svg", "image/svg+xml"),
}
_PAGES: dict[str, Callable[[Snapshot], Answer]] = {
    "/status.json": _status_json,
    "/metrics": _metrics,
    "/healthz": _healthz,
    "/readyz": _readyz,
}
