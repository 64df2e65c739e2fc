"""Pipelines on a runner inside this process: no timer can be relied on there, so stages tell each other here
how long events may be gathered, and Ctrl-C is the end of the input."""

from __future__ import annotations

import logging
import math
import signal
import threading
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from transforms.in_process import Ticket

# Those of Beam that run inside this process, where processing-time timers fire at once or not at all.
IN_PROCESS = {"FnApiRunner", "DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner"}
log = logging.getLogger("grantex.run")


def is_in_process(pipeline: Any) -> bool:
    """Whether the runner of a Beam pipeline runs inside this process."""
    return bool({kind.__name__ for kind in type(pipeline.runner).__mro__} & IN_PROCESS)


class Local:
    """What the stages of one such pipeline know of each other.

    A bundle's end makes sinks send what they hold, so a reading keeps its bundle open for as long as they may
    gather; meanwhile it gives them empty chunks, at which they look at the clock.
    """

    def __init__(self) -> None:
        self.stopped = False  # the input is to end; no Event, whose lock a signal's handler could meet
        self._reading = False
        self._longest, self._at_most = 0.0, math.inf

    @property
    def gather(self) -> float:
        """Seconds for which a reading may keep a bundle open from its first event on."""
        return min(self._longest, self._at_most)

    def has_sink(self, max_age: float, has_ticks: bool) -> None:
        """A sink lets events wait for `max_age` seconds; without ticks only a bundle's end sends them."""
        self._longest = max(self._longest, max_age)
        if not has_ticks:
            self._at_most = min(self._at_most, max_age)

    def reads(self) -> None:
        """A reading has begun: from now on Ctrl-C ends it in good order, and once more ends it at once."""
        self._reading = True

    def ended(self) -> None:
        """It is over."""
        self._reading = False

    def end_on_interrupt(self) -> None:
        """Take Ctrl-C over, unless this is no main thread or somebody else has."""
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if not self._reading or self.stopped:
            signal.default_int_handler(number, frame)
        self.stopped = True
        log.warning("stopping: what was received is being delivered; Ctrl-C again stops at once")


_known: WeakKeyDictionary[Any, Ticket[Local]] = WeakKeyDictionary()


def local(pipeline: Any) -> Ticket[Local] | None:
    """What the stages of this pipeline share; None when its runner is none inside this process."""
    if not is_in_process(pipeline):
        return None
    return _known.setdefault(pipeline, Ticket(Local()))
