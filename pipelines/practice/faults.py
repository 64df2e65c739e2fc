"""Faults on command: what a practice service, or a proxy of the tests, does to the next requests."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

Reset = Literal["", "before", "during", "after"]


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    reset: the connection is reset "before" the request is read, "during" its body, or "after" it was
        taken and before the answer.
    status, body, headers: answered instead of judging the request; nothing is taken.
    garbage: taken as usual and answered with this instead of the service's own words.
    cut_answer: taken, and the connection ends behind the status line and half of the body.
    path: only a request whose path ends like this has it; the others pass by.
    """

    reset: Reset = ""
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    garbage: bytes = b""
    cut_answer: bool = False
    path: str = ""


class FaultCommands:
    """The commands that make a practice server faulty; faults of one request queue up.

    With `path`, the fault is for the next requests whose path ends like this, whatever comes in between.
    """

    def __init__(self) -> None:
        self.seconds_late = 0.0
        self._faults: deque[Fault] = deque()
        self._choosing = threading.Lock()
        self._released = threading.Event()
        self._released.set()
        self._hang_seconds: float | None = None

    def next_fault(self, path: str) -> Fault:
        """The fault of the request for `path` that has just begun."""
        with self._choosing:
            for fault in self._faults:
                if path.endswith(fault.path):
                    self._faults.remove(fault)
                    return fault
        return Fault()

    def hold(self) -> None:
        """Block a request while the server hangs."""
        self._released.wait(self._hang_seconds)

    def hang(self, seconds: float | None = None) -> None:
        """Requests are read and then wait, each `seconds` or until `release`."""
        self._hang_seconds = seconds
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def slow(self, seconds: float) -> None:
        """Each answer comes `seconds` late."""
        self.seconds_late = seconds

    def reset(self, when: Reset, times: int = 1, path: str = "") -> None:
        """Reset the next connections "before" reading the request, "during" or "after" taking it."""
        self._add(Fault(reset=when, path=path), times)

    def answer(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        times: int = 1,
        path: str = "",
    ) -> None:
        """Answer the next requests with this and take nothing."""
        self._add(Fault(status=status, body=body, headers=tuple((headers or {}).items()), path=path), times)

    def garbage(self, body: bytes = b"<html>", times: int = 1, path: str = "") -> None:
        """Take the next requests, but answer with this body."""
        self._add(Fault(garbage=body, path=path), times)

    def cut_answer(self, times: int = 1, path: str = "") -> None:
        """Take the next requests and end the connection in the middle of the answer's body."""
        self._add(Fault(cut_answer=True, path=path), times)

    def _add(self, fault: Fault, times: int) -> None:
        with self._choosing:
            self._faults.extend([fault] * times)
