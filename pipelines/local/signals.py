"""SIGTERM and SIGINT: the first stops in good order (a drain, where there is one), the second at once."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading

from pipelines import exit_codes

log = logging.getLogger("grantex.run")


def stop_on_signals() -> threading.Event:
    """An event that the first signal sets. Call it in the main thread.

    A handler that set the event would run in the main thread at any moment, and could meet the very lock
    that this thread waits with. So the handlers do nothing, and a thread reads what arrived. (Blocking the
    signals and waiting for them in a thread fails: libraries start threads of their own at import, in
    which they are not blocked.)
    """
    stop = threading.Event()
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(theirs, ours, stop), name="signals", daemon=True).start()
    return stop


def _listen(arrived: socket.socket, kept_open: socket.socket, stop: threading.Event) -> None:
    """Each byte is a signal's number. `kept_open` is the end that the handlers write to."""
    while not stop.is_set():
        for number in arrived.recv(1):
            log.info("%s: stopping in good order; a second signal stops at once", signal.Signals(number).name)
            stop.set()
    for number in arrived.recv(1):
        log.warning(
            "%s: stopping at once; on one machine the journal keeps what is not delivered",
            signal.Signals(number).name,
        )
    logging.shutdown()
    os._exit(exit_codes.FAILED)
