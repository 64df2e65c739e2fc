"""Replies as RFC 9112 lets a server write them, and requests that a server does not read to the end."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator, Sequence

import httpx
import pytest

from transforms.write.over_http import connection as http_connection
from transforms.write.over_http import reply as http_reply
from transforms.write.over_http.connection import HttpConnection
from transforms.write.over_http.reply import MAX_HEAD, MAX_LINES, MAX_REPLY, Incoming, Reply, receive
from transforms.write.over_http.sockets import send

OK = b"HTTP/1.1 200 OK\r\n"


class Line(socket.socket):
    """A connection on which `parts` come, each after `seconds`, and then `error` or the end."""

    def __init__(self, *parts: bytes, error: OSError | None = None, seconds: float = 0.0) -> None:
        self.parts: list[bytes] = list(parts)
        self.error = error
        self.seconds = seconds
        self.now = 0.0
        self.asked: list[float | None] = []

    def settimeout(self, value: float | None) -> None:
        self.asked.append(value)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self.now += self.seconds
        if self.parts:
            part, rest = self.parts[0][:bufsize], self.parts[0][bufsize:]
            self.parts[:1] = [rest] if rest else []
            return part
        if self.error is not None:
            raise self.error
        return b""


def read(*parts: bytes, method: str = "POST") -> Reply:
    return receive(Incoming(Line(*parts)), method)


def refused(*parts: bytes) -> str:
    with pytest.raises(httpx.RemoteProtocolError) as error:
        read(*parts)
    return str(error.value)


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
    for parts in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        reply = read(*parts)
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
@pytest.mark.parametrize("error", [None, ConnectionResetError("reset"), TimeoutError("timed out")])
def test_a_broken_body_keeps_its_status_and_costs_the_connection(rest: bytes, error: OSError | None) -> None:
    reply = receive(Incoming(Line(OK + rest, error=error)))
    assert (reply.status, reply.body, reply.again) == (200, b"hello", False)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n"]
)
def test_a_long_body_is_cut_and_costs_the_connection(framing: bytes) -> None:
    size = MAX_REPLY + 100
    framing = framing % size if b"%" in framing else framing
    reply = read(OK + framing + b"x" * size + b"\r\n0\r\n\r\n")
    assert len(reply.body) == MAX_REPLY
    assert not reply.again


# Framing that can be read in two ways, or not at all (RFC 9112, 6)


@pytest.mark.parametrize("lengths", [b"5\r\nContent-Length: 5", b"5, 5", b"5 ,5,5", b"5\t"])
def test_a_length_that_is_repeated_is_one_length(lengths: bytes) -> None:
    reply = read(OK + b"Content-Length: " + lengths + b"\r\n\r\nhello")
    assert (reply.body, reply.again) == (b"hello", True)


@pytest.mark.parametrize(
    "length",
    [
        b"+5", b"-5", b"-1", b"1_0", b"0x5", b"5 5", b"5.0", b"", b"5,", b"5, 6", b"5\r\nContent-Length: 6",
        b"\xef\xbc\x95", b"\xd9\xa5", b"\xb2", b"5\r\n 0", b"9" * 19, b"9" * 5000,
    ],
)  # fmt: skip
def test_a_length_that_is_none_is_no_reply(length: bytes) -> None:
    assert refused(OK + b"Content-Length: " + length + b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "coding",
    [
        b"chunkedchunked",
        b"xchunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"gzip",
        b"identity",
        b"chunked;q=1",
        b"",
    ],
)
def test_a_transfer_coding_that_is_not_chunked_is_no_reply(coding: bytes) -> None:
    assert refused(OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_chunks_win_over_a_length_and_cost_the_connection() -> None:
    framing = b"Content-Length: 3\r\nTransfer-Encoding: CHUNKED\r\n\r\n"
    reply = read(OK + framing + b"5\r\nhello\r\n0\r\n\r\n")
    assert (reply.body, reply.again) == (b"hello", False)


@pytest.mark.parametrize(
    "size",
    [b"+5", b"-5", b"0x5", b"5_0", b" 5", b"5 x", b"", b"g", b"5\x00", b"\xef\xbc\x95", b"0" * 16 + b"5"],
)
def test_a_chunk_whose_size_is_none_ends_the_body_and_the_connection(size: bytes) -> None:
    reply = read(OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n")
    assert (reply.status, reply.body, reply.again) == (200, b"", False)


@pytest.mark.parametrize(
    "chunks", [b"3\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"0\r\nno header\r\n\r\n"]
)
def test_chunks_that_do_not_end_as_they_should_cost_the_connection(chunks: bytes) -> None:
    assert not read(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).again


# More than was asked for

NEXT = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "whole",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("more", [NEXT, b"\r\n", b"x"])
def test_what_follows_a_reply_costs_the_connection(whole: bytes, more: bytes) -> None:
    assert read(whole).again
    assert not read(whole + more).again


def test_bytes_left_over_are_never_the_answer_to_the_next_request() -> None:
    """A server sends two replies at once, and says something else on the next connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for wire in (OK + b"Content-Length: 2\r\n\r\n{}" + OK + b"Content-Length: 0\r\n\r\n", NEXT):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(wire)
                    peer.recv(1000)

        server = threading.Thread(target=serve, daemon=True)  # it waits for ever when this fails
        server.start()
        connection = HttpConnection(f"http://127.0.0.1:{listener.getsockname()[1]}/", {})
        assert [connection.post(b"a").status, connection.post(b"b").status] == [200, 503]
        connection.close()
        server.join()


