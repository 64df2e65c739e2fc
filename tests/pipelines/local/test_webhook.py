"""The webhook receiver: what it takes, what it refuses and how, and what it makes of each secret."""

from __future__ import annotations

import contextlib
import http.client
import logging
import select
import socket
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.local.webhook import (
    HOLD_SECONDS,
    REREAD_SECONDS,
    RESULTS,
    THREADS,
    WebhookReceiver,
    WebhookSettings,
)
from pipelines.practice.events import generate
from pipelines.practice.webhooks import signed
from tests.pipelines.local.test_lane import eventually
from tests.pipelines.local.test_listener import everything
from tests.transforms.write.manual_clock import ManualClock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import JournalFull
from transforms.feed.journal import Journal
from transforms.feed.webhook_signature import sign
from transforms.secret import FileSecret, LiteralSecret

SECRET, OTHER = "webhook-secret-for-nobody", "other-webhook-secret"
EVENT = next(generate(seed=1, now=1_772_366_400.0))


class Posted:
    """A receiver in front of a journal, and a service that knows a secret."""

    def __init__(self, place: Path, **changes: Any) -> None:
        self.clock = ManualClock()
        self.journal = Journal(place / "state", feed_url="https://feed.test", clock=self.clock)
        usual = WebhookSettings(port=0, secrets=(LiteralSecret(SECRET), LiteralSecret(OTHER)))
        self.receiver = WebhookReceiver(replace(usual, **changes), self.journal, self.clock)
        self.receiver.start()

    def close(self) -> None:
        self.receiver.close()
        self.journal.close()

    def send(
        self, body: bytes, headers: dict[str, str], method: str = "POST", path: str = "/"
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.receiver.port, timeout=10)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, body: bytes, secret: str = SECRET, late: float = 0.0) -> int:
        """The status that a signed request is answered with."""
        return self.send(body, signed(body, secret, self.clock.now() - late))[0]

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.receiver.counts.items() if count}

    def events(self) -> list[bytes]:
        return [event.raw for chunk in self.journal.read(0, 10**6) for event in chunk.events]


@pytest.fixture
def posted(tmp_path: Path) -> Iterator[Posted]:
    made = Posted(tmp_path)
    made.journal.cursor("keeps what is received")
    yield made
    made.close()


def test_an_event_is_in_the_journal_byte_for_byte_before_the_200(posted: Posted) -> None:
    status, body = posted.send(EVENT, signed(EVENT, SECRET, posted.clock.now()))
    assert (status, body) == (200, b"received\n")
    assert posted.events() == [EVENT]
    assert posted.counts == {"accepted": 1}


def test_each_secret_of_the_list_is_good(posted: Posted) -> None:
    one, two = islice(generate(), 2)
    assert posted.post(one, SECRET) == posted.post(two, OTHER) == 200
    assert posted.events() == [one, two]


def test_the_same_event_again_is_a_200_and_in_the_journal_once(posted: Posted) -> None:
    assert posted.post(EVENT) == 200
    posted.clock.advance(31)  # signed anew
    assert posted.post(EVENT) == 200
    assert posted.post(EVENT, OTHER) == 200  # of a second webhook
    assert posted.events() == [EVENT]
    assert posted.counts == {"accepted": 1, "duplicate": 2}


def test_what_a_stream_has_brought_is_not_taken_again(posted: Posted) -> None:
    head = msgspec.json.decode(EVENT)
    posted.journal.append([Event(head["id"], head["type"], head["createdAt"], EVENT)], [])
    assert posted.post(EVENT) == 200
    assert posted.events() == [EVENT]
    assert posted.counts == {"duplicate": 1}


