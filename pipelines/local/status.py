"""The local status server: /metrics, /healthz and /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from pipelines.local.metrics import exposition
from pipelines.local.snapshot import Snapshot

PLAIN = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]  # status, content type, body


class PortTaken(Exception):
    """Nobody else may listen on the status port."""


class StatusServer:
    """Serves snapshots on a port of its own until it is closed."""

    def __init__(self, host: str, port: int, look: Callable[[], Snapshot]) -> None:
        """Bind to `host` and `port` (0: any free one). Raises PortTaken.

        look: takes a snapshot; called in the server's threads.
        """
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise PortTaken(f"{host}:{port} cannot be listened on ({error.strerror})") from error
        self._server.look = look
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    look: Callable[[], Snapshot]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "grantex-beam"
    sys_version = ""

    def do_GET(self) -> None:
        page = _PAGES.get(self.path.partition("?")[0])
        status, content_type, body = page(self.server.look()) if page else _NOT_FOUND
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""


def _metrics(snapshot: Snapshot) -> Answer:
    return 200, CONTENT_TYPE_LATEST, exposition(snapshot)


def _healthz(snapshot: Snapshot) -> Answer:
    """Alive for as long as the books balance: an outage elsewhere is no reason to be restarted."""
    wrong = [item.name for item in snapshot.destinations if not item.books.balanced]
    if wrong:
        return 500, PLAIN, f"the books do not balance for {', '.join(wrong)}\n".encode()
    return 200, PLAIN, b"ok\n"


def _readyz(snapshot: Snapshot) -> Answer:
    """Ready: the feed is live, so events are being received."""
    if snapshot.live:
        return 200, PLAIN, b"ready\n"
    doing = "; ".join(f"{status.phase.value} {status.why}".strip() for status in snapshot.connections)
    return 503, PLAIN, f"the feed is not live: {doing or 'stopped'}\n".encode()


_NOT_FOUND: Answer = (404, PLAIN, b"here are /metrics, /healthz and /readyz\n")
_PAGES: dict[str, Callable[[Snapshot], Answer]] = {
    "/metrics": _metrics,
    "/healthz": _healthz,
    "/readyz": _readyz,
}
