"""Kafka without a broker: its settings, sizes and time stamps, and what each error means for a batch."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.servers.process import free_port
from tests.transforms.write.encodings import batch, event
from transforms.event import Batch
from transforms.secret import EnvSecret, LiteralSecret
from transforms.way_out import WayOut
from transforms.write.contract import Outcome
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka.destination import Kafka, timestamp
from transforms.write.kafka.reply import Names, Verdict
from transforms.write.kafka.writer import KafkaWriter

NAMES = Names("k:9092", "events")


def test_name_label_and_policy() -> None:
    kafka = Kafka("k:9092")
    assert (kafka.name, kafka.topic) == ("kafka", "grantex-events")
    assert (kafka.policy.max_events, kafka.policy.max_bytes, kafka.policy.max_age) == (1000, 900_000, 0.2)
    assert pickle.loads(pickle.dumps(kafka)) == kafka


# created_at


@pytest.mark.parametrize(
    ("created_at", "milliseconds"),
    [
        ("2026-03-01T12:00:00Z", 1772366400000),
        ("2026-03-01T12:00:00.1Z", 1772366400100),
        ("2026-03-01T12:00:00.123999Z", 1772366400123),
        ("2026-03-01T13:00:00.123+01:00", 1772366400123),
        ("", 0),
        ("yesterday", 0),
        ("1960-01-01T00:00:00Z", 0),
    ],
)
def test_timestamp_is_created_at_in_milliseconds_or_now(created_at: str, milliseconds: int) -> None:
    assert timestamp(event(1, created_at)) == milliseconds


# Settings


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("enable.idempotence", "false", "enable.idempotence must stay true: without it"),
        ("message.timeout.ms", "1000", "message.timeout.ms must stay 0"),
        ("delivery.timeout.ms", "1000", "delivery.timeout.ms must stay 0"),
        ("no.such.key", "x", "no.such.key is no setting of librdkafka"),
        ("bootstrap.servers", "x", "--kafka_bootstrap_servers"),
        ("transactional.id", "x", "not supported"),
        ("enable.gapless.guarantee", "true", "one event that is refused would stop all others"),
        ("test.mock.num.brokers", "1", "brokers that forget them"),
        ("error_cb", "x", "error_cb is for programs"),
        ("logger", "x", "logger is for programs"),
        ("default.topic.config", "x", "is for programs"),
        ("dr_msg_cb", "x", "dr_msg_cb"),
        ("compression.type", "hush-hush", "compression.type: Invalid value for"),
        ("linger.ms", "hush-hush", "linger.ms"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_their_value(key: str, value: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Kafka("k:9092", config={key: value})
    assert says in str(caught.value)
    assert "hush-hush" not in str(caught.value)


def test_acks_of_one_broker_do_not_go_with_idempotence_and_are_said_at_the_first_write() -> None:
    writer = Kafka("k:9092", config={"acks": "1"}).open()
    outcome = writer.write(batch(2))
    writer.close()
    assert outcome is not None
    assert outcome.blocked
    assert "acks" in outcome.cause
    assert list(outcome.later) == [0, 1]


@pytest.mark.parametrize(
    ("key", "value"), [("enable.idempotence", "true"), ("security.protocol", "SASL_SSL")]
)
def test_settings_that_can_be_are_taken(key: str, value: str) -> None:
    Kafka("k:9092", config={key: value})


def test_what_is_fixed_stays_and_what_is_given_replaces_defaults() -> None:
    given: dict[str, kafka_config.Value] = {
        "compression.type": "lz4",
        "delivery.timeout.ms": "0",
        "sasl.password": LiteralSecret("pass word"),
    }
    resolved = kafka_config.resolved("k:9092", given)
    assert resolved["enable.idempotence"] == "true"
    assert resolved["message.timeout.ms"] == "0"
    assert resolved["statistics.interval.ms"] == "0"
    assert resolved["compression.type"] == "lz4"
    assert resolved["partitioner"] == "murmur2_random"
    assert resolved["client.id"] == "grantex-destinations"
    assert resolved["sasl.password"] == "pass word"
    assert "delivery.timeout.ms" not in resolved
    assert kafka_config.resolved("k:9092", {})["compression.type"] == "zstd"


@pytest.mark.parametrize(
    ("config", "trusted"),
    [
        ({}, False),
        ({"security.protocol": "SASL_PLAINTEXT"}, False),
        ({"security.protocol": "ssl"}, True),
        ({"security.protocol": "SASL_SSL"}, True),
        ({"security.protocol": "SSL", "ssl.ca.location": "/etc/ssl/other.pem"}, False),
    ],
)
def test_a_ca_file_is_trusted_beside_the_usual_ones_unless_librdkafka_is_told_otherwise(
    tmp_path: Path, config: dict[str, kafka_config.Value], trusted: bool
) -> None:
    ours = tmp_path / "ours.pem"
    ours.write_text("-----BEGIN CERTIFICATE-----\nours\n")
    found = kafka_config.resolved("k:9092", config, WayOut(ca_file=str(ours))).get("ssl.ca.pem", "")
    assert found.endswith("ours\n") == trusted
    assert (found.count("BEGIN CERTIFICATE") > 50) == trusted


def test_a_ca_file_that_cannot_be_read_blocks(tmp_path: Path) -> None:
    config = {"security.protocol": "SSL"}
    writer = Kafka("127.0.0.1:9", config=config, way_out=WayOut(ca_file=str(tmp_path / "none.pem"))).open()
    outcome = writer.write(batch(2))
    writer.close()
    assert outcome is not None
    assert outcome.blocked
    assert "none.pem of --ca_file cannot be read (No such file or directory)" in outcome.cause


def test_plain_passwords_are_not_in_reprs_or_pickles() -> None:
    for key in ("sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"):
        kafka = Kafka("k:9092", config={key: "hush-hush-hush"})
        assert "hush" not in repr(kafka)
        assert b"hush" not in pickle.dumps(kafka)


def test_secret_that_cannot_be_read_blocks_and_names_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
    writer = Kafka("k:9092", config={"sasl.password": EnvSecret("NO_SUCH_PASSWORD")}).open()
    outcome = writer.write(batch(1))
    assert outcome is not None
    assert outcome.blocked
    assert "env:NO_SUCH_PASSWORD" in outcome.cause


# Errors


def judged(*codes: int) -> Outcome:
    verdict = Verdict(NAMES)
    for index, code in enumerate(codes):
        verdict.failed(index, KafkaError(code))
    outcome = verdict.outcome()
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (KafkaError._AUTHENTICATION, "refused to sign us in"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, "refused to sign us in"),
        (KafkaError._SSL, "no trusted TLS connection"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "has no topic events"),
        (KafkaError._UNKNOWN_TOPIC, "has no topic events"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "may not write to topic events"),
    ],
)
def test_what_a_person_must_mend_blocks_and_keeps_all(code: int, says: str) -> None:
    outcome = judged(code, code)
    assert list(outcome.later) == [0, 1]
    assert (outcome.blocked, dict(outcome.rejected)) == (True, {})
    assert says in outcome.cause


def test_brokers_that_are_down_are_retried() -> None:
    outcome = judged(KafkaError._ALL_BROKERS_DOWN)
    assert (list(outcome.later), outcome.blocked) == ([0], False)
    assert "cannot be reached" in outcome.cause


def test_only_the_invalid_record_is_rejected_and_its_neighbours_come_again() -> None:
    outcome = judged(KafkaError._INVALID_DIFFERENT_RECORD, KafkaError.INVALID_RECORD)
    assert list(outcome.rejected) == [1]
    assert (list(outcome.later), outcome.unknown) == ([0], False)


def test_too_large_for_the_topic_is_halved_as_the_whole_record_batch_is_refused() -> None:
    outcome = judged(KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.MSG_SIZE_TOO_LARGE)
    assert (outcome.too_large, list(outcome.later), dict(outcome.rejected)) == (True, [0, 1], {})


def test_too_large_beside_another_fault_is_not_halved() -> None:
    assert not judged(KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_TOPIC).too_large
    assert not judged(KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._PURGE_INFLIGHT).too_large


def test_purged_in_flight_is_unknown_and_purged_from_the_queue_is_not() -> None:
    assert judged(KafkaError._PURGE_INFLIGHT).unknown
    assert not judged(KafkaError._PURGE_QUEUE).unknown


# A time that the broker refuses, and what may happen when its event is sent with another


class Refusing:
    """Stands in for librdkafka: a broker that refuses every time, and a producer that then has a fault."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        self.reports: list[Callable[[KafkaError, Any], None]] = []
        self.taken: list[str] = []

    def produce(self, topic: str, value: bytes, key: str, *, on_delivery: Any, **more: Any) -> None:
        if len(self.taken) == 3:
            raise self.fault
        self.taken.append(key)
        self.reports.append(on_delivery)

    def poll(self, seconds: float) -> None:
        reports, self.reports = self.reports, []
        for report in reports:
            report(KafkaError(KafkaError.INVALID_TIMESTAMP), None)


