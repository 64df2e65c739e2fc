"""Kafka against a real broker: every id read back by an independent consumer, outages, refusals, kill -9."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from tests.integration.evidence import accepted, call_witness
from tests.integration.job import World
from tests.servers.kafka import PARTITIONS, PASSWORD, USER, KafkaServer
from tests.transforms.write.encodings import batch, event
from transforms.batch import BatchPolicy
from transforms.event import Batch, Chunk, Event
from transforms.secret import FileSecret
from transforms.write.contract import Outcome, Writer
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.ledger import MemoryLedger
from transforms.write.kafka.destination import Kafka, timestamp
from transforms.write.kafka.writer import KafkaWriter

PATIENCE = 60.0
DELIVERED = ("grantex_events_delivered_total", "kafka")
SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}


@pytest.fixture
def topic(broker: KafkaServer, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name)
    broker.create_topic(name)
    return name


def ids(broker: KafkaServer, topic: str) -> Counter[str]:
    return Counter(record.key for record in broker.read(topic))


def until_delivered(writer: Writer, what: Batch) -> list[Outcome]:
    """Write until nothing is left; the outcomes on the way. The whole batch comes again each time."""
    outcomes = []
    give_up = time.monotonic() + PATIENCE
    while (outcome := writer.write(what)) is not None:
        assert time.monotonic() < give_up, outcome
        outcomes.append(outcome)
    return outcomes


def test_a_message_is_what_consumers_expect(broker: KafkaServer, topic: str) -> None:
    events = [
        event(1),
        event(2, "not a time"),
        Event("ümläut\n", "t", "", b'{ "id":"\xc3\xbcml\xc3\xa4ut\\n" }'),
    ]
    writer = Kafka(broker.servers, topic).open()
    before = time.time() * 1000
    assert writer.write(Batch(events)) is None
    writer.close()
    records = {record.key: record for record in broker.read(topic)}
    assert records.keys() == {one.id for one in events}
    for one in events:
        assert records[one.id].value == one.raw
        assert records[one.id].headers == {"event-type": one.type, "event-id": one.id}
    assert records[events[0].id].timestamp == 1772366400123
    assert before - 1000 < records[events[1].id].timestamp < time.time() * 1000 + 1000


def test_a_batch_of_thousands_arrives_id_by_id(broker: KafkaServer, topic: str) -> None:
    writer = Kafka(broker.servers, topic).open()
    for start in range(0, 5000, 1000):
        assert writer.write(Batch([event(n) for n in range(start, start + 1000)])) is None
    writer.close()
    records = broker.read(topic)
    assert Counter(one.key for one in records) == Counter(event(n).id for n in range(5000))
    assert {one.key: one.value for one in records} == {event(n).id: event(n).raw for n in range(5000)}
    assert len({one.partition for one in records}) > 1, "the key decides on the partition"


def java_murmur2(key: bytes) -> int:
    """What Java's default partitioner reckons, from Kafka's `Utils.murmur2`."""
    mixer, mask = 0x5BD1E995, 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for (block,) in struct.iter_unpack("<I", key[:whole]):
        block = block * mixer & mask
        block = (block ^ block >> 24) * mixer & mask
        hashed = (hashed * mixer & mask) ^ block
    if whole < len(key):
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * mixer & mask
    hashed = (hashed ^ hashed >> 13) * mixer & mask
    return hashed ^ hashed >> 15


def test_other_clients_find_an_event_in_the_same_partition(broker: KafkaServer, topic: str) -> None:
    writer = Kafka(broker.servers, topic).open()
    events = [event(n, event_id="evt_" + "x" * n) for n in range(50)]
    assert writer.write(Batch(events)) is None
    writer.close()
    for record in broker.read(topic):
        assert record.partition == (java_murmur2(record.key.encode()) & 0x7FFFFFFF) % PARTITIONS


def test_record_batches_are_zstd_and_of_an_idempotent_producer(broker: KafkaServer, topic: str) -> None:
    """As the broker keeps them: attributes at byte 21 (KIP-98's record batch), the producer's id at 43."""
    writer = Kafka(broker.servers, topic).open()
    assert writer.write(batch(1000)) is None
    writer.close()
    stored = broker.batches(topic)
    assert len(stored) == PARTITIONS
    for one in stored:
        attributes, producer = struct.unpack_from(">H", one, 21)[0], struct.unpack_from(">q", one, 43)[0]
        assert attributes & 0b111 == 4
        assert producer >= 0


def test_a_fatal_producer_is_replaced(broker: KafkaServer, topic: str) -> None:
    """Under enable.gapless.guarantee (refused on the command line) one refusal ends the producer."""
    broker.change_topic(topic, "max.message.bytes", "20000")
    writer = KafkaWriter(broker.servers, topic, {"enable.gapless.guarantee": "true"}, timestamp)
    events = [event(n) for n in range(200)]
    events[100] = Event("large", "t", "", os.urandom(30_000))
    outcome = writer.write(Batch(events))
    assert outcome is not None
    assert outcome.rejected == {}
    assert not outcome.too_large, "neighbours are under way: halving would not tell who is too large"
    first = writer._producer
    broker.change_topic(topic, "max.message.bytes", "1000000")
    until_delivered(writer, Batch([events[index] for index in outcome.later]))
    assert writer._producer is not first
    writer.close()
    assert ids(broker, topic) == Counter(one.id for one in events), "what was not under way is not repeated"


def test_what_a_fatal_producer_had_under_way_is_counted_unknown(broker: KafkaServer, topic: str) -> None:
    writer = Kafka(broker.servers, topic).open()
    assert writer.write(Batch([event(100)])) is None
    with broker.hanging():
        writer._patience = 0.5
        outcome = writer.write(batch(10))
        assert outcome is not None
        assert not outcome.unknown, "librdkafka has them still"
        writer._heard(KafkaError(KafkaError._FATAL, "said so", fatal=True))
        outcome = writer.write(batch(10))
        assert outcome is not None
        assert (len(outcome.later), outcome.unknown) == (10, True)
    until_delivered(writer, batch(10))
    writer.close()
    assert ids(broker, topic).keys() == {event(100).id, *(one.id for one in batch(10).events)}


def test_a_topic_that_is_made_anew_takes_events_without_a_restart(broker: KafkaServer, topic: str) -> None:
    writer = Kafka(broker.servers, topic).open()
    assert writer.write(batch(10)) is None
    broker.delete_topic(topic)
    later = Batch([event(n) for n in range(100, 110)])
    outcome = writer.write(later)
    assert outcome is not None
    assert (len(outcome.later), dict(outcome.rejected)) == (10, {})
    broker.create_topic(topic)
    until_delivered(writer, later)
    writer.close()
    assert ids(broker, topic) == Counter(one.id for one in later.events)


def test_times_that_the_broker_refuses_do_not_stop_their_events(broker: KafkaServer, topic: str) -> None:
    """One such time has its whole record batch refused; only its own event is stamped with "now"."""
    events = [event(n) for n in range(100)]
    events[40] = event(40, "2999-01-01T00:00:00Z")
    writer = Kafka(broker.servers, topic).open()
    before = time.time() * 1000
    assert writer.write(Batch(events)) is None
    writer.close()
    stamps = {record.key: record.timestamp for record in broker.read(topic)}
    assert ids(broker, topic) == Counter(one.id for one in events)
    assert stamps.pop(events[40].id) >= before - 1000
    assert set(stamps.values()) == {timestamp(event(0))}


def test_a_topic_with_limits_of_its_own_takes_events_of_any_time(broker: KafkaServer, topic: str) -> None:
    broker.change_topic(topic, "message.timestamp.before.max.ms", "1000")
    writer = Kafka(broker.servers, topic).open()
    before = time.time() * 1000
    assert writer.write(batch(10)) is None
    writer.close()
    assert ids(broker, topic) == Counter(one.id for one in batch(10).events)
    assert all(record.timestamp >= before - 1000 for record in broker.read(topic))


@pytest.mark.parametrize(
    "beyond",
    [[0], [7], [0, 3, 9, 10, 11, 25], [*range(12)], [*range(1, 30)], [*range(30)]],
    ids=["first", "one", "some", "many", "all-but-one", "all"],
)
@pytest.mark.parametrize("odd", ["1971-01-01T00:00:00Z", "2999-01-01T00:00:00Z"], ids=["past", "ahead"])
def test_an_event_beyond_the_topics_limit_does_not_take_its_neighbours_time(
    broker: KafkaServer, request: pytest.FixtureRequest, beyond: list[int], odd: str
) -> None:
    topic = f"limit-{request.node.callspec.id}"
    broker.create_topic(topic)
    broker.change_topic(topic, "message.timestamp.before.max.ms", "86400000")
    started = time.time()
    events = [
        event(n, odd if n in beyond else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started - 5 - n)))
        for n in range(30)
    ]
    writer = Kafka(broker.servers, topic).open()
    assert writer.write(Batch(events)) is None
    writer.close()
    assert ids(broker, topic) == Counter(one.id for one in events)
    stamps = {record.key: record.timestamp for record in broker.read(topic)}
    for n, one in enumerate(events):
        if n in beyond:
            assert stamps[one.id] >= started * 1000 - 1000
        else:
            assert stamps[one.id] == timestamp(one)


def deliver(kafka: Kafka, events: Sequence[Event]) -> tuple[set[str], set[str]]:
    """Ids delivered and ids dead-lettered by the whole machinery around the writer."""
    bell = threading.Event()
    delivery = Delivery(kafka, MemoryLedger(), wake=bell.set)
    delivery.add_chunk(Chunk(events))
    delivery.flush()
    delivered: set[str] = set()
    dead: set[str] = set()
    give_up = time.monotonic() + PATIENCE
    while not delivery.idle():
        assert time.monotonic() < give_up, delivery.status()
        bell.clear()
        for result in delivery.tick():
            if hasattr(result, "event_ids"):
                delivered |= set(result.event_ids)
            else:
                dead.add(result.event_id)
        if not delivery.ready() and not delivery.idle():
            bell.wait(1.0)
    assert delivery.close(5.0)
    return delivered, dead


@pytest.mark.parametrize("topic_limit", [False, True])
def test_only_the_event_that_is_too_large_is_dead_lettered(broker: KafkaServer, topic_limit: bool) -> None:
    """librdkafka's own limit names the event; the topic's refuses whole record batches, so halves find it."""
    topic = f"too-large-{topic_limit}".lower()
    broker.create_topic(topic, **({"max_message_bytes": "20000"} if topic_limit else {}))
    size = 30_000 if topic_limit else 1_000_001
    events = [event(n) for n in range(40)]
    events[17] = Event("large", "t", "", os.urandom(size))
    delivered, dead = deliver(Kafka(broker.servers, topic), events)
    assert dead == {"large"}
    assert delivered == {one.id for one in events} - dead
    assert ids(broker, topic) == Counter(delivered), "no innocent is sent twice"


def test_a_topic_that_is_missing_blocks_until_somebody_creates_it(broker: KafkaServer) -> None:
    writer = Kafka(broker.servers, "created-late").open()
    first = writer.write(batch(10))
    again = writer.write(batch(10))
    for outcome in (first, again):
        assert outcome is not None
        assert (outcome.blocked, len(outcome.later), outcome.unknown) == (True, 10, False)
        assert "has no topic created-late" in outcome.cause
    broker.create_topic("created-late")
    until_delivered(writer, batch(10))
    writer.close()
    assert ids(broker, "created-late") == Counter(one.id for one in batch(10).events)


def test_a_wrong_password_blocks_and_the_right_one_is_found_without_a_restart(
    broker: KafkaServer, topic: str, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong-pass-word")
    writer = Kafka(broker.sasl_servers, topic, {**SASL, "sasl.password": FileSecret(str(password))}).open()
    outcome = writer.write(batch(10))
    assert outcome is not None
    assert (outcome.blocked, len(outcome.later)) == (True, 10)
    assert "refused to sign us in" in outcome.cause
    assert "pass-word" not in outcome.cause
    password.write_text(PASSWORD)
    until_delivered(writer, batch(10))
    writer.close()
    assert ids(broker, topic) == Counter(one.id for one in batch(10).events)


@pytest.mark.alone
def test_a_hung_broker_does_not_hold_up_close(broker: KafkaServer, topic: str) -> None:
    writer = Kafka(broker.servers, topic, policy=BatchPolicy(10)).open()
    assert writer.write(batch(1)) is None
    with broker.hanging():
        outcome = writer.write(Batch([event(5)]))
        assert outcome is not None
        assert "has not acknowledged everything within 5 s" in outcome.cause
        started = time.monotonic()
        writer.close()
        assert time.monotonic() - started < 2.0


def test_kill_9_of_the_job_loses_nothing(around: World, broker: KafkaServer, topic: str) -> None:
    """What was under way when the job died comes again, and only that."""
    call_witness(around.state, around.feed.url)
    flags = {
        "splunk_hec_url": None,
        "splunk_hec_token": None,
        "splunk_max_age": None,
        "kafka_bootstrap_servers": broker.servers,
        "kafka_topic": topic,
    }
    with around.feed.publishing(1500.0):
        for kills in (1, 2, 3):
            with around.live_job(**flags) as job:
                enough = 1500 * kills  # the books count over all starts
                job.wait_until(lambda: job.metric(*DELIVERED) > enough, "a second's events")  # noqa: B023
                job.kill()
    with around.live_job(**flags) as job:
        job.wait_until_settled("kafka")
        assert job.drain() == 0
    took = Counter(one.id for one in accepted(around.state, around.feed.url))
    read = ids(broker, topic)
    repeated = sum(count - 1 for count in read.values())
    print(f"{len(took)} accepted, {repeated} repeated by Kafka after 3 kills")
    assert len(took) > 4500
    assert read.keys() == took.keys()
    assert repeated <= 3 * 3000, "more than what can have been under way"


def test_the_values_of_secrets_are_not_in_the_jobs_log(
    around: World, broker: KafkaServer, topic: str
) -> None:
    around.environment = {**around.environment, "KAFKA_PASSWORD": "wrong-pass-word"}
    settings = around.place / "kafka.properties"
    settings.write_text("# SASL\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n")
    more = [
        f"--kafka_config={each}"
        for each in (
            f"file:{settings}",
            f"sasl.username={USER}",
            "sasl.password=env:KAFKA_PASSWORD",
            "debug=all",
        )
    ]
    flags = around.flags(
        kafka_bootstrap_servers=broker.sasl_servers, kafka_topic=topic, log_level="DEBUG", drain_timeout=4
    )
    with around.start([*flags, *more]) as job:
        job.wait_until(lambda: around.feed.open_streams, "a stream")
        around.feed.publish(json.dumps({"id": "evt_1", "type": "t"}).encode())
        job.wait_for_log("refused to sign us in")
        assert job.drain() == 0
        assert "events kept for kafka" in job.log
        assert "wrong-pass-word" not in job.log