# Heads


def test_headers_are_found_in_any_case_and_repeated() -> None:
    reply = read(OK + b"RETRY-after:  7 \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")
    assert reply.headers["Retry-After"] == "7"
    assert isinstance(reply.headers, httpx.Headers)
    assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"]


def test_values_may_be_folded_and_of_any_encoding() -> None:
    reply = read(OK + b"X: a\r\n \t b\r\nServer: caf\xe9 \xff\r\nContent-Length: 0\r\n\r\n")
    assert reply.headers["X"] == "a b"
    assert reply.again


@pytest.mark.parametrize("option", [b"close", b"Keep-Alive, Close", b"keep-alive\r\nConnection: close"])
def test_a_server_that_closes_is_not_asked_again(option: bytes) -> None:
    assert not read(OK + b"Content-Length: 0\r\nConnection: " + option + b"\r\n\r\n").again


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2_00 OK\r\n\r\n",
        b"HTTP/1.1 +200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        OK,
        OK + b"Retry-After: 5\r\n",
        OK + b"Content-Length: 5\r\nno colon\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        OK + b"Content-Length : 5\r\n\r\nhello",
        OK + b" Content-Length: 5\r\n\r\nhello",
        OK + b": 5\r\n\r\n",
        OK + b"X: a\rContent-Length: 5\r\n\r\nhello",
        OK + b"X: a\x00b\r\n\r\n",
        OK + b"X\xe9: a\r\n\r\n",
    ],
)
def test_what_is_no_reply_is_an_error(wire: bytes) -> None:
    assert refused(wire)


def test_a_connection_that_breaks_before_the_status_is_a_read_error() -> None:
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        receive(Incoming(Line(error=ConnectionResetError("reset by peer"))))


def test_silence_is_a_read_time_out() -> None:
    with pytest.raises(httpx.ReadTimeout):
        receive(Incoming(Line(error=TimeoutError("timed out"))))


# Bounds


