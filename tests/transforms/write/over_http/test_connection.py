"""Closing a connection from another thread, whatever it is doing just then."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from transforms.write.over_http import connection as http_connection
from transforms.write.over_http.connection import HttpConnection, Reply
from transforms.write.over_http.sockets import dial

PATIENCE = 10.0  # seconds after which a test that hangs fails


class Watched(HttpConnection):
    """Says when `close` can find a socket."""

    def __init__(self, url: str) -> None:
        super().__init__(url, {})
        self.held = threading.Event()

    def _hold(self, connection: socket.socket) -> None:
        super()._hold(connection)
        self.held.set()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `close` ends anything here."""
    monkeypatch.setattr(http_connection, "CONNECT_SECONDS", 3 * PATIENCE)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server whose system completes connections, and that never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A server whose queue of connections is full: its system drops what asks for another."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener
        for each in waiting:
            each.close()


def closed(connection: HttpConnection, posted: Future[Reply]) -> None:
    connection.close()
    with pytest.raises(httpx.ConnectError):
        posted.result(PATIENCE)
    with pytest.raises(httpx.ConnectError, match="closed by this program"):
        connection.post(b"")


def url(scheme: str, listener: socket.socket) -> str:
    return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_connect_that_hangs_ends_at_once(full: socket.socket, pool: ThreadPoolExecutor) -> None:
    connection = Watched(url("http", full))
    posted = pool.submit(connection.post, b"")
    assert connection.held.wait(PATIENCE)
    closed(connection, posted)


def test_a_handshake_that_hangs_ends_at_once(silent: socket.socket, pool: ThreadPoolExecutor) -> None:
    connection = HttpConnection(url("https", silent), {})
    posted = pool.submit(connection.post, b"")
    peer, _ = silent.accept()
    with peer:
        assert peer.recv(1)  # of the hello: the handshake has begun
        closed(connection, posted)


def test_an_address_that_cannot_be_tried_or_refuses_leaves_it_to_the_next(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine without IPv6, where a name has such an address all the same."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        refusing = gone.getsockname()
    found = [
        (socket.AF_APPLETALK, socket.SOCK_STREAM, 0, "", ("::1", 80, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", refusing),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", silent.getsockname()),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with dial("a.test", 80, PATIENCE, lambda connection: None) as connection:
        assert connection.getpeername() == silent.getsockname()
        assert connection.gettimeout() == PATIENCE
    found.pop()
    with pytest.raises(ConnectionRefusedError):
        dial("a.test", 80, PATIENCE, lambda connection: None)


def test_one_that_is_closed_as_it_connects_is_not_used(
    silent: socket.socket, pool: ThreadPoolExecutor
) -> None:
    """`close` comes when there is no socket to interrupt yet."""

    class ClosedEarly(Watched):
        def _hold(self, connection: socket.socket) -> None:
            if not self.held.is_set():
                self.close()
            super()._hold(connection)

    connection = ClosedEarly(url("http", silent))
    with pytest.raises(httpx.ConnectError):
        connection.post(b"a")
    peer, _ = silent.accept()
    with peer:
        assert peer.recv(1) == b""


def test_what_was_to_be_sent_goes_with_a_connect_that_fails() -> None:
    """At once, and not when somebody looks for garbage: five destinations that are away would pile it up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    connection, body = HttpConnection(address, {}), bytes(1000)
    before = sys.getrefcount(body)
    gc.disable()
    try:
        with contextlib.suppress(httpx.ConnectError):
            connection.post(body)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