@pytest.mark.parametrize(
    ("body", "cause"),
    [(b"no json", "not_json"), (b"[]", "no_id"), (b"", "not_json"), (b'{"id":"\xff"}', "not_utf8")],
)
def test_what_is_signed_and_no_event_is_kept_as_a_dead_letter(
    posted: Posted, body: bytes, cause: str
) -> None:
    headers = signed(body, SECRET, posted.clock.now())
    assert posted.send(body, headers)[0] == 200
    ((_, letter),) = posted.journal.dead_letters()
    assert (letter.stage, letter.raw, letter.cause.partition(":")[0]) == ("feed", body, cause)
    for _ in range(3):  # and whoever repeats the request fills nothing with it
        assert posted.send(body, headers)[0] == 200
    assert len(posted.journal.dead_letters()) == 1
    assert posted.counts == {"not_an_event": 1, "duplicate": 3}


def test_repeats_of_one_request_cost_no_look_into_the_journal(posted: Posted) -> None:
    headers = signed(EVENT, SECRET, posted.clock.now())
    for _ in range(5):
        assert posted.send(EVENT, headers)[0] == 200
    assert posted.journal.duplicates == 0
    assert posted.counts == {"accepted": 1, "duplicate": 4}


@pytest.mark.parametrize("late", [301, -301])
def test_a_request_of_another_time_is_refused(posted: Posted, late: int) -> None:
    assert posted.post(EVENT, late=late) == 401
    assert posted.counts == {"stale": 1}
    assert posted.post(EVENT, late=late / 301 * 300) == 200


def test_a_replay_is_refused_once_its_time_is_over(posted: Posted) -> None:
    headers = signed(EVENT, SECRET, posted.clock.now())
    assert posted.send(EVENT, headers)[0] == 200
    posted.clock.advance(301)
    assert posted.send(EVENT, headers)[0] == 401


def test_what_is_forged_is_refused_and_never_looked_into(posted: Posted) -> None:
    assert posted.post(EVENT, "no secret of ours") == 401
    right = signed(EVENT, SECRET, posted.clock.now())
    for name in ("x-grantex-signature-v2", "x-grantex-timestamp"):
        assert posted.send(EVENT, {k: v for k, v in right.items() if k != name})[0] == 401
    assert posted.send(EVENT + b" ", right)[0] == 401
    assert posted.send(EVENT, right | {"x-grantex-signature-v2": "sha256=\xe9"})[0] == 401
    assert posted.send(b"[" * 1000, signed(b"", SECRET, 0))[0] == 401
    assert posted.events() == []
    assert posted.journal.dead_letters() == []
    assert posted.counts == {"bad_signature": 6}


def test_the_older_signature_alone_is_taken_only_where_it_is_allowed(posted: Posted, tmp_path: Path) -> None:
    headers = signed(EVENT, SECRET, posted.clock.now())
    older = {name: headers[name] for name in ("content-type", "x-grantex-signature")}
    assert posted.send(EVENT, older)[0] == 401
    allowing = Posted(tmp_path / "allowing", allow_v1=True)
    try:
        assert allowing.send(EVENT, older)[0] == 200
        wrong = headers | {"x-grantex-signature-v2": sign(EVENT, "1", SECRET)}
        assert allowing.send(EVENT, wrong)[0] == 401  # never a way around the newer one
        assert allowing.counts == {"accepted": 1, "bad_signature": 1}
    finally:
        allowing.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_webhooks_are_posted(posted: Posted, method: str) -> None:
    assert posted.send(b"", {}, method)[0] == 405
    assert posted.counts == {"method": 1}


def test_they_are_taken_on_one_path(tmp_path: Path) -> None:
    posted = Posted(tmp_path, path="/grantex/events")
    try:
        headers = signed(EVENT, SECRET, posted.clock.now())
        assert posted.send(EVENT, headers, path="/")[0] == 404
        assert posted.send(EVENT, headers, path="/grantex/events?webhook=2")[0] == 200
        assert posted.counts == {"path": 1, "accepted": 1}
    finally:
        posted.close()


def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    posted = Posted(tmp_path, max_bytes=len(EVENT))
    try:
        assert posted.post(EVENT + b" ") == 413
        assert posted.post(EVENT) == 200
        assert posted.counts == {"too_large": 1, "accepted": 1}
    finally:
        posted.close()