@pytest.mark.parametrize(
    ("fault", "blocked", "says"),
    [
        (BufferError("Local: Queue full"), False, "queue is full"),
        (KafkaException(KafkaError(KafkaError._FATAL, "said so", fatal=True)), False, "said so"),
        (KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC)), True, "has no topic t"),
    ],
)
def test_a_fault_while_a_refused_time_is_replaced_leaves_its_events_for_later(
    unreachable: KafkaWriter, fault: Exception, blocked: bool, says: str
) -> None:
    unreachable._producer = Refusing(fault)  # type: ignore[assignment]
    outcome = unreachable.write(batch(3))
    assert outcome is not None
    assert (sorted(outcome.later), dict(outcome.rejected), outcome.unknown) == ([0, 1, 2], {}, False)
    assert outcome.blocked == blocked
    assert says in outcome.cause


# Nobody there


@pytest.fixture
def unreachable() -> KafkaWriter:
    return KafkaWriter(f"127.0.0.1:{free_port()}", "t", {}, timestamp, patience=0.3)


def test_brokers_that_are_not_there_keep_all_and_close_does_not_hang(unreachable: KafkaWriter) -> None:
    outcome = unreachable.write(batch(3))
    assert outcome is not None
    assert (list(outcome.later), outcome.blocked, outcome.unknown) == ([0, 1, 2], False, False)
    assert "cannot be reached" in outcome.cause
    started = time.monotonic()
    unreachable.close()
    assert time.monotonic() - started < 2.0


