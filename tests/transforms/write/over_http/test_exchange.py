"""Replies as RFC 9112 lets a server write them, and requests that a server does not read to the end."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from transforms.write.over_http import connection as http_connection
from transforms.write.over_http.connection import HttpConnection
from transforms.write.over_http.exchange import MAX_HEADERS, MAX_REPLY, receive, send

OK = b"HTTP/1.1 200 OK\r\n"


class Broken(io.BytesIO):
    """A stream that ends in a reset or a time-out instead of in silence."""

    error: OSError = ConnectionResetError("reset by peer")

    def readline(self, size: int | None = -1) -> bytes:
        return super().readline(size) or self._fail()

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size) or self._fail()

    def _fail(self) -> bytes:
        raise self.error


# Bodies


@pytest.mark.parametrize(
    ("wire", "body", "again"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        (OK + b"content-length:5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n", b"hello", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n", b"hello", True),
        (OK + b"\r\nuntil the end", b"until the end", False),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello", True),
    ],
)
def test_a_body_ends_where_its_framing_says(wire: bytes, body: bytes, again: bool) -> None:
    reply = receive(io.BytesIO(wire))
    assert (reply.body, reply.again) == (body, again)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 50\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzzz\r\n",
    ],
)
@pytest.mark.parametrize("stream", [io.BytesIO, Broken])
def test_a_broken_body_keeps_its_status_and_costs_the_connection(
    rest: bytes, stream: type[io.BytesIO]
) -> None:
    reply = receive(stream(OK + rest))
    assert (reply.status, reply.body, reply.again) == (200, b"hello", False)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n"]
)
def test_a_long_body_is_cut_and_costs_the_connection(framing: bytes) -> None:
    size = MAX_REPLY + 100
    framing = framing % size if b"%" in framing else framing
    reply = receive(io.BytesIO(OK + framing + b"x" * size + b"\r\n0\r\n\r\n"))
    assert len(reply.body) == MAX_REPLY
    assert not reply.again


# Heads


def test_headers_are_found_in_any_case_and_repeated() -> None:
    reply = receive(
        io.BytesIO(
            OK + b"RETRY-after:  7 \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
        )
    )
    assert reply.headers["Retry-After"] == "7"
    assert isinstance(reply.headers, httpx.Headers)
    assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        OK + b"Retry-After: 5\r\n",
        OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        OK + b"X: 1\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    ],
)
def test_what_is_no_reply_is_an_error(wire: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        receive(io.BytesIO(wire))


def test_a_connection_that_breaks_before_the_status_is_a_read_error() -> None:
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        receive(Broken())


def test_silence_is_a_read_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "error", TimeoutError("timed out"))
    with pytest.raises(httpx.ReadTimeout):
        receive(Broken())


# Sending


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_request_larger_than_the_buffers_arrives_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    request = bytes(range(256)) * 20_000
    received = bytearray()

    def read() -> None:
        while part := theirs.recv(65_536):
            received.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    ours.settimeout(5)
    send(ours, request)
    ours.shutdown(socket.SHUT_WR)
    reader.join()
    assert bytes(received) == request


def test_a_peer_that_reads_nothing_is_a_write_time_out(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].settimeout(0.05)
    with pytest.raises(httpx.WriteTimeout):
        send(pair[0], b"x" * 10_000_000)


def test_an_early_reply_is_read_though_the_request_was_not() -> None:
    """A 413 comes before the body is read, and then the server closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 20):
                    pass

        server = threading.Thread(target=refuse)
        server.start()
        connection = HttpConnection(f"http://127.0.0.1:{listener.getsockname()[1]}/", {})
        assert connection.post(b"x" * 5_000_000).status == 413
        connection.close()
        server.join()


# The connection


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "nul\0", "", " ", "caf\u00e9"])
def test_a_value_that_is_no_header_is_never_sent_nor_shown(value: str) -> None:
    connection = HttpConnection("http://127.0.0.1:9/", {})
    connection.set_header("Authorization", f"Splunk {value}" if value.strip() else value)
    with pytest.raises(
        httpx.LocalProtocolError, match=r"^the value of Authorization cannot be sent"
    ) as error:
        connection.post(b"")
    assert value.strip() == "" or value not in str(error.value)


def test_an_address_that_is_none_is_refused_at_once() -> None:
    for url in ("ftp://example.com/", "example.com/path", "http:///path"):
        with pytest.raises((httpx.UnsupportedProtocol, httpx.InvalidURL)):
            HttpConnection(url, {})


def test_an_unknown_host_is_a_connection_error() -> None:
    with pytest.raises(httpx.ConnectError):
        HttpConnection("http://host.invalid/", {}).post(b"")


def test_a_host_that_swallows_packets_is_a_connection_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "CONNECT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # fill the queue of connections that nobody accepts
            each.setblocking(False)
            each.connect_ex(address)
        with pytest.raises(httpx.ConnectTimeout):
            HttpConnection(f"http://127.0.0.1:{address[1]}/", {}).post(b"")
        for each in waiting:
            each.close()