def endless(first: bytes, part: bytes, size: int) -> Sequence[bytes]:
    """`first`, then a good deal more of `part` than `size`."""
    return [first, *[part * (PART // len(part) + 1)] * (3 * size // PART)]


PART = http_reply.PART


@pytest.mark.parametrize(
    ("first", "part"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"),
        (OK, b"X: 1\r\n"),
        (OK, b"X: " + b"x" * 1000 + b"\r\n"),
        (OK + b"X: ", b"x"),
        (b"", b"x"),
    ],
)
def test_a_head_without_end_is_given_up(first: bytes, part: bytes) -> None:
    line = Line(*endless(first, part, MAX_HEAD))
    with pytest.raises(httpx.RemoteProtocolError):
        receive(Incoming(line))
    assert line.parts, "not all was read"


@pytest.mark.parametrize(
    "framing",
    [(b"0\r\n", b"X: 1\r\n"), (b"", b"1;x=" + b"x" * 50 + b"\r\na\r\n"), (b"5;", b"x"), (b"0\r\nX: ", b"x")],
)
def test_chunks_and_trailers_without_end_are_given_up(framing: tuple[bytes, bytes]) -> None:
    first, part = framing
    line = Line(*endless(OK + b"Transfer-Encoding: chunked\r\n\r\n" + first, part, MAX_LINES))
    reply = receive(Incoming(line))
    assert (reply.status, reply.again) == (200, False)
    assert line.parts, "not all was read"


@pytest.mark.parametrize("framing", [b"\r\n", b"Content-Length: 999999999999\r\n\r\n"])
def test_a_body_without_end_is_cut(framing: bytes) -> None:
    line = Line(OK + framing, *[b"x" * PART] * (2 * MAX_REPLY // PART))
    reply = receive(Incoming(line))
    assert (len(reply.body), reply.again) == (MAX_REPLY, False)
    assert line.parts, "not all was read"


@pytest.mark.parametrize("seconds", [7.0, 29.0])
def test_a_reply_that_drips_has_its_time(seconds: float) -> None:
    """A head that is not there in time is no reply; a status that is there counts, whatever its body."""
    line = Line(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 100, seconds=seconds)
    with pytest.raises(httpx.ReadTimeout):
        receive(Incoming(line, monotonic=lambda: line.now))
    assert line.now <= http_reply.REPLY_SECONDS + seconds
    line = Line(OK + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 1000, seconds=seconds)
    reply = receive(Incoming(line, monotonic=lambda: line.now))
    assert (reply.status, reply.again) == (200, False)
    assert line.now <= http_reply.REPLY_SECONDS + seconds
    assert max(each for each in line.asked if each) == http_reply.READ_SECONDS


def test_each_reply_has_its_own_time_and_bytes() -> None:
    line = Line(*[OK + b"X: " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"] * 50, seconds=20.0)
    incoming = Incoming(line, monotonic=lambda: line.now)
    assert [receive(incoming).again for _ in range(50)] == [True] * 50


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


# A head like the one before is not read anew


HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Of: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Of: 2\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\nRetry-After: 7\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\nConnection: close\nContent-Length: %d\n\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n",
]


@pytest.mark.parametrize("seed", range(20))
def test_replies_on_one_connection_are_what_each_is_alone(seed: int) -> None:
    dice = random.Random(seed)
    wires = []
    for _ in range(60):
        body = dice.choice([b"", b"ok", b"\r\n\r\n"])
        wires.append(dice.choice(HEADS) % len(body) + body)
    line = Line()
    kept = Incoming(line)
    for wire in wires:
        at = dice.choice([0, 0, dice.randrange(len(wire))])
        line.parts = [part for part in (wire[:at], wire[at:]) if part]
        alone, found = read(wire), receive(kept)
        assert (found.status, found.body, found.again) == (alone.status, alone.body, alone.again)
        assert found.headers == alone.headers


@pytest.mark.parametrize(
    "ending", [b"", b"HTTP/1.1 2", TimeoutError("timed out"), ConnectionResetError("reset")]
)
def test_a_head_that_does_not_come_again_is_an_error_as_the_first_time(ending: bytes | OSError) -> None:
    head = HEADS[0] % 0
    came, error = ([ending], None) if isinstance(ending, bytes) else ([], ending)
    line = Line(head)
    kept = Incoming(line)
    receive(kept)
    line.parts, line.error = [part for part in came if part], error
    with pytest.raises(httpx.TransportError) as again:
        receive(kept)
    with pytest.raises(httpx.TransportError) as first:
        receive(Incoming(Line(*[part for part in came if part], error=error)))
    assert (type(again.value), str(again.value)) == (type(first.value), str(first.value))


def test_a_head_is_kept_only_while_it_is_small() -> None:
    head = OK + b"X-Long: " + b"x" * http_reply.MAX_KNOWN + b"\r\nContent-Length: 0\r\n\r\n"
    line = Line(head, head)
    kept = Incoming(line)
    assert [receive(kept).status, kept.known_head(), receive(kept).status] == [200, None, 200]
