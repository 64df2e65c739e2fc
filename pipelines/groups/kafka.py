"""Kafka: its parameters, and the destination they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines import kafka_settings
from pipelines.flags.parameter import Group, byte_count, pairs, seconds, text, whole
from transforms.write.kafka.destination import Kafka

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("Kafka", destination="kafka", first="kafka_bootstrap_servers")


@dataclass(frozen=True, kw_only=True)
class KafkaParameters:
    kafka_bootstrap_servers: str = text(
        GROUP,
        "",
        "Where the cluster is found.",
        read=kafka_settings.servers,
        pattern=r"[^\s,]+:[0-9]+(,[^\s,]+:[0-9]+)*",
        placeholder="HOST:PORT,HOST:PORT",
        in_demo=False,
        example="kafka.example.com:9092",
    )
    kafka_topic: str = text(
        GROUP, "grantex-events", "Topic that events go to; it must exist.", read=kafka_settings.topic
    )
    kafka_config: tuple[kafka_settings.Pair, ...] = pairs(
        GROUP,
        "A setting of librdkafka, or file:PATH of a file of them; a VALUE may be a SECRET's reference.",
        read=kafka_settings.pairs,
        placeholder="KEY=VALUE",
        example="security.protocol=SASL_SSL",
    )
    kafka_max_events: int = whole(GROUP, 1000, "Events handed over at once.", at_least=1)
    kafka_max_bytes: int = byte_count(GROUP, 900_000, "Bytes handed over at once, before compression.")
    kafka_max_age: float = seconds(GROUP, 0.2, "How long an event waits for others.")


def destination(settings: Settings) -> Kafka:
    """What `settings` ask for."""
    return Kafka(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        topic=settings.kafka_topic,
        config=kafka_settings.together(settings.kafka_config),
        policy=settings.batch_policy(GROUP.destination),
        ca_file=settings.ca_file_text,
    )
