"""Sockets whose waits others can end, and which cost little: the system's own time-outs and calls."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable

import httpx


class TimedSocket(socket.socket):
    """A socket whose time-outs the system keeps.

    Python's own cost a poll before each read and write and a system call whenever one is set, and each of
    these lets go of Python's lock, which a busy process gives back late.
    """

    _seconds: float | None = None
    _short: ctypes.Array[ctypes.c_char] | None = None

    def settimeout(self, value: float | None) -> None:
        """Seconds for one read, and for one write that makes no progress; None for no limit."""
        if super().gettimeout() is not None:
            super().settimeout(None)
        if value != self._seconds:
            self._seconds = value
            whole, rest = divmod(max(value, 1e-6) if value is not None else 0.0, 1.0)
            limit = struct.pack("@ll", int(whole), int(rest * 1e6))
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def gettimeout(self) -> float | None:
        """What `settimeout` was given."""
        own = super().gettimeout()
        return self._seconds if own is None else own

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Raises TimeoutError, OSError."""
        if bufsize > SHORT and not flags and (come := self._come()):
            if len(come) == SHORT:
                with contextlib.suppress(OSError):  # behind a reset there is an end
                    come += super().recv(bufsize - SHORT, socket.MSG_DONTWAIT)
            return come
        try:
            return super().recv(bufsize, flags)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def _come(self) -> bytes:
        """What is there, SHORT bytes at most; nothing when nothing is or will be. Raises OSError."""
        if self._short is None:
            self._short = ctypes.create_string_buffer(SHORT)
        count: int = _system.recv(self.fileno(), self._short, SHORT, socket.MSG_DONTWAIT)
        if count >= 0:
            return self._short.raw[:count]
        _raise_unless_it_would_wait()
        return b""


class _Polled(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# The system's own calls, with Python's lock held: to let it go for some microseconds wakes another thread,
# which finds it taken again. With five destinations at 100 events a batch that was two thirds of all switches
# of threads (92,000 for 10,000 batches), and a quarter of the CPU, without TLS. Two of three answers of a
# service that is near have come when they are first looked for.
_system = ctypes.PyDLL(None, use_errno=True)
_system.poll.argtypes = ctypes.POINTER(_Polled), ctypes.c_ulong, ctypes.c_int
_system.send.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
_system.send.restype = ctypes.c_ssize_t
_system.recv.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
_system.recv.restype = ctypes.c_ssize_t
SHORT = 4096  # bytes of a reply; most have less
SMALL = 128 * 1024  # bytes of a request that are copied within 20 µs


def has_news(connection: socket.socket) -> bool:
    """Whether the other side has sent something, or closed."""
    return bool(_system.poll(_Polled(connection.fileno(), select.POLLIN, 0), 1, 0))


def send_at_once(connection: socket.socket, text: bytes) -> int:
    """How much of `text` the system takes now, without waiting. Raises OSError."""
    sent: int = _system.send(connection.fileno(), text, len(text), socket.MSG_DONTWAIT)
    if sent >= 0:
        return sent
    _raise_unless_it_would_wait()
    return 0


def _raise_unless_it_would_wait() -> None:
    error = ctypes.get_errno()
    if error not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        raise OSError(error, os.strerror(error))


def send(connection: socket.socket, head: bytes, body: bytes = b"") -> None:
    """Send a whole request; the connection's time-out is for each part that makes no progress.

    A server that has closed its end is no error yet: its reply may be waiting (a 413 comes like that).
    Raises httpx.WriteTimeout, WriteError.
    """
    try:
        if isinstance(connection, ssl.SSLSocket):
            left = memoryview(head + body)
        elif len(body) < SMALL:
            text = head + body
            left = memoryview(text)[send_at_once(connection, text) :]
        else:  # without a copy of the body
            sent = connection.sendmsg((head, body)) - len(head)
            left = memoryview(body)[sent:] if sent >= 0 else memoryview(head + body)[sent + len(head) :]
        while left:
            left = left[connection.send(left) :]
    except (TimeoutError, BlockingIOError) as error:
        raise httpx.WriteTimeout("the request could not be sent in time") from error
    except (BrokenPipeError, ConnectionResetError):
        return
    except OSError as error:
        raise httpx.WriteError(str(error)) from error


def dial(host: str, port: int, seconds: float, hold: Callable[[socket.socket], None]) -> socket.socket:
    """A socket to the first of the host's addresses that answers within `seconds`, its time-out set to that.

    hold: told of each socket as soon as it connects, so that `interrupt` ends the wait for it; what it raises
    ends everything.

    Raises OSError, TimeoutError among them: why the last address failed.
    """
    failed = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            connection = TimedSocket(family, kind, protocol)
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
    try:
        raise failed
    finally:
        del failed  # it knows this frame, and so the request of whoever called: garbage until somebody looks


def interrupt(connection: socket.socket) -> None:
    """Wake whoever connects, reads or writes on `connection`. The base class's method, because the TLS one
    would take the TLS state away under the other thread."""
    with contextlib.suppress(OSError):  # the other side has gone already
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
