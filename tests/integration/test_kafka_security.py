"""Kafka's ways to sign in against a real broker: SASL and certificates over TLS, rights, what is wrong."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.test_kafka import ids, until_delivered
from tests.servers.authority import Authority
from tests.servers.kafka import PASSWORD, USER, KafkaServer
from tests.servers.kafka_listeners import GUEST
from tests.transforms.write.encodings import batch, event
from transforms.event import Batch
from transforms.secret import FileSecret
from transforms.way_out import WayOut
from transforms.write.contract import Outcome
from transforms.write.kafka.config import Value
from transforms.write.kafka.destination import Kafka

SCRAM = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": USER,
    "sasl.password": PASSWORD,
}
EVENTS = Counter(one.id for one in batch(10).events)


@pytest.fixture
def topic(broker: KafkaServer, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name).replace("[", "-").replace("]", "")
    broker.create_topic(name)
    return name


def refused(kafka: Kafka) -> Outcome:
    """The outcome of one batch, after making sure that it keeps all and blocks."""
    writer = kafka.open()
    outcome = writer.write(batch(10))
    writer.close()
    assert outcome is not None
    assert (list(outcome.later), outcome.blocked, outcome.unknown) == (list(range(10)), True, False), outcome
    assert PASSWORD not in outcome.cause
    return outcome


def test_scram_over_tls_with_an_authority_of_ones_own(broker: KafkaServer, topic: str) -> None:
    kafka = Kafka(broker.sasl_ssl_servers, topic, SCRAM, way_out=WayOut(ca_file=broker.authority))
    writer = kafka.open()
    assert until_delivered(writer, batch(10)) == []
    writer.close()
    assert ids(broker, topic) == EVENTS


def test_librdkafkas_own_settings_say_the_same(broker: KafkaServer, topic: str) -> None:
    kafka = Kafka(broker.sasl_ssl_servers, topic, {**SCRAM, "ssl.ca.location": broker.authority})
    writer = kafka.open()
    assert until_delivered(writer, batch(10)) == []
    writer.close()


def test_an_authority_that_nobody_knows_blocks_until_it_is_given(
    broker: KafkaServer, topic: str, tmp_path: Path
) -> None:
    assert "--ca_file" in refused(Kafka(broker.sasl_ssl_servers, topic, SCRAM)).cause
    ca_file = tmp_path / "authority.pem"
    ca_file.write_text(Authority(tmp_path, "another").file.read_text())
    writer = Kafka(broker.sasl_ssl_servers, topic, SCRAM, way_out=WayOut(ca_file=str(ca_file))).open()
    outcome = writer.write(batch(10))
    assert outcome is not None
    assert "no trusted TLS connection" in outcome.cause
    ca_file.write_text(Path(broker.authority).read_text())
    until_delivered(writer, batch(10))
    writer.close()
    assert ids(broker, topic) == EVENTS


def test_a_certificate_for_another_name_blocks(broker: KafkaServer, topic: str) -> None:
    """It is good for 127.0.0.1 alone."""
    elsewhere = broker.sasl_ssl_servers.replace("127.0.0.1", "localhost")
    outcome = refused(Kafka(elsewhere, topic, SCRAM, way_out=WayOut(ca_file=broker.authority)))
    assert "no trusted TLS connection" in outcome.cause


def test_a_scram_password_that_is_wrong_blocks_and_a_rotated_one_is_found(
    broker: KafkaServer, topic: str, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong-pass-word")
    config: dict[str, Value] = {**SCRAM, "sasl.password": FileSecret(str(password))}
    writer = Kafka(broker.sasl_ssl_servers, topic, config, way_out=WayOut(ca_file=broker.authority)).open()
    outcome = writer.write(batch(10))
    assert outcome is not None
    assert outcome.blocked
    assert "refused to sign us in" in outcome.cause
    assert "wrong-pass-word" not in outcome.cause
    password.write_text(PASSWORD)
    until_delivered(writer, batch(10))
    writer.close()
    assert ids(broker, topic) == EVENTS


def test_a_client_certificate_signs_in(broker: KafkaServer, topic: str) -> None:
    certificate, key = broker.client_pair()
    config = {"security.protocol": "SSL", "ssl.certificate.location": certificate, "ssl.key.location": key}
    writer = Kafka(broker.ssl_servers, topic, config, way_out=WayOut(ca_file=broker.authority)).open()
    assert until_delivered(writer, batch(10)) == []
    writer.close()
    assert ids(broker, topic) == EVENTS


def test_oauthbearer_signs_in(broker: KafkaServer, topic: str) -> None:
    """With the unsecured tokens that librdkafka makes and the broker takes for development."""
    config = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": f"principal={USER}",
    }
    writer = Kafka(broker.sasl_ssl_servers, topic, config, way_out=WayOut(ca_file=broker.authority)).open()
    until_delivered(writer, batch(10))
    writer.close()
    assert ids(broker, topic) == EVENTS


@pytest.mark.parametrize("protocol", ["", "SSL"])
def test_the_wrong_protocol_is_said_and_waited_out(broker: KafkaServer, topic: str, protocol: str) -> None:
    """Clear text to a port with TLS, and the reverse: it may be an outage, but the words help."""
    servers = broker.servers if protocol else broker.sasl_ssl_servers
    writer = Kafka(servers, topic, {"security.protocol": protocol} if protocol else {}).open()
    outcome = writer.write(batch(10))
    writer.close()
    assert outcome is not None
    assert list(outcome.later) == list(range(10))
    assert "if it is up, check security.protocol" in outcome.cause


def test_rights_that_are_missing_block_until_they_are_granted(broker: KafkaServer, topic: str) -> None:
    config = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    config |= {"sasl.username": GUEST, "sasl.password": PASSWORD}
    writer = Kafka(broker.sasl_servers, topic, config).open()
    for _ in range(2):
        outcome = writer.write(batch(10))
        assert outcome is not None
        assert (list(outcome.later), outcome.blocked, outcome.unknown) == (list(range(10)), True, False)
        assert f"this user may not write to topic {topic}" in outcome.cause
    broker.grant(GUEST, topic)
    left, give_up = batch(10), time.monotonic() + 15
    while (outcome := writer.write(left)) is not None:  # each partition finds out by itself
        left = Batch([left.events[index] for index in outcome.later])
        assert time.monotonic() < give_up
    assert writer.write(Batch([event(77)])) is None
    writer.close()
    assert ids(broker, topic) == EVENTS + Counter([event(77).id])
