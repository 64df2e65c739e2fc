"""The local status server: the page, /status.json, /history.json, /where, /metrics, /healthz and /readyz."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

from pipelines.local import verdict
from pipelines.local.history import History
from pipelines.local.inbound import Answer, Request
from pipelines.local.listener import Listener
from pipelines.local.metrics import exposition
from pipelines.local.snapshot import Look, Snapshot
from pipelines.local.status_json import status_json
from pipelines.local.where_json import answer
from transforms.clock import SystemClock
from transforms.feed.journal import JournalDamaged, JournalError, JournalUnavailable
from transforms.feed.journal.receipts import Receipts

# A scraper, a browser and two probes are a handful. One more ends the oldest, which hangs most likely.
MOST_CONNECTIONS = 32
THREADS = 4
MOST_IDS = 100  # that one request may ask for
MAX_BODY = 1024  # bytes; nothing here asks for one

# The page loads nothing from elsewhere, and nobody may frame it or read it from another origin.
SAFE = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


class StatusServer:
    """Serves snapshots on a port of its own until it is closed."""

    def __init__(
        self,
        host: str,
        port: int,
        look: Look,
        monotonic: Callable[[], float] = time.monotonic,
        faults: Callable[[], Sequence[str]] = lambda: (),
        state_dir: Path | None = None,
        history: History | None = None,
    ) -> None:
        """Bind to `host` and `port` (0: any free one). Raises PortTaken and ListenFailed.

        look: takes a snapshot; called in the server's threads.
        faults: why the process should be started anew, for /healthz; as Health.faults.
        state_dir: whose journal `/where` looks into.
        history: the last hour; without one there are no charts.
        """
        self._look, self._faults, self._state_dir = look, faults, state_dir
        self._history = history or History(look, SystemClock())  # which is empty, as nobody starts it
        self._listener = Listener(
            host,
            port,
            self._answer,
            name="status",
            max_body=MAX_BODY,
            connections=MOST_CONNECTIONS,
            threads=THREADS,
            monotonic=monotonic,
        )
        self._only_loopback = is_loopback(self._listener.host)
        self._listener.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.port

    def close(self) -> None:
        """Stop answering."""
        self._listener.close()

    def _answer(self, request: Request) -> Answer:
        found = self._find(request)
        return found._replace(headers=(*found.headers, *SAFE))

    def _find(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
        if self._only_loopback and not names_loopback(request.host):
            # A web page elsewhere could make its own name point here and then read the answers.
            return Answer(421, b"ask for this page as 127.0.0.1 or localhost\n")
        if request.path in _FILES:
            return _FILES[request.path]
        if request.path == "/healthz":
            return _healthz(self._faults())
        if request.path == "/where" and self._state_dir is not None:
            return _where(self._state_dir, request.query)
        if request.path == "/history.json":
            return Answer(200, self._history.json(), "application/json")
        page = _PAGES.get(request.path)
        return page(self._look()) if page else _NOT_FOUND


def _where(state_dir: Path, query: str) -> Answer:
    """What is known of each `id=`, an object a line."""
    ids: list[str] = []
    with contextlib.suppress(ValueError):  # too many
        ids = parse_qs(query, max_num_fields=MOST_IDS, errors="replace").get("id", [])
    if not ids:
        return Answer(400, b"/where?id=EVENT_ID, and more of them with &id=\n")
    try:
        with contextlib.closing(Receipts(state_dir)) as receipts:
            lines = [json.dumps(answer(found)) for found in receipts.find(ids)]
    except (JournalError, JournalDamaged, JournalUnavailable) as error:
        return Answer(503, f"{error}\n".encode())
    return Answer(200, "\n".join(lines).encode() + b"\n", "application/json")


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
    return Answer(200, status_json(snapshot), "application/json")


def _metrics(snapshot: Snapshot) -> Answer:
    return Answer(200, exposition(snapshot), CONTENT_TYPE_LATEST)


def _healthz(faults: Sequence[str]) -> Answer:
    """Alive unless a restart is called for: an outage elsewhere is no reason. Takes no snapshot, which waits
    for the journal."""
    return Answer(500, f"{'; '.join(faults)}\n".encode()) if faults else Answer(200, b"ok\n")


def _readyz(snapshot: Snapshot) -> Answer:
    """Ready: the feed is live, so events are being received; a standby could take over, too."""
    standby = snapshot.standing_by
    if snapshot.is_ready:
        return Answer(200, b"standing by\n" if standby else b"ready\n")
    if standby and standby.why_not:
        return Answer(503, f"could not take over: {verdict.said(standby.why_not)}\n".encode())
    doing = "; ".join(f"{status.phase.value} {status.why}".strip() for status in snapshot.connections)
    return Answer(503, f"the feed is not live: {doing or 'stopped'}\n".encode())


def _file(name: str, content_type: str) -> Answer:
    return Answer(200, (resources.files("pipelines.local") / "page" / name).read_bytes(), content_type)


_NOT_FOUND = Answer(
    404, b"here are /, /status.json, /history.json, /where?id=, /metrics, /healthz and /readyz\n"
)
_FILES: dict[str, Answer] = {
    "/": _file("index.html", "text/html; charset=utf-8"),
    "/page.css": _file("page.css", "text/css; charset=utf-8"),
    "/charts.js": _file("charts.js", "text/javascript; charset=utf-8"),
    "/page.js": _file("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": _file("icon.svg", "image/svg+xml"),
}
_PAGES: dict[str, Callable[[Snapshot], Answer]] = {
    "/status.json": _status_json,
    "/metrics": _metrics,
    "/readyz": _readyz,
}
