"""The practice service's webhooks go out as the service sends them, in both generations."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pytest
from grantex import verify_webhook

from pipelines.practice.events import generate
from pipelines.practice.ledger import Generation
from pipelines.practice.webhooks import PER_TICK, TICK, WebhookSender
from tests.transforms.write.manual_clock import ManualClock


@dataclass(frozen=True)
class Webhook:
    url: str
    secret: str = "5e" * 24
    events: tuple[str, ...] = ("grant.created", "grant.revoked", "token.issued")


class Answering:
    """Answers each request with `status`, and remembers heads and bodies."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"}}" not in data[-10:]:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                self.heads.append(head.decode())
                self.bodies.append(body)
                connection.sendall(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.fixture
def receiver() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def granted() -> bytes:
    return next(event for event in generate() if b'"grant.created"' in event)


@pytest.mark.parametrize(
    ("generation", "framing"), [("O", "transfer-encoding: chunked"), ("N", "content-length: ")]
)
def test_a_request_has_the_generations_framing_and_a_signature_that_the_service_knows(
    receiver: Answering, generation: Generation, framing: str
) -> None:
    sender = WebhookSender([Webhook(receiver.url)], generation)
    event = granted()
    sender.publish([event])
    assert sender.tick() == 1
    (head,) = receiver.heads
    assert framing in head
    assert event in receiver.bodies[0]
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    signature, timestamp = headers["x-grantex-signature-v2"], headers["x-grantex-timestamp"]
    assert verify_webhook(event, signature, timestamp, "5e" * 24)
    assert (sender.counts("delivered"), sender.counts("pending")) == (1, 0)


def test_what_fails_is_tried_five_times_and_never_again(receiver: Answering) -> None:
    clock = ManualClock()
    receiver.status = 500
    sender = WebhookSender([Webhook(receiver.url)], "N", clock)
    sender.publish([granted()])
    attempts = []
    for tick in range(1, 40):
        clock.advance(TICK)
        if sender.tick():
            attempts.append(tick)
    assert attempts == [1, 2, 4, 8, 16]  # 30, 60, 120 and 240 s between them
    (one,) = sender.outgoing
    assert (one.status, one.attempts, one.last_error) == ("failed", 5, "HTTP 500")


def test_twenty_go_out_with_each_tick(receiver: Answering) -> None:
    sender = WebhookSender([Webhook(receiver.url)], "N")
    sender.publish([each for each in islice(generate(), 200) if b"budget" not in each][:50])
    assert [sender.tick() for _ in range(4)] == [PER_TICK, PER_TICK, 10, 0]


def test_types_that_the_webhook_has_not_are_not_sent(receiver: Answering) -> None:
    sender = WebhookSender([Webhook(receiver.url, events=("grant.revoked",))])
    sender.publish([granted()])
    assert sender.outgoing == []


@pytest.mark.parametrize("status", [204, 205, 304])
def test_an_answer_can_end_the_older_service(receiver: Answering, status: int) -> None:
    receiver.status = status
    sender = WebhookSender([Webhook(receiver.url)], "O")
    sender.publish([granted()])
    sender.tick()
    assert sender.crashed
    assert sender.tick() == 0
    assert sender.counts("pending") == 1


def test_a_redirect_is_a_failure(receiver: Answering) -> None:
    receiver.status = 302
    sender = WebhookSender([Webhook(receiver.url)], "N")
    sender.publish([granted()])
    sender.tick()
    assert sender.outgoing[0].last_error == "HTTP 302"