def test_types_that_the_streams_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    posted = Posted(tmp_path, types=("grant.created",))
    posted.journal.cursor("keeps what is received")
    try:
        other, untyped = b'{"id":"evt_2","type":"token.issued"}', b'{"id":"evt_3"}'
        assert posted.post(EVENT) == posted.post(other) == posted.post(untyped) == 200
        assert posted.events() == [EVENT, untyped]
        assert posted.counts == {"accepted": 2, "filtered": 1}
    finally:
        posted.close()


def test_a_webhook_is_no_sign_that_the_streams_are_heard(posted: Posted) -> None:
    """A gap begins where they were last heard, whatever else came in between."""
    posted.journal.heard()
    since = posted.clock.now()
    posted.clock.advance(60)
    assert posted.post(EVENT) == 200
    posted.journal.open_gap("both streams are away")
    posted.clock.advance(60)
    assert posted.post(next(generate())) == 200
    (gap,) = posted.journal.gaps()
    assert (gap.since, gap.until) == (since, None)


# Secrets


def test_a_new_secret_is_read_when_the_old_ones_fit_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("the first secret\n")
    posted = Posted(tmp_path, secrets=(FileSecret(str(file)),))
    try:
        file.write_text("the second secret\n")
        assert posted.post(EVENT, "the second secret") == 401  # just read: a flood must not read again
        posted.clock.advance(REREAD_SECONDS)
        assert posted.post(EVENT, "the second secret") == 200
        assert posted.post(next(generate()), "the first secret") == 401
    finally:
        posted.close()


