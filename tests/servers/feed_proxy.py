"""A TCP proxy in front of the feed whose single connections are cut, killed, or frozen without a word."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from pipelines.practice.feed import PracticeFeed

READ = 64 * 1024


class FeedProxy:
    """A context manager. `links` are the connections that are open, oldest first."""

    def __init__(self, feed: PracticeFeed) -> None:
        self._feed = feed
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.links: list[Link] = []

    def __enter__(self) -> FeedProxy:
        threading.Thread(target=self._accept, name="feed-proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in list(self.links):
            link.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                service = socket.create_connection(("127.0.0.1", self._feed.port))
            except OSError:  # the service is down
                client.close()
                continue
            link = Link(client, service)
            self.links.append(link)
            for run in (link.carry_requests, link.carry_answers):
                threading.Thread(target=self._run, args=(link, run), name="feed-proxy", daemon=True).start()

    def _run(self, link: Link, run: object) -> None:
        with contextlib.suppress(OSError):
            run()  # type: ignore[operator]
        link.close()
        with contextlib.suppress(ValueError):
            self.links.remove(link)


class Link:
    """One connection. What a frozen one is sent vanishes: neither data nor an end reaches the client."""

    def __init__(self, client: socket.socket, service: socket.socket) -> None:
        self.client, self.service = client, service
        self.is_frozen = False
        for end in (client, service):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def freeze(self) -> None:
        """Say nothing any more, in either direction."""
        self.is_frozen = True

    def cut(self) -> None:
        """End it in order, in the middle of the answer."""
        self.close()

    def kill(self) -> None:
        """Reset it."""
        with contextlib.suppress(OSError):
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def carry_requests(self) -> None:
        """From the client to the service, until either ends."""
        while block := self.client.recv(READ):
            if not self.is_frozen:
                self.service.sendall(block)

    def carry_answers(self) -> None:
        """From the service to the client, until either ends."""
        while block := self.service.recv(READ):
            if not self.is_frozen:
                self.client.sendall(block)

    def close(self) -> None:
        """Both ends, and whoever waits on them."""
        for end in (self.client, self.service):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)
            end.close()
