"""Closing a connection from another thread, whatever it is doing just then."""

from __future__ import annotations

import contextlib
import gc
import random
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import httpx
import pytest

from transforms.write.over_http import connection as http_connection
from transforms.write.over_http.connection import HttpConnection, Reply, dial, has_news, send, send_at_once
from transforms.write.over_http.reply import PART

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
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


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


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, over which little goes at once, and the other side's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = dial("127.0.0.1", server.getsockname()[1], 5.0, lambda _: None)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
        theirs, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


def test_news_are_bytes_or_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert not has_news(ours)
    theirs.sendall(b"x")
    assert select.select([ours], [], [], 5.0)[0]
    assert has_news(ours)
    assert ours.recv(1) == b"x"
    assert not has_news(ours)
    theirs.shutdown(socket.SHUT_WR)
    assert select.select([ours], [], [], 5.0)[0]
    assert has_news(ours)


@pytest.mark.parametrize("size", [0, 1, 1000, http_connection.SMALL - 1, http_connection.SMALL, 300_000])
def test_what_does_not_go_at_once_follows_in_order(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor, size: int
) -> None:
    ours, theirs = pair
    body = random.Random(size).randbytes(size)
    sending = pool.submit(send, ours, b"head", body)
    with theirs.makefile("rb") as arriving:
        assert arriving.read(4 + size) == b"head" + body
    assert sending.result(5) is None


@pytest.mark.parametrize("size", [http_connection.SMALL - 1, 1_000_000])
def test_a_request_that_nobody_reads_times_out(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, _ = pair
    ours.settimeout(0.05)
    filling = iter(lambda: send(ours, b"head", bytes(size)), "never")
    with pytest.raises(httpx.WriteTimeout):
        list(islice(filling, 100))  # until what lies in between is full


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_request_to_one_who_has_gone_is_no_error_yet(
    pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    ours, theirs = pair
    theirs.close()
    for _ in range(3):
        send(ours, b"head", bytes(size))


def test_a_request_over_a_closed_socket_is_an_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = pair
    ours.close()
    with pytest.raises(httpx.WriteError):
        send(ours, b"head", b"body")


def test_an_error_that_waits_at_the_socket_is_told_as_what_it_is(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()  # with a reset
    assert select.select([ours], [], [], 5.0)[0]
    with pytest.raises(ConnectionResetError):
        send_at_once(ours, b"a")


def test_a_reset_is_told_as_what_it_is_to_who_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert select.select([ours], [], [], 5.0)[0]
    with pytest.raises(ConnectionResetError):
        ours.recv(PART)


@pytest.mark.parametrize("size", [1, http_connection.SHORT, http_connection.SHORT + 1, 300_000])
def test_what_has_come_and_what_comes_later_are_read_in_order(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor, size: int
) -> None:
    ours, theirs = pair
    body = random.Random(size).randbytes(size)

    def answer() -> None:
        theirs.sendall(body)
        theirs.shutdown(socket.SHUT_WR)

    sending = pool.submit(answer)
    assert b"".join(iter(lambda: ours.recv(PART), b"")) == body
    assert sending.result(5) is None


def test_nothing_that_comes_times_out(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ours.settimeout(0.05)
    with pytest.raises(TimeoutError):
        ours.recv(PART)


def test_who_looks_ahead_takes_nothing_away(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"answer")
    assert ours.recv(PART, socket.MSG_PEEK) == b"answer"
    assert ours.recv(PART) == b"answer"


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
