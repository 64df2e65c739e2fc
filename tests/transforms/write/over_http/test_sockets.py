"""Sockets: what is sent and what has come, at once or later, and how it ends."""

from __future__ import annotations

import random
import select
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import httpx
import pytest

from transforms.write.over_http.reply import PART
from transforms.write.over_http.sockets import SHORT, SMALL, dial, has_news, send, send_at_once


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


@pytest.mark.parametrize("size", [0, 1, 1000, SMALL - 1, SMALL, 300_000])
def test_what_does_not_go_at_once_follows_in_order(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor, size: int
) -> None:
    ours, theirs = pair
    body = random.Random(size).randbytes(size)
    sending = pool.submit(send, ours, b"head", body)
    with theirs.makefile("rb") as arriving:
        assert arriving.read(4 + size) == b"head" + body
    assert sending.result(5) is None


@pytest.mark.parametrize("size", [SMALL - 1, 1_000_000])
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


@pytest.mark.parametrize("size", [1, SHORT, SHORT + 1, 300_000])
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


@pytest.mark.parametrize("size", [1, 1500, SHORT, SHORT + 1, 20_000])
def test_what_has_come_is_read_at_once(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """A head that comes in two parts would be parsed each time, though it is the same as before."""
    ours, theirs = pair
    theirs.sendall(bytes(size))
    while len(ours.recv(PART, socket.MSG_PEEK)) < size:
        pass
    assert ours.recv(PART) == bytes(size)


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