class Counting:
    """A secret that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> str:
        self.reads += 1
        return SECRET


def test_forged_requests_do_not_have_the_secret_read_each_time(tmp_path: Path) -> None:
    secret = Counting()
    posted = Posted(tmp_path, secrets=(secret,))
    try:
        for _ in range(20):
            posted.clock.advance(REREAD_SECONDS / 10)
            assert posted.post(EVENT, "forged") == 401
        assert secret.reads == 1 + 2
    finally:
        posted.close()


def test_while_a_secret_cannot_be_read_the_service_is_asked_to_come_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "secret"
    posted = Posted(tmp_path, secrets=(LiteralSecret(OTHER), FileSecret(str(file))))
    try:
        assert posted.post(EVENT) == 503
        assert posted.post(next(generate()), OTHER) == 200
        file.write_text(SECRET)
        posted.clock.advance(REREAD_SECONDS)
        assert posted.post(EVENT) == 200
        assert posted.counts == {"no_secret": 1, "accepted": 2}
        assert str(file) in caplog.text
    finally:
        posted.close()


# No room


class Full:
    """An intake that is full until it is told otherwise."""

    def __init__(self) -> None:
        self.has_room = threading.Event()
        self.tried = threading.Event()
        self.taken: list[Event] = []

    def append(
        self,
        events: Sequence[Event],
        letters: Sequence[DeadLetter],
        heard_until: float | None = None,
        connection: str = "",
    ) -> Sequence[Event]:
        self.tried.set()
        if not self.has_room.is_set():
            raise JournalFull("10 GB are kept")
        self.taken += events
        return events

    def heard(self, until: float | None = None) -> None: ...
    def open_gap(self, reason: str, since: float | None = None) -> None: ...
    def close_gap(self, until: float | None = None) -> None: ...


class Held:
    """A receiver in front of a full intake, and one request on its way to it."""

    def __init__(self) -> None:
        self.clock, self.intake = ManualClock(), Full()
        self.receiver = WebhookReceiver(
            WebhookSettings(port=0, secrets=(LiteralSecret(SECRET),)), self.intake, self.clock
        )
        self.receiver.start()
        self.client = self.ask(EVENT)
        assert self.intake.tried.wait(10)

    def ask(self, event: bytes, secret: str = SECRET) -> socket.socket:
        """A connection with a request on it."""
        client = socket.create_connection(("127.0.0.1", self.receiver.port), timeout=10)
        headers = signed(event, secret, self.clock.now()) | {"content-length": str(len(event))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        client.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + event)
        return client

    def let_time_pass(self, client: socket.socket, step: float) -> bytes:
        """What `client` is answered, while the clock goes on: a thread may begin to wait at any moment."""

        def is_answered() -> bool:
            if select.select([client], [], [], 0)[0]:
                return True
            self.clock.advance(step)
            return False

        assert eventually(is_answered)
        return everything(client)

    def status(self, step: float) -> int:
        return int(self.let_time_pass(self.client, step).split()[1])

    def close(self) -> None:
        self.client.close()
        self.receiver.close()


@pytest.fixture
def held() -> Iterator[Held]:
    with contextlib.closing(Held()) as made:
        yield made


def test_without_room_a_request_is_held_until_there_is_some(held: Held) -> None:
    held.clock.advance(HOLD_SECONDS / 2)
    held.intake.has_room.set()
    assert held.status(step=0.003) == 200
    assert len(held.intake.taken) == 1


def test_without_room_for_long_it_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    # Not the fixture's: it is told at once, and between a fixture and its test nobody would hear it.
    with contextlib.closing(Held()) as held:
        held.clock.advance(HOLD_SECONDS)
        assert held.status(step=0.1) == 503
        assert held.receiver.counts["journal_full"] == 1
    (record,) = caplog.records
    assert "raise --journal_max_bytes" in record.getMessage()


def test_what_is_refused_waits_for_nothing_that_is_held(held: Held) -> None:
    others = [held.ask(event) for event in islice(generate(), 2 * THREADS)]
    for _ in range(5):
        with held.ask(EVENT, "forged") as client:
            assert everything(client).startswith(b"HTTP/1.1 401 ")
    held.intake.has_room.set()
    assert {held.let_time_pass(client, 0.003)[:12] for client in others} == {b"HTTP/1.1 200"}
    for client in others:
        client.close()


def test_at_the_end_nobody_is_held(held: Held) -> None:
    held.receiver.close()  # and the clock stands still
    assert held.status(step=0.0) == 503


def test_a_damaged_journal_ends_the_run(tmp_path: Path) -> None:
    class Broken(Full):
        def append(self, *given: Any) -> Sequence[Event]:
            raise sqlite3.DatabaseError("database disk image is malformed")

    clock, ended = ManualClock(), threading.Event()
    receiver = WebhookReceiver(
        WebhookSettings(port=0, secrets=(LiteralSecret(SECRET),)), Broken(), clock, on_broken=ended.set
    )
    receiver.start()
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    connection.request("POST", "/", EVENT, signed(EVENT, SECRET, clock.now()))
    assert connection.getresponse().status == 503
    connection.close()
    receiver.close()
    assert ended.is_set()


# What is told


def test_every_result_is_counted_from_the_start(posted: Posted) -> None:
    assert posted.receiver.counts == dict.fromkeys(RESULTS, 0)


def test_what_is_refused_is_told_once_a_minute_and_no_secret_with_it(
    posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(30):
        posted.post(EVENT, "forged")
    posted.post(EVENT, late=400)
    posted.send(b"", {}, "GET")  # a probe is nobody's trouble
    assert len(caplog.records) == 1
    posted.clock.advance(60)
    posted.post(EVENT, "forged")
    first, second = (record.getMessage() for record in caplog.records)
    assert "1 bad_signature (if they are the service's, --webhook_secret" in first
    assert "30 bad_signature" in second
    assert "1 stale" in second
    assert "127.0.0.1" in second
    assert SECRET not in caplog.text
    assert OTHER not in caplog.text


def test_a_client_too_slow_is_counted(posted: Posted) -> None:
    with socket.create_connection(("127.0.0.1", posted.receiver.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Le")
        assert posted.post(EVENT) == 200  # so it has been accepted
        posted.clock.advance(10)
        assert everything(client) == b""
    assert eventually(lambda: posted.counts == {"accepted": 1, "slow": 1})