def test_what_librdkafka_has_is_not_handed_over_again(unreachable: KafkaWriter) -> None:
    unreachable.write(batch(3))
    unreachable.write(Batch([event(2), event(1), event(7)]))
    assert unreachable._producer is not None
    assert len(unreachable._producer) == 4
    unreachable.close()


def test_full_queue_is_waited_for_and_what_found_no_room_was_not_sent() -> None:
    config = {"queue.buffering.max.messages": "2"}
    writer = KafkaWriter(f"127.0.0.1:{free_port()}", "t", config, timestamp, patience=0.3)
    outcome = writer.write(batch(5))
    assert outcome is not None
    assert (sorted(outcome.later), outcome.unknown) == ([0, 1, 2, 3, 4], False)
    assert len(writer._waiting) == 2
    writer.close()


def test_an_event_that_is_too_large_is_rejected_alone_before_anything_is_sent() -> None:
    config = {"message.max.bytes": "1000"}
    writer = KafkaWriter(f"127.0.0.1:{free_port()}", "t", config, timestamp, patience=0.3)
    events = [event(0), event(1), event(2)]
    events[1] = type(events[1])("large", "t", "", b"x" * 1001)
    outcome = writer.write(Batch(events))
    assert outcome is not None
    assert list(outcome.rejected) == [1]
    assert outcome.rejected[1].startswith("too_large: more than message.max.bytes (1000)")
    assert sorted(outcome.later) == [0, 2]
    writer.close()


SENSITIVE_SETTINGS = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
]


@pytest.mark.parametrize("name", SENSITIVE_SETTINGS)
def test_whatever_librdkafka_calls_sensitive_is_neither_in_repr_nor_in_pickle(name: str) -> None:
    settings = Kafka("localhost:9092", config={name: "s3cr3t-value"})
    assert "s3cr3t-value" not in repr(settings)
    assert b"s3cr3t-value" not in pickle.dumps(settings)
