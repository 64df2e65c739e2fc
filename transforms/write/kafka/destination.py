"""Kafka: one message an event, idempotent while the process lives, found again by its key, the event id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from transforms.batch import BatchPolicy, batches
from transforms.event import Event
from transforms.preflight import Finding
from transforms.readers import address_fault, each_of
from transforms.setting import BadSettings, setting, shared
from transforms.way_out import USUAL, WayOut
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination
from transforms.write.created_at import epoch_text
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka import tokens as kafka_tokens
from transforms.write.kafka.config import Value
from transforms.write.kafka.tokens import Kind, Tokens
from transforms.write.kafka.writer import KafkaWriter

# librdkafka makes its own requests out of what it is given, so a batch is only what is waited for at once:
# 1000 events and a round trip of 50 ms make 20,000 events/s, more than the feed sends. 0.2 s is what the
# consumers of a topic expect of "live".
POLICY = BatchPolicy(max_events=1000, max_bytes=900_000, max_age=0.2)

# In a record batch (KIP-98): lengths, deltas, the two header names and the length of each value.
RECORD_OVERHEAD = 40


@dataclass(frozen=True)
class Kafka(Destination):
    """Settings of a Kafka topic. Raises ValueError for a librdkafka setting that cannot be.

    bootstrap_servers: "host:port,host:port", where the cluster is found.
    topic: must exist, or be created by the brokers when it is first written to.
    config: settings of librdkafka (its CONFIGURATION.md), for TLS, SASL, compression and so on; a value
        may be a reference to a secret, which is read on the worker and again when signing in fails.
        Idempotence cannot be switched off.
    token: signs in with a token of AWS (Amazon MSK with IAM) or Google (Managed Kafka), made of the
        credentials that the worker finds and renewed before it expires; over TLS.
    way_out: authorities to trust beside the usual ones; librdkafka's own ssl.ca.* replace both, and it knows
        no proxies.
    """

    bootstrap_servers: str = setting(
        "Where the cluster is found.",
        read=kafka_config.servers,
        pattern=kafka_config.SERVERS,
        placeholder="HOST:PORT,HOST:PORT",
        target=True,
        example="kafka.example.com:9092",
    )
    topic: str = setting("Topic that events go to; it must exist.", "grantex-events", read=kafka_config.topic)
    config: Mapping[str, Value] = setting(
        "A setting of librdkafka, or file:PATH of a file of them; a VALUE may be a SECRET's reference.",
        default_factory=dict,
        hash=False,
        read=each_of(kafka_config.pairs),
        combine=dict,  # a key given later replaces an earlier one, so flags after a file win
        placeholder="KEY=VALUE",
        secret=True,
        repeatable=True,
        example="security.protocol=SASL_SSL",
    )
    policy: BatchPolicy = batches(POLICY, "handed over at once", compressed=True)
    # One producer, which has five requests under way by itself. A second one could not know what the first
    # has in its queue, and a batch that comes again would be sent by both.
    concurrency: int = 1
    way_out: WayOut = shared("way_out", USUAL)
    token: Kind | None = setting(
        "Sign in at Amazon MSK (IAM) or Google's Managed Kafka, with the credentials the job finds.",
        None,
    )
    asked: Asked = asked_for()

    name: ClassVar[str] = "kafka"
    title: ClassVar[str] = "Kafka"

    def __post_init__(self) -> None:
        for server in self.bootstrap_servers.split(","):
            if fault := address_fault(server):
                raise ValueError(f"bootstrap_servers {fault}")
        config = kafka_config.protected(self.config)
        faults = [found for key, value in config.items() if (found := kafka_config.fault(key, value))]
        if faults:
            raise ValueError("; ".join(faults))
        object.__setattr__(self, "config", config)
        if together := list(self.faults()):
            raise BadSettings(together)

    def faults(self) -> Iterator[tuple[str, str]]:
        """A token beside another way to sign in."""
        if self.token and (fault := kafka_tokens.fault(self.config)):
            yield "token", fault

    def tokens(self) -> Tokens | None:
        """What makes tokens, where one is wanted."""
        return kafka_tokens.tokens(self.token, self.bootstrap_servers, self.way_out)

    def size(self, event: Event) -> int:
        """Bytes of `event` as a record, before compression and at most."""
        return len(event.raw) + 2 * len(event.id) + len(event.type) + RECORD_OVERHEAD

    def target(self) -> str:
        """The topic and where the cluster is found."""
        return f"topic {self.topic} at {self.bootstrap_servers}"

    def check(self) -> Iterator[Finding]:
        """As `preflight`; then what the brokers tell of the topic, its settings and this user's rights."""
        from transforms.write.kafka.check import check  # which imports Kafka's admin client

        yield from check(self)

    def open(self) -> KafkaWriter:
        """Connects when the first batch is written."""
        return KafkaWriter(
            self.bootstrap_servers,
            self.topic,
            self.config,
            timestamp,
            way_out=self.way_out,
            tokens=self.tokens(),
        )


def timestamp(event: Event) -> int:
    """`created_at` in milliseconds since the epoch; 0, which stands for "now", when it is not RFC 3339."""
    text = epoch_text(event.created_at)
    return milliseconds(text) if text else 0


@lru_cache(maxsize=4096)
def milliseconds(seconds: bytes) -> int:
    """b"1772366400.1239" as 1772366400123."""
    whole, _, fraction = seconds.partition(b".")
    return int(whole) * 1000 + int((fraction + b"000")[:3])
