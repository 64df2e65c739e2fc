"""What listens on a port that another process may have for a while, such as the one before a standby."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pipelines.local.listener import ListenFailed, PortTaken
from transforms.clock import Clock

log = logging.getLogger("grantex.run")

TRY_EVERY = 1.0  # seconds


class Server(Protocol):
    """Status page or webhook receiver."""

    def close(self) -> None:
        """Listen no more."""


S = TypeVar("S", bound=Server)


class WhenFree(Generic[S]):
    """Opened at once or, when it may wait and the port is taken, as soon as that is free."""

    def __init__(self, setting: str, opened: Callable[[], S], clock: Clock, *, patient: bool) -> None:
        """setting: the flag that names the port, with its value. opened: raises PortTaken and ListenFailed.

        Raises them, too, unless `patient`.
        """
        self.server: S | None = None  # once it listens
        self._setting = setting
        self._opened = opened
        self._clock = clock
        self._use: Callable[[S], None] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self.server = opened()
        except PortTaken as error:
            if not patient:
                raise PortTaken(f"{setting}: {error}: choose another port") from error
            log.warning(
                "%s: %s; this process listens there once it is free (each of two processes that stand by for "
                "each other may have a port of its own)",
                setting,
                error,
            )
            self._thread = threading.Thread(target=self._try, name="port", daemon=True)
            self._thread.start()

    def then(self, use: Callable[[S], None]) -> None:
        """Call `use` with it: now, or when it listens."""
        with self._lock:
            self._use = use
            if self.server is not None:
                use(self.server)

    def close(self) -> None:
        """Listen no more, and wait no longer."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self.server is not None:
            self.server.close()

    def _try(self) -> None:
        while not self._clock.wait(self._closed, TRY_EVERY):
            with contextlib.suppress(PortTaken, ListenFailed):
                server = self._opened()
                with self._lock:
                    self.server = server
                    if self._use is not None:
                        self._use(server)
                log.info("%s: free now", self._setting)
                return
