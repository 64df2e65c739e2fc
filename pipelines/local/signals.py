"""SIGTERM and SIGINT: the first drains, the second stops at once."""

from __future__ import annotations

import logging
import os
import signal
import threading

from pipelines import exit_codes

log = logging.getLogger("grantex.run")

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})


def stop_on_signals() -> threading.Event:
    """An event that the first signal sets. Call it in the main thread before any other thread starts.

    The signals are blocked in every thread and waited for in one: a handler would run in the main thread at
    any moment, and setting an event there can meet the lock that the same thread is waiting with.
    """
    stop = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    threading.Thread(target=_wait, args=(stop,), name="signals", daemon=True).start()
    return stop


def _wait(stop: threading.Event) -> None:
    first = signal.sigwait(STOPPING)
    log.info("%s: draining; a second signal stops at once", signal.Signals(first).name)
    stop.set()
    second = signal.sigwait(STOPPING)
    log.warning("%s: stopping at once; the journal keeps what is not delivered", signal.Signals(second).name)
    logging.shutdown()
    os._exit(exit_codes.FAILED)
