"""The practice feed's listening socket: a thread per client, and a port that can be closed and reopened."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable


class Listener:
    """Calls `serve(socket)` in a thread of its own for each client; the socket is closed afterwards.

    port: 0 takes a free one, which `open` then keeps.
    """

    def __init__(self, serve: Callable[[socket.socket], None], port: int, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self._serve = serve
        self._tls = tls
        self._listening: socket.socket | None = None
        self._clients: set[socket.socket] = set()

    def open(self) -> None:
        """Listen, on the same port as before."""
        listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), name="practice-feed", daemon=True).start()

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones go on."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def close(self) -> None:
        """Stop listening and end every client."""
        self.refuse()
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client, socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(client,), name="practice-client", daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            self._clients.add(client)
            self._serve(client)
        except OSError:
            pass  # the client is gone
        finally:
            self._clients.discard(client)
            client.close()
