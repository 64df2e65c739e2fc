"""Replies put together and damaged at random: whatever our connection believes, h11 reads in the same way."""

from __future__ import annotations

from dataclasses import dataclass

import h11
import httpx
import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

from tests.transforms.write.over_http.test_reply import Line
from transforms.write.over_http.reply import Incoming, Reply, receive

STARTS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 204 No Content", b"HTTP/1.0 200 OK", b"HTTP/1.1 503 Busy",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 +200 OK", b"HTTP/1.1 304 Not Modified",
]  # fmt: skip
HEADERS = [
    b"Content-Length: 5", b"content-length:5", b"Content-Length: 5, 5", b"Content-Length: 5, 6",
    b"Content-Length: +5",
    b"Content-Length: 1_0", b"Content-Length: 0x5", b"Content-Length: \xef\xbc\x95", b"Content-Length: -1",
    b"Content-Length: 0", b"Content-Length: 9", b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: chunkedchunked", b"Transfer-Encoding: gzip, chunked", b"Connection: close",
    b"Connection: keep-alive", b"X: a\r\n b", b"X : a", b"X", b": a", b"X:", b"X: caf\xe9", b"X: a\rb",
]  # fmt: skip
BODIES = [
    b"", b"hello", b"hell", b"hello!", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"-1\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n", b"3\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
]  # fmt: skip
FILLED = st.sampled_from(
    [b"", b"\r\n", b" ", b"\t", b"\x00", b"0", b"5", b"_", b"+", b",", b";", b"x", b"HTTP/1.1 200 OK"]
)
PATIENCE = settings(max_examples=600, deadline=None, derandomize=True)


@dataclass
class Read:
    """What h11 makes of the bytes, or None in `status`. `again`: another request could go out."""

    status: int | None
    body: bytes = b""
    whole: bool = False
    again: bool = False


def by_h11(wire: bytes) -> Read:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    read = Read(None)
    ended = False
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                read.status = event.status_code
            elif isinstance(event, h11.Data):
                read.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                read.whole = True
                closing = connection.their_state is not h11.DONE or bool(connection.trailing_data[0])
                read.again = not (ended or closing)
                return read
            elif event is h11.NEED_DATA and not ended:
                connection.receive_data(b"")
                ended = True
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return read
    except h11.RemoteProtocolError:
        return read


def ours(wire: bytes) -> Reply | None:
    try:
        return receive(Incoming(Line(wire)))
    except httpx.RemoteProtocolError:
        return None


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Sound framing as often as not, and as often undamaged."""
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=3))
    body = draw(st.sampled_from(BODIES))
    if draw(st.booleans()):
        headers = [header for header in headers if header[:2] == b"X:"][:1]
        chunked = body[-4:] == b"\r\n\r\n"
        headers.append(b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body))
    wire = b"\r\n".join([draw(st.sampled_from(STARTS)), *headers, b"", body])
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at, until = sorted((draw(st.integers(0, len(wire))), draw(st.integers(0, len(wire)))))
        wire = wire[:at] + draw(FILLED) + wire[at if until - at > 3 else until :]
    return wire


@pytest.mark.slow
@seed(11)
@PATIENCE
@given(replies())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello")
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 503 Busy\r\n\r\n")
def test_what_we_believe_h11_reads_in_the_same_way(wire: bytes) -> None:
    mine, theirs = ours(wire), by_h11(wire)
    if mine is None:
        return
    assert mine.status == theirs.status
    if theirs.whole:
        assert mine.body == theirs.body
    if mine.again:
        assert theirs.again


@pytest.mark.slow
@seed(12)
@PATIENCE
@given(replies())
def test_what_h11_reads_whole_and_would_use_again_so_do_we(wire: bytes) -> None:
    mine, theirs = ours(wire), by_h11(wire)
    if theirs.again:
        assert mine is not None
        assert (mine.status, mine.body) == (theirs.status, theirs.body)
