"""Publishing to Pub/Sub, against Google's own fake of it over gRPC, and what its statuses mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers import pubsub as server
from tests.servers.process import free_port
from tests.servers.pubsub import PubSubServer
from transforms.event import Batch, Event
from transforms.feed.pubsub import CHUNK_BYTES, ToChunks
from transforms.write.contract import Outcome
from transforms.write.pubsub import writer as reply
from transforms.write.pubsub.destination import MAX_BYTES, PubSub
from transforms.write.pubsub.writer import PublishRequest, message, unfit

WHERE = "Pub/Sub topic t"


def some(number: int, kind: str = "grant.created") -> list[Event]:
    raw = [b'{"id":"evt_%d","type":"%s","data":"\xc3\xa9"}' % (i, kind.encode()) for i in range(number)]
    return [Event(f"evt_{i}", kind, "", each) for i, each in enumerate(raw)]


def write(destination: PubSub, events: Sequence[Event]) -> Outcome | None:
    writer = destination.open()
    try:
        return writer.write(Batch(events))
    finally:
        writer.close()


# Against the fake


def test_an_event_is_a_message_with_its_bytes_its_id_and_its_type(pubsub_server: PubSubServer) -> None:
    topic = pubsub_server.topic("events")
    events = some(1000)
    assert write(PubSub(topic, pubsub_server.endpoint), events) is None
    found = {each.attributes["event_id"]: each for each in pubsub_server.messages("events")}
    assert found.keys() == {event.id for event in events}
    for event in events:
        assert found[event.id].data == event.raw
        assert dict(found[event.id].attributes) == {"event_id": event.id, "event_type": "grant.created"}
        assert found[event.id].ordering_key == ""


def test_a_topic_that_is_not_there_blocks_until_it_is(pubsub_server: PubSubServer) -> None:
    destination = PubSub("projects/my-project/topics/not-yet", pubsub_server.endpoint)
    writer = destination.open()
    outcome = writer.write(Batch(some(3)))
    assert outcome is not None
    assert outcome.blocked
    assert list(outcome.later) == [0, 1, 2]
    assert "create the topic, or correct --pubsub_topic" in outcome.cause
    pubsub_server.topic("not-yet")
    assert writer.write(Batch(some(3))) is None
    writer.close()


def test_an_id_that_no_attribute_can_hold_is_rejected_and_nothing_else_is(
    pubsub_server: PubSubServer,
) -> None:
    topic = pubsub_server.topic("long")
    long = Event("x" * 1025, "t" * 1025, "", b"{}")
    outcome = write(PubSub(topic, pubsub_server.endpoint), [*some(2), long])
    assert outcome is not None
    assert list(outcome.rejected) == [2]
    assert outcome.rejected[2].startswith("id_too_long: 1025 bytes")
    assert not outcome.later
    assert len(pubsub_server.messages("long")) == 2
    assert unfit(some(1)[0]) == ""
    assert dict(message(Event("i", "t" * 1025, "", b"{}")).attributes) == {"event_id": "i"}
    assert dict(message(Event("i", "", "", b"{}")).attributes) == {"event_id": "i"}


@pytest.mark.servers
def test_nobody_there_is_later_and_nothing_was_sent(tmp_path: Path) -> None:
    port = free_port()
    writer = PubSub("projects/my-project/topics/t-1-2", f"http://127.0.0.1:{port}").open()
    outcome = writer.write(Batch(some(2)))
    assert outcome is not None
    assert list(outcome.later) == [0, 1]
    assert not outcome.unknown
    assert not outcome.blocked
    with server.running(tmp_path / "log", port) as late:  # the same writer finds it when it is there
        late.topic("t-1-2")
        until = time.monotonic() + 20  # gRPC tries to connect again after two seconds
        while (outcome := writer.write(Batch(some(2)))) is not None:
            assert time.monotonic() < until, outcome.cause
            time.sleep(0.1)
        assert len(late.messages("t-1-2")) == 2
    writer.close()


def test_a_closed_writer_keeps_the_events() -> None:
    writer = PubSub("projects/my-project/topics/t-1-2", "http://127.0.0.1:9").open()
    writer.close()
    outcome = writer.write(Batch(some(1)))
    assert outcome is not None
    assert list(outcome.later) == [0]


def test_what_is_published_is_what_dataflow_makes_events_of(pubsub_server: PubSubServer) -> None:
    topic = pubsub_server.topic("relayed")
    events = some(1200)
    assert write(PubSub(topic, pubsub_server.endpoint), events[:1000]) is None
    assert write(PubSub(topic, pubsub_server.endpoint), events[1000:]) is None
    chunks = ToChunks()
    chunks.start_bundle()
    made = []
    for each in [*pubsub_server.messages("relayed")]:
        made += list(chunks.process(each.data))
    made += list(chunks.finish_bundle())
    assert [len(each.value.events) for each in made] == [500, 500, 200]
    found = [event for each in made for event in each.value.events]
    assert sorted((event.id, event.type, event.raw) for event in found) == sorted(
        (event.id, event.type, event.raw) for event in events
    )


def test_no_element_is_larger_than_one_message_or_the_bound() -> None:
    """Twenty messages of 9 MB made an element of 135 MB, which Dataflow refuses for ever."""
    chunks = ToChunks()
    chunks.start_bundle()
    sizes = [9_000_000] * 20 + [300] * 10 + [CHUNK_BYTES - 400, 300, 300, 9_000_000, 300]
    made = []
    for number, size in enumerate(sizes):
        raw = b'{"id":"evt_%d","type":"t","data":"%s"}' % (number, b"x" * (size - 40))
        made += list(chunks.process(raw))
    made += list(chunks.finish_bundle())
    found = [[len(event.raw) for event in each.value.events] for each in made]
    assert sum(map(len, found)) == len(sizes)
    assert all(len(each) == 1 or sum(each) <= CHUNK_BYTES for each in found)
    assert len(found) == 20 + 5


def test_a_message_that_is_no_event_is_a_dead_letter_with_its_bytes() -> None:
    chunks = ToChunks()
    chunks.start_bundle()
    [letter] = chunks.process(b"\xff no JSON")
    assert letter.tag == "dead_letters"
    assert (letter.value.stage, letter.value.raw) == ("feed", b"\xff no JSON")
    assert letter.value.cause.startswith("not_utf8")
    [other] = chunks.process(b'{"type":"x"}')
    assert other.value.cause.startswith("no_id")
    assert list(chunks.finish_bundle()) == []


# Sizes and settings


def test_a_request_is_never_larger_than_its_events_sizes() -> None:
    destination = PubSub("projects/my-project/topics/t-1-2")
    events = [*some(50), Event("\u00e9" * 300, "\u00e9" * 500, "", b"x" * 70_000), Event("i", "", "", b"{}")]
    request = PublishRequest(topic=destination.topic, messages=[message(event) for event in events])
    bound = sum(destination.size(event) for event in events)
    assert len(request.SerializeToString()) <= bound + len(destination.topic) + 8
    assert bound < len(request.SerializeToString()) * 1.5
    assert MAX_BYTES < 10_000_000


@pytest.mark.parametrize(
    "topic", ["events", "projects/p/topics/events", "projects/my-project/topics/", "x/y"]
)
def test_a_name_that_no_topic_has_is_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="projects/PROJECT/topics/TOPIC"):
        PubSub(topic)


# Statuses


def status(code: int, text: str = "words", sent: Sequence[int] = (0, 2)) -> Outcome:
    return reply.status_outcome(WHERE, code, text, sent, {1: "bad"})


@pytest.mark.parametrize(
    ("code", "unknown"), [(1, True), (4, True), (8, False), (10, True), (13, True), (14, True)]
)
def test_what_passes_by_itself_is_later(code: int, unknown: bool) -> None:
    outcome = status(code)
    assert (list(outcome.later), outcome.rejected, outcome.blocked) == ([0, 2], {1: "bad"}, False)
    assert outcome.unknown is unknown
    assert not status(14, "failed to connect to all addresses; last error: x").unknown


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (16, "service account"),
        (7, "roles/pubsub.publisher"),
        (5, "--pubsub_topic"),
        (9, "encryption"),
        (12, "gRPC"),
    ],
)
def test_what_a_person_must_mend_blocks(code: int, advice: str) -> None:
    outcome = status(code)
    assert outcome.blocked
    assert list(outcome.later) == [0, 2]
    assert advice in outcome.cause
    assert status(14, "CERTIFICATE_VERIFY_FAILED").blocked


def test_a_refused_request_is_halved_until_the_one_to_blame_is_alone() -> None:
    outcome = status(3)
    assert outcome.too_large
    assert list(outcome.later) == [0, 2]
    alone = status(3, "Invalid data in message", sent=[0])
    assert alone.rejected[0].startswith("refused: Pub/Sub topic t answered INVALID_ARGUMENT: Invalid data")
    assert not alone.later


def test_a_request_that_is_too_large_for_the_connection_is_halved_and_a_quota_is_waited_for() -> None:
    outcome = status(8, "grpc: received message larger than max (6277160 vs. 4194304)")
    assert outcome.too_large
    assert list(outcome.later) == [0, 2]
    assert not status(8, "Quota exceeded for quota metric").too_large


def test_messages_without_an_id_in_the_answer_are_sent_again() -> None:
    assert reply.published(WHERE, 2, [0, 1], {}) is None
    outcome = reply.published(WHERE, 1, [0, 2, 3], {1: "bad"})
    assert outcome is not None
    assert list(outcome.later) == [2, 3]
    assert outcome.unknown
    assert outcome.rejected == {1: "bad"}
