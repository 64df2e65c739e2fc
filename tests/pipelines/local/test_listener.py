"""The HTTP server under status page and webhooks, met by clients that are slow, wrong, huge or hostile."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.local.inbound import MAX_FRAMING, MAX_HEAD, REQUEST_SECONDS, Answer, Request
from pipelines.local.listener import ACCEPT_PAUSE, Listener, ListenFailed, Loop, PortTaken
from tests.pipelines.local.test_lane import eventually
from tests.transforms.write.manual_clock import ManualClock

MAX_BODY = 10_000
MOST = 8


@dataclass
class Served:
    """A listener, what it was asked, and what it refused."""

    clock: ManualClock = field(default_factory=ManualClock)
    asked: list[Request] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda request: Answer(200, b"taken\n")
    listener: Listener = field(init=False)

    def __post_init__(self) -> None:
        self.listener = Listener(
            "127.0.0.1",
            0,
            self._answer,
            name="test",
            max_body=MAX_BODY,
            connections=MOST,
            threads=2,
            refused=lambda why, client: self.refused.append(f"{why} {client}"),
            monotonic=self.clock.monotonic,
        )
        self.listener.start()

    def _answer(self, request: Request) -> Answer:
        self.asked.append(request)
        return self.answer(request)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listener.port), timeout=5)

    def say(self, data: bytes) -> bytes:
        """All that is answered to these bytes, until the server ends the connection."""
        with self.connect() as client:
            with contextlib.suppress(OSError):  # the server may have had enough
                client.sendall(data)
            return everything(client)

    def is_well(self) -> bool:
        return self.say(get()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.listener.close()


def everything(client: socket.socket) -> bytes:
    """What comes until the end; raises TimeoutError when none comes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65536):
            found += more
    return found


