"""Whoever watches a run: page, terminal and service manager. All of them see what `look` gives."""

from __future__ import annotations

import contextlib
import logging
from types import TracebackType
from typing import TYPE_CHECKING

from pipelines.local.history import History
from pipelines.local.snapshot import Look, Snapshot
from pipelines.local.status import StatusServer
from pipelines.local.terminal import Terminal
from pipelines.local.watchdog import Health, Watchdog
from pipelines.local.when_free import WhenFree
from transforms.clock import Clock

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

log = logging.getLogger("grantex.run")

# A feed that is away is no failed start; a standby is of use only once it hears the feed, and leaves no gap
# once it has heard it since the other's last keepalive (30 s) and last note of that on disk (5 s).
READY_ANYWAY = 30.0  # seconds
REACHES_BACK = 36.0  # seconds


class Display:
    """A context manager. `look` may be given another value at any time, as when a standby takes over."""

    def __init__(self, settings: Settings, health: Health, look: Look, clock: Clock) -> None:
        """With `settings.standby` a status port that is taken is waited for; otherwise entering raises
        PortTaken. It may raise ListenFailed."""
        self.look = look
        self._settings = settings
        self._health = health
        self._clock = clock
        self._began = clock.monotonic()
        self._history = History(self._looked, clock)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Display:
        with contextlib.ExitStack() as stack:
            page = self._serve(stack) if self._settings.status_port else ""
            self._watchdog = Watchdog(self._health.hanging, self._is_ready, self._clock)
            stack.callback(self._watchdog.close)
            stack.enter_context(Terminal(self._see, page))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def stopping(self) -> None:
        """The run is about to end."""
        self._watchdog.stopping()

    def _looked(self) -> Snapshot:
        return self.look()  # another one may have been given meanwhile

    def _see(self) -> Snapshot:
        return self._history.foretold(self.look())

    def _is_ready(self) -> bool:
        """Whether the other process of a pair may be restarted now."""
        seen = self.look()
        if seen.standing_by is None:
            return seen.is_ready or self._clock.monotonic() - self._began >= READY_ANYWAY
        since = seen.standing_by.reaches_back_to
        return seen.is_ready and since is not None and seen.at - since >= REACHES_BACK

    def _serve(self, stack: contextlib.ExitStack) -> str:
        """The page's address, "" while another process has its port."""
        setting = f"--status_port={self._settings.status_port}"
        page = WhenFree(setting, self._listen, self._clock, patient=self._settings.standby)
        stack.enter_context(contextlib.closing(page))
        stack.enter_context(contextlib.closing(self._history)).start()
        return "" if page.server is None else self._address(page.server)

    def _listen(self) -> StatusServer:
        settings = self._settings
        server = StatusServer(
            settings.status_host,
            settings.status_port,
            self._see,
            faults=self._health.faults,
            history=self._history,
            state_dir=settings.state_dir,
        )
        log.info("status page: %s", self._address(server))
        return server

    def _address(self, server: StatusServer) -> str:
        host = self._settings.status_host
        return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"
