"""Two processes that stand by for each other, of which any may be killed, ended or stopped at any time.

For torture.py. Whichever ends is started anew, as a service manager would; one that is stopped longer than
its watchdog's patience is killed, as the service manager would kill it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.integration.job import Job, World

PATIENCE = 8.0  # seconds of the watchdog's, in place of minutes
LOOK_EVERY = 0.5  # seconds
END = 90.0  # seconds in which an orderly end must come
READY = 90.0  # seconds for a start, on a busy machine


@dataclass
class Life:
    """One start of the job.

    word: what /readyz said last: "ready", "standing by", or neither. wakes_at: when it is woken, while it is
    stopped (monotonic). asked_at: when it was asked to end.
    """

    job: Job
    word: str = ""
    was_up: bool = False
    stopped_at: float = 0.0
    wakes_at: float | None = None
    asked_at: float | None = None
    killed: bool = False

    @property
    def is_at_large(self) -> bool:
        """Neither stopped nor on its way to its end."""
        return self.wakes_at is None and self.asked_at is None and not self.killed

    def look(self) -> None:
        """Ask what it is."""
        status, body = self.job.get("/readyz")
        self.word = body.strip() if status == 200 else ""
        self.was_up = self.was_up or status != 0


class Crew:
    """A context manager. `faults`: what the processes did that they must not."""

    def __init__(
        self, around: World, flags: Sequence[str], may_fail: Callable[[], bool], count: Callable[[str], None]
    ) -> None:
        """may_fail: whether a process may just now end by itself. count: is told what was done."""
        self._around, self._flags = around, list(flags)
        self._may_fail, self._count = may_fail, count
        self._number = 0
        self._look_at = 0.0
        self.lives: list[Life] = []
        self.faults: list[str] = []
        self.excused = 0

    def __enter__(self) -> Crew:
        try:
            for _ in range(2):
                self.lives.append(self._start())
                self.wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for life in self.lives:
            with contextlib.suppress(ProcessLookupError):
                life.job.kill()

    def _start(self) -> Life:
        self._number += 1
        return Life(self._around.popen(self._flags, log=f"{self._number}.log"))

    @property
    def active(self) -> Life | None:
        """The one that delivers, as it said last."""
        return next((life for life in self.lives if life.word == "ready"), None)

    @property
    def standby(self) -> Life | None:
        return next((life for life in self.lives if life.word == "standing by"), None)

    def tend(self) -> None:
        """To be called again and again: wake, kill, look, start anew."""
        now = time.monotonic()
        look = now >= self._look_at
        self._look_at = now + LOOK_EVERY if look else self._look_at
        for number, life in enumerate(self.lives):
            code = life.job.process.poll()
            if code is not None:
                self._judge(life, code)
                self.lives[number] = self._start()
                continue
            if life.wakes_at is not None and now - life.stopped_at > PATIENCE:
                self._count("killed by the watchdog")
                self.kill(life)
            elif life.wakes_at is not None and now >= life.wakes_at:
                life.job.signal(signal.SIGCONT)
                life.wakes_at = None
            elif life.asked_at is not None and not life.killed and now - life.asked_at > END:
                self.faults.append(f"no end {END:.0f} s after SIGTERM:\n{life.job.log[-2000:]}")
                self.kill(life)
            elif look and life.wakes_at is None:
                life.look()

    def kill(self, life: Life) -> None:
        """kill -9."""
        life.killed, life.wakes_at = True, None
        life.job.kill()

    def ask(self, life: Life) -> None:
        """SIGTERM; its end comes later."""
        life.asked_at = time.monotonic()
        life.job.signal(signal.SIGTERM)

    def stop(self, life: Life, seconds: float) -> None:
        """SIGSTOP; SIGCONT comes later, or the watchdog."""
        life.stopped_at = time.monotonic()
        life.wakes_at = life.stopped_at + seconds
        life.job.signal(signal.SIGSTOP)

    def _judge(self, life: Life, code: int) -> None:
        if life.killed:
            return
        early = code == -signal.SIGTERM and not life.was_up  # before there was anybody to hear it
        if life.asked_at is not None and (code == 0 or early):
            return
        if f"port {life.job.port} is taken" in life.job.log:  # somebody else was faster
            return
        if self._may_fail():
            self.excused += 1
            return
        asked = "after SIGTERM" if life.asked_at is not None else "by itself"
        self.faults.append(f"it ended {asked} with {code}:\n{life.job.log[-2000:]}")

    def wait_until(self, condition: Callable[[], object], what: str, timeout: float) -> None:
        """Tend until it holds. Raises AssertionError, with the end of each log."""
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= until:
                logs = "\n--\n".join(life.job.log[-2000:] for life in self.lives)
                raise AssertionError(f"not within {timeout:.0f} s: {what}\n{logs}")
            self.tend()
            time.sleep(0.05)

    def wait_until_up(self) -> None:
        """One delivers, and the other, if there is one, stands by."""
        self.wait_until(
            lambda: (
                self.active
                and all(life.is_at_large and life.word in ("ready", "standing by") for life in self.lives)
            ),
            "all are up",
            READY,
        )

    def end(self, destinations: Sequence[str]) -> None:
        """Both drain, the one that delivers last."""
        self.wait_until_up()
        active, standby = self.active, self.standby
        assert active
        assert standby
        active.job.wait_until_settled(*destinations, timeout=READY)
        for life in (standby, active):
            code = life.job.drain(END)
            if code:
                self.faults.append(f"it ended after SIGTERM with {code}:\n{life.job.log[-2000:]}")
