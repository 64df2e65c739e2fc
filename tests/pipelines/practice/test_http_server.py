"""The HTTP server of the practice services: a handler may take its connection over, and faults are alike."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from itertools import islice

import pytest

from pipelines.practice.feed import PRACTICE_KEY, STREAM, PracticeFeed
from pipelines.practice.http_server import Answer, HttpServer, Request, TakeOver

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Echo(HttpServer):
    """/echo becomes another protocol, /busy does not and says why; /done has no content."""

    def judge(self, request: Request) -> Answer | TakeOver:
        if request.path == "/done":
            return Answer(204, b"")
        return self._echo if request.path == "/echo" else lambda _: Answer(503, b"busy")

    def _echo(self, connection: socket.socket) -> None:
        connection.sendall(SWITCHED)
        while data := connection.recv(100):
            connection.sendall(data[::-1])


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


def ask(server: HttpServer, path: str, connection: socket.socket | None = None) -> socket.socket:
    connection = connection or socket.create_connection(("127.0.0.1", server.port), timeout=5)
    key = f"Authorization: Bearer {PRACTICE_KEY}"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{key}\r\n\r\n".encode())
    return connection


def read(connection: socket.socket, size: int) -> bytes:
    return b"".join(islice(iter(lambda: connection.recv(1), b""), size))


def test_a_handler_that_takes_the_connection_over_speaks_what_it_likes(echo: Echo) -> None:
    with ask(echo, "/echo") as connection:
        assert read(connection, len(SWITCHED)) == SWITCHED
        connection.sendall(b"abc")
        assert read(connection, 3) == b"cba"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the connection ends with it"


def test_a_handler_may_decline_and_the_connection_is_used_again(echo: Echo) -> None:
    with ask(echo, "/busy") as connection:
        first = http.client.HTTPResponse(connection)
        first.begin()
        assert (first.status, first.read()) == (503, b"busy")
        ask(echo, "/done", connection)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in head.lower()
    assert [request.status for request in echo.requests] == [503, 204]


def test_connections_that_are_open_go_on_while_new_ones_are_refused(echo: Echo) -> None:
    with ask(echo, "/echo") as connection:
        assert read(connection, len(SWITCHED)) == SWITCHED
        echo.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            ask(echo, "/echo")
        connection.sendall(b"abc")
        assert read(connection, 3) == b"cba"
        echo.down()
        assert connection.recv(1) == b""


def test_a_stream_has_the_faults_of_every_request() -> None:
    with PracticeFeed(keepalive=None) as feed:
        for when in ("before", "after"):
            feed.reset(when, path=STREAM)  # type: ignore[arg-type]
            with ask(feed, STREAM) as connection, pytest.raises(ConnectionResetError):
                connection.recv(1)
        assert feed.streams == [], "none was opened, and no slot is lost"
        feed.hang()
        with ask(feed, STREAM) as connection:
            assert feed.wait_for_requests(2)
            assert feed.streams == []
            feed.release()
            feed.wait_for_streams()
