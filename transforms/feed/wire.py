"""The TCP connection under one httpx request: known early, cut from outside, watched before it blocks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpcore


class Wire:
    """Hand `trace` to httpx as the request extension of that name; httpcore then shows its stream
    (https://www.encode.io/httpcore/extensions/#trace).

    on_tcp: called once the TCP connection is up, long before the response's headers.
    before_read: called each time httpcore is about to read from the network because everything received
        so far has been handed out, on the reading thread; what it raises comes out of the response. The
        argument says whether bytes are already waiting.
    """

    def __init__(
        self,
        on_tcp: Callable[[], None] = lambda: None,
        before_read: Callable[[bool], None] = lambda waiting: None,
    ) -> None:
        self._on_tcp = on_tcp
        self._before_read = before_read
        self._lock = threading.Lock()
        self.is_watched = False  # whether `before_read` will be called
        self._is_cut = False
        self._socket: socket.socket | None = None

    def trace(self, name: str, info: dict[str, Any]) -> None:
        """httpcore's trace callback."""
        if name.endswith("connect_tcp.complete"):
            stream = info["return_value"]
            # A second handle on the same connection: it stays valid when TLS takes over the first.
            handle = stream.get_extra_info("socket").dup()
            with self._lock:
                self._socket = handle
                if self._is_cut:
                    _shut(handle)
            self._on_tcp()
            self._watch(stream)
        elif name.endswith("start_tls.complete"):
            self._watch(info["return_value"])

    def cut(self) -> None:
        """End every read and write on the connection at once, also one that is yet to come; thread-safe."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                _shut(self._socket)

    def release(self) -> None:
        """Let go of the connection, once the response is closed."""
        with self._lock:
            if self._socket is not None:
                _shut(self._socket)
                self._socket.close()
                self._socket = None

    def _watch(self, stream: httpcore.NetworkStream) -> None:
        read = stream.read

        def watched(max_bytes: int, timeout: float | None = None) -> bytes:
            self._before_read(bool(stream.get_extra_info("is_readable")))
            return read(max_bytes, timeout)

        # httpcore has no other place to ask at: a backend of our own would lose httpx's proxies.
        stream.read = watched  # type: ignore[method-assign]
        self.is_watched = True


def _shut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already gone
        handle.shutdown(socket.SHUT_RDWR)
