"""Kafka: a real broker behind a proxy that knows its frames, read by a consumer of the test's own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException, Producer

from tests.conformance.case import SMALL, Ability, Case, Place, largest_that, padded
from tests.conformance.cases.behind_proxy import BehindProxy
from tests.servers.kafka import PASSWORD, USER, KafkaServer
from tests.servers.kafka_frames import KafkaFrames, refusal
from tests.servers.tcp_proxy import TcpFaultProxy
from tests.transforms.write.encodings import event
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.secret import FileSecret
from transforms.write.kafka.config import Value
from transforms.write.kafka.destination import Kafka

WRONG = "kafka-26bb-for-nobodys-eyes"
# A request that vanished is given up within a test's patience (60 s by default).
CONFIG = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.username": USER,
    "socket.timeout.ms": "2000",
}
SMALL_MESSAGES = "20000"


@contextmanager
def case(place: Place) -> Iterator[Case]:
    broker: KafkaServer = place.server("broker")
    broker.create_topic(place.name)
    with TcpFaultProxy(broker.behind_proxy, KafkaFrames(), broker.proxy_port) as proxy:
        yield KafkaCase(broker, proxy, place.name, place.directory / "password")


class KafkaCase(BehindProxy):
    name = "kafka"
    once = True
    secrets = (PASSWORD, WRONG)
    cannot: ClassVar[Mapping[Ability, str]] = {
        "gateway": "Kafka's protocol has none",
        "retry_after": "a broker does not say when to come back",
        "rotate": "the broker of the tests reads its users once, at its start",
        "memo": "Kafka's writer keeps no memo",
    }

    def __init__(self, broker: KafkaServer, proxy: TcpFaultProxy, topic: str, password: Path) -> None:
        super().__init__(proxy)
        self._broker, self._proxy, self._topic, self._password = broker, proxy, topic, password
        password.write_text(PASSWORD)

    def destination(self, policy: BatchPolicy = SMALL) -> Kafka:
        config: dict[str, Value] = {**CONFIG, "sasl.password": FileSecret(str(self._password))}
        return Kafka(f"127.0.0.1:{self._proxy.port}", self._topic, config, policy)

    def biggest_policy(self) -> BatchPolicy:
        return BatchPolicy(5000, 5_000_000, 1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return [(record.key, record.value) for record in self._broker.read(self._topic)]

    def poison(self, number: int) -> Event:
        """The topic takes short messages only, and zstd cannot make this one short."""
        self._broker.change_topic(self._topic, "max.message.bytes", SMALL_MESSAGES)
        plain = event(number)
        text = random.Random(number).randbytes(30_000).hex().encode()
        return Event(plain.id, plain.type, plain.created_at, plain.raw[:-1] + b',"x":"' + text + b'"}')

    def largest(self, number: int) -> Event:
        return padded(number, most(number))

    def too_large(self, number: int) -> Event:
        return padded(number, most(number) + 1)

    def busy(self, retry_after: str | None = None) -> None:
        """What a broker says while replicas are missing; ours is alone, and asks itself for no more."""
        self._proxy.refuse = refusal

    def kill(self) -> None:
        self._broker.kill()

    def restart(self) -> None:
        self._broker.start()

    def spoil_credential(self) -> None:
        self._password.write_text(WRONG)

    def mend_credential(self) -> None:
        self._password.write_text(PASSWORD)


def most(number: int) -> int:
    """The size of the largest event that a producer of our own takes with librdkafka's defaults."""
    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})

    def fits(one: Event) -> bool:
        headers: list[tuple[str, str | bytes | None]] = [("event-type", one.type), ("event-id", one.id)]
        try:
            producer.produce("t", one.raw, one.id, headers=headers)
        except KafkaException:
            return False
        producer.purge()
        return True

    return largest_that(fits, number, 1_000_000)