def get(path: str = "/", version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()


def post(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers or [f"Content-Length: {len(body)}"])
    return f"POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (*chunks, b""))
    return post(body, "Transfer-Encoding: chunked")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# Requests that are right


def test_a_body_comes_whole_in_chunks_or_with_a_length(served: Served) -> None:
    body = bytes(range(256)) * 20
    assert (
        status(served.say(post(body)))
        == status(served.say(chunked(body[:1], body[1:700], body[700:])))
        == 200
    )
    assert [request.body for request in served.asked] == [body, body]
    assert served.refused == []


@pytest.mark.parametrize("make", [post, chunked])
def test_a_body_may_be_as_large_as_is_said_and_no_larger(served: Served, make: Any) -> None:
    assert status(served.say(make(b"x" * MAX_BODY))) == 200
    assert status(served.say(make(b"x" * (MAX_BODY + 1)))) == 413
    assert len(served.asked) == 1
    assert served.refused == ["too_large 127.0.0.1"]


def test_http_1_0_and_a_client_that_has_shut_its_side_are_answered(served: Served) -> None:
    assert served.say(get(version="1.0")).startswith(b"HTTP/1.0 200 OK\r\n")
    with served.connect() as client:
        client.sendall(get())
        client.shutdown(socket.SHUT_WR)
        assert everything(client).endswith(b"\r\n\r\ntaken\n")


def test_head_is_answered_without_a_body(served: Served) -> None:
    answer = served.say(get().replace(b"GET", b"HEAD"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 6\r\n" in answer


def test_an_absolute_url_names_path_and_host(served: Served) -> None:
    served.say(get("http://evil.example:80/status.json?a=b"))
    (request,) = served.asked
    assert (request.host, request.path, request.query) == ("evil.example:80", "/status.json", "a=b")


def test_of_pipelined_requests_one_is_answered_and_the_rest_is_nobodys_body(served: Served) -> None:
    answer = served.say(post(b"one") + post(b"two") + get())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer
    assert [request.body for request in served.asked] == [b"one"]


@pytest.mark.parametrize("connection", ["keep-alive", "close", "Upgrade"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_connection_ends_after_its_answer(served: Served, version: str, connection: str) -> None:
    answer = served.say(
        get(version=version).replace(b"\r\n\r\n", f"\r\nConnection: {connection}\r\n\r\n".encode())
    )
    assert answer.lower().count(b"\r\nconnection:") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_a_client_that_asks_first_is_told_to_go_on(served: Served) -> None:
    with served.connect() as client:
        client.sendall(post(b"", "Content-Length: 4", "Expect: 100-continue"))
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert status(everything(client)) == 200


# Requests that are wrong


WRONG = {
    "two lengths": post(b"hello", "Content-Length: 5", "Content-Length: 6"),
    "one length twice": post(b"hello", "Content-Length: 5", "Content-Length: 5"),
    "a length and chunks": post(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "chunks in HTTP/1.0": chunked(b"hello").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunks and a length in HTTP/1.0": post(
        b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"
    ).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "negative": post(b"hello", "Content-Length: -5"),
    "signed": post(b"hello", "Content-Length: +5"),
    "hexadecimal": post(b"hello", "Content-Length: 0x5"),
    "with a line": post(b"hello", "Content-Length: 1_0"),
    "full-width digits": post(b"hello", "Content-Length: \uff15"),
    "5000 digits": post(b"hello", f"Content-Length: {'9' * 5000}"),
    "no length": post(b"hello", "Content-Length: "),
    "gzip": post(b"0\r\n\r\n", "Transfer-Encoding: gzip"),
    "gzip, chunked": post(b"0\r\n\r\n", "Transfer-Encoding: gzip, chunked"),
    "identity": post(b"hello", "Transfer-Encoding: identity"),
    "chunk of -1": post(b"-1\r\nx\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunk of 0x1": post(b"0x1\r\nx\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunk longer than it says": post(b"1\r\nxx\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "an endless extension": post(b"1;" + b"x" * 2 * MAX_FRAMING, "Transfer-Encoding: chunked"),
    "endless zeros": post(b"0" * 2 * MAX_FRAMING, "Transfer-Encoding: chunked"),
    "an endless trailer": post(b"0\r\n" + b"a: b\r\n" * MAX_FRAMING, "Transfer-Encoding: chunked"),
    "chunks of one byte": post(b"1\r\nx\r\n" * 20_000, "Transfer-Encoding: chunked"),
    "a million headers": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1_000_000,
    "one endless header": b"GET / HTTP/1.1\r\na: " + b"b" * 2 * MAX_HEAD,
    "an endless line": b"GET /" + b"a" * 2 * MAX_HEAD,
    "no IPv6 address": get("http://[::1/"),
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    "a blank in a name": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a folded first header": b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
    "a lone line feed": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "too large, asking first": post(b"", f"Content-Length: {MAX_BODY + 1}", "Expect: 100-continue"),
    "a wrong length, asking first": post(b"", "Content-Length: x", "Expect: 100-continue"),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_counted_and_told(
    served: Served, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = served.say(data)
    assert status(answer) in (400, 413, 431, 501)
    assert b"waitress" not in answer.lower()
    (why,) = served.refused
    assert why.split()[0] == ("too_large" if status(answer) in (413, 431) else "malformed")
    assert served.asked == []
    assert served.is_well()
    assert caplog.records == []


def test_a_client_that_sends_on_after_its_refusal_still_reads_it(served: Served) -> None:
    """Closed with unread bytes in the socket, the connection is reset, and the answer may be lost."""
    with served.connect() as client:
        client.sendall(post(b"x" * 100_000))
        assert status(client.recv(100)) == 413
        client.sendall(b"x" * 300_000)
        assert b"at most 10000 bytes" in everything(client)


def test_a_body_shorter_than_its_length_is_no_request(served: Served) -> None:
    with served.connect() as client:
        client.sendall(post(b"hel", "Content-Length: 5"))
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b""
    assert served.asked == []
    assert served.refused == ["malformed 127.0.0.1"]


def test_of_a_body_longer_than_its_length_the_rest_is_not_read(served: Served) -> None:
    assert status(served.say(post(b"hello, world", "Content-Length: 5"))) == 200
    assert [request.body for request in served.asked] == [b"hello"]


# Clients that take their time, and all there is


@pytest.mark.parametrize(
    "begun", [b"", b"GET / HTTP/1.1\r\nX: ", post(b"hel", "Content-Length: 50"), chunked(b"hello")[:-5]]
)
def test_a_client_has_its_time_in_all_however_it_drips(served: Served, begun: bytes) -> None:
    with served.connect() as client:
        client.sendall(begun)
        assert served.is_well()  # so it has been accepted
        for _ in range(3):
            served.clock.advance(REQUEST_SECONDS / 4)
            client.sendall(b"1")
            assert served.is_well()
        served.clock.advance(REQUEST_SECONDS / 4)
        assert everything(client) == b""
    assert served.refused == ["slow 127.0.0.1"]


def test_a_client_that_does_not_read_its_answer_has_its_time_in_all(served: Served) -> None:
    served.answer = lambda request: Answer(200, b"x" * 20_000_000)
    with served.connect() as client:
        client.sendall(get())
        assert client.recv(12) == b"HTTP/1.1 200"
        served.clock.advance(REQUEST_SECONDS)
        assert len(everything(client)) < 20_000_000
    assert served.refused == []


def test_one_connection_too_many_ends_the_oldest(served: Served) -> None:
    clients = [served.connect() for _ in range(MOST + 3)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\n")
    try:
        assert [everything(client) for client in clients[:3]] == [b""] * 3
        assert served.refused == ["slow 127.0.0.1"] * 3
        for client in clients[3:]:  # all the others are as they were
            client.sendall(b"\r\n")
            assert status(everything(client)) == 200
    finally:
        for client in clients:
            client.close()


def test_while_all_are_being_answered_one_more_is_sent_away(served: Served) -> None:
    release = threading.Event()

    def answer(request: Request) -> Answer:
        assert release.wait(10)
        return Answer(200, b"at last\n")

    served.answer = answer
    clients = [served.connect() for _ in range(MOST)]
    for client in clients:
        client.sendall(get())
    assert eventually(lambda: len(served.asked) == 2)  # both threads; the others wait in line
    assert served.say(get()) == b""
    assert served.refused == ["busy 127.0.0.1"]
    release.set()
    for client in clients:
        assert status(everything(client)) == 200
        client.close()


def test_urgent_data_ends_its_connection_and_nothing_spins(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with served.connect() as client:
        client.send(b"!", socket.MSG_OOB)
        assert everything(client) == b""
    assert served.is_well()
    assert caplog.records == []


def test_without_a_free_descriptor_it_waits_and_says_so_once(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("_turn", "_accept_one"):
        monkeypatch.setattr(Loop, name, noting(getattr(Loop, name), name, done))
    clients = [socket.socket(), socket.socket()]
    with no_descriptors():
        for client in clients:
            client.settimeout(5)
            client.connect(("127.0.0.1", served.listener.port))
            client.sendall(get())
        assert eventually(lambda: "no connection can be taken now" in caplog.text)
        for turn in range(3):
            before = done.count("_turn")
            served.listener._server.trigger.pull_trigger()  # wakes the loop, which has nothing to do
            assert eventually(lambda before=before: done.count("_turn") > before)  # type: ignore[misc]
            assert done.count("_accept_one") == 1, turn
    served.clock.advance(ACCEPT_PAUSE)
    for client in clients:
        assert status(everything(client)) == 200
        client.close()
    assert len(caplog.records) == 1


def noting(method: Callable[..., Any], name: str, done: list[str]) -> Callable[..., Any]:
    """`method`, which leaves its name."""

    def noted(self: Any) -> Any:
        done.append(name)
        return method(self)

    return noted


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process gets no further one."""
    usual, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, hard))


def test_a_failure_of_ours_is_a_500_and_one_line_and_the_next_is_answered(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Request) -> Answer:
        raise KeyError("surprise")

    served.answer = answer
    assert status(served.say(get())) == status(served.say(get())) == 500
    assert [record.getMessage() for record in caplog.records] == ["a request could not be answered"]
    served.answer = lambda request: Answer(200, b"taken\n")
    assert served.is_well()


# Its life


def test_closed_it_finishes_what_is_being_answered_and_gives_the_port_back() -> None:
    served, begun, release = Served(), threading.Event(), threading.Event()

    def answer(request: Request) -> Answer:
        begun.set()
        assert release.wait(10)
        return Answer(200, b"taken\n")

    served.answer = answer
    with served.connect() as client, served.connect() as waiting:
        client.sendall(get())
        assert begun.wait(10)
        closing = threading.Thread(target=served.listener.close)
        closing.start()
        release.set()
        closing.join(10)
        assert not closing.is_alive()
        assert status(everything(client)) == 200
        assert everything(waiting) == b""
    served.listener.close()  # once more is nothing
    with socket.create_server(("127.0.0.1", served.listener.port)):
        pass


def test_what_never_began_is_closed_as_well() -> None:
    listener = Listener(
        "127.0.0.1", 0, lambda request: Answer(200, b""), name="t", max_body=1, connections=1, threads=1
    )
    listener.close()
    with socket.create_server(("127.0.0.1", listener.port)):
        pass


def listen(host: str = "127.0.0.1", port: int = 0) -> Listener:
    return Listener(host, port, lambda _: Answer(200, b""), name="t", max_body=1, connections=1, threads=1)


def test_a_port_that_is_taken_is_a_persons_to_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is taken on 127.0.0.1: another process"):
            listen(port=port)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no.such.host.invalid", "a" * 64])
def test_so_is_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(PortTaken, match=f"{host}:0 cannot be listened on"):
        listen(host)


def test_a_process_without_descriptors_may_have_some_later() -> None:
    with no_descriptors(), pytest.raises(ListenFailed, match=os.strerror(errno.EMFILE)):
        listen()
    listen().close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, PortTaken),
        (errno.EADDRNOTAVAIL, PortTaken),
        (errno.ENFILE, ListenFailed),
        (errno.ENOBUFS, ListenFailed),
        (errno.ENOMEM, ListenFailed),
        (errno.EINTR, ListenFailed),
    ],
)
def test_what_passes_by_itself_is_told_apart(
    number: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)  # what the system would say
    with pytest.raises(kind, match=os.strerror(number)):
        listen()


def test_its_library_says_nothing_of_strangers() -> None:
    assert not logging.getLogger("waitress").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("waitress.queue").isEnabledFor(logging.ERROR)
