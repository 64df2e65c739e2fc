"""Opening a TCP connection that another thread can interrupt at any moment."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable


def dial(host: str, port: int, seconds: float, hold: Callable[[socket.socket], None]) -> socket.socket:
    """A socket to the first of the host's addresses that answers within `seconds`, its time-out set to that.

    hold: told of each socket as soon as it connects, so that `interrupt` ends the wait for it; what it raises
    ends everything.

    Raises OSError, TimeoutError among them: why the last address failed.
    """
    failed = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as unknown:  # IPv6, on a machine without it
            failed = unknown
            continue
        connection.setblocking(False)
        error = connection.connect_ex(address)  # first: what has not begun cannot be interrupted
        hold(connection)
        try:
            _wait(connection, error, seconds)
        except OSError as refused:
            connection.close()
            failed = refused
        else:
            return connection
    raise failed


def interrupt(connection: socket.socket) -> None:
    """Wake whoever connects, reads or writes on `connection`. The base class's method, because the TLS one
    would take the TLS state away under the other thread."""
    with contextlib.suppress(OSError):  # the peer has gone already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _wait(connection: socket.socket, error: int, seconds: float) -> None:
    if error == errno.EINPROGRESS:
        waiting = select.poll()
        waiting.register(connection, select.POLLOUT)
        if not waiting.poll(seconds * 1000):
            raise TimeoutError("timed out")
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
    connection.settimeout(seconds)
