"""Whether the process makes progress, for systemd and Kubernetes, which end one that does not.

The protocol is sd_notify's (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html): lines
in a datagram to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pipelines.local.lane import Lane
from transforms.clock import Clock
from transforms.durable import replace_file
from transforms.feed.journal import Journal
from transforms.feed.reader import FeedReader

log = logging.getLogger("grantex.watchdog")

# A read of the feed lasts 75 s at most, a lane comes round every 5 s, and while another program holds the
# lock of the journal's database each of them may wait a minute for it, after others that wait for it, too.
HANGS_AFTER = 180.0
BOOKS_PATIENCE = 1.0  # seconds for the journal to say whether its books balance
TURN = 1.0  # seconds between two signs of life
EXTEND = 30.0  # seconds for which a start that makes progress may go on


def notify(state: str) -> None:
    """Tell the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's namespace of sockets that are no files
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        log.debug("the service manager was not told %s: %s", state.partition("=")[0], error)


class Health:
    """What is watched: the feed's connections, and the lanes once there are any."""

    def __init__(self, directory: Path) -> None:
        """directory: where to remember for what a restart was asked for."""
        self.reader: FeedReader | None = None
        self._lanes: Sequence[Lane] = ()
        self._journal: Journal | None = None
        self._memory = directory / "restarted_for"
        self._remembered: set[str] = set()
        self._in_vain: set[str] = set()

    def deliver(self, journal: Journal, lanes: Sequence[Lane]) -> None:
        """From now on these are watched, too. Whatever the process before was restarted for is known now."""
        self._remembered = _read(self._memory)
        self._in_vain = set(self._remembered)
        self._journal, self._lanes = journal, lanes

    def hanging(self) -> list[str]:
        """Which threads have not come round for too long. Waits for no lock, as one may be what hangs."""
        found = self.reader.hanging(HANGS_AFTER) if self.reader is not None else []
        return [*found, *(lane.name for lane in self._lanes if lane.quiet_for() > HANGS_AFTER)]

    def faults(self) -> list[str]:
        """Why the process should be started anew, in plain words; none while it is as well as it can be.

        A lane that fails again and again, or books that do not balance, are a reason once: when they are as
        before after a restart, another one would only make the feed's reader blind for a moment.
        """
        if hanging := self.hanging():
            return [f"no progress for {HANGS_AFTER:.0f} s: {', '.join(hanging)}"]
        wrong = {f"restarting again and again: {lane.name}" for lane in self._lanes if lane.keeps_failing}
        if self._journal is not None:
            wrong |= {
                f"the books do not balance for {name}" for name in self._journal.unbalanced(BOOKS_PATIENCE)
            }
        over = {f"restarting again and again: {lane.name}" for lane in self._lanes if lane.has_recovered}
        over |= {fault for fault in self._remembered - wrong if fault.startswith("the books")}
        self._in_vain -= over
        self._remember((self._remembered - over) | wrong)
        return sorted(wrong - self._in_vain)

    def _remember(self, faults: set[str]) -> None:
        if faults == self._remembered:
            return
        self._remembered = faults
        try:
            replace_file(self._memory, msgspec.json.encode(sorted(faults)))
        except OSError as error:
            log.debug("%s was not written: %s", self._memory, error)


def _read(path: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except (OSError, msgspec.MsgspecError):
        return set()


class Watchdog:
    """Tells systemd of the start, of progress and of the end, from a thread of its own.

    Without NOTIFY_SOCKET it does nothing.
    """

    def __init__(
        self,
        hanging: Callable[[], Sequence[str]],
        is_ready: Callable[[], bool],
        clock: Clock,
        tell: Callable[[str], None] = notify,
    ) -> None:
        """is_ready: whether the start is over: what waits for it may go on, such as the restart of another
        process of a pair."""
        self._hanging = hanging
        self._is_ready = is_ready
        self._clock = clock
        self._tell = tell
        self._started = self._hangs = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        if os.environ.get("NOTIFY_SOCKET"):
            self._thread.start()

    def turn(self) -> None:
        """One sign of life, unless something hangs: then there is none, and systemd ends the process."""
        hanging = self._hanging()
        if hanging:
            if not self._hangs:
                log.error("no progress for %.0f s: %s", HANGS_AFTER, ", ".join(hanging))
            self._hangs = True
            return
        self._hangs = False
        if self._started:
            self._tell("WATCHDOG=1")
        elif self._is_ready():
            self._started = True
            self._tell("READY=1\nWATCHDOG=1")
        else:
            self._tell(f"EXTEND_TIMEOUT_USEC={EXTEND * 1e6:.0f}")

    def stopping(self) -> None:
        """The drain begins."""
        self._tell("STOPPING=1")

    def close(self) -> None:
        """No more signs of life."""
        self._stop.set()

    def _run(self) -> None:
        while not self._clock.wait(self._stop, TURN):
            self.turn()
