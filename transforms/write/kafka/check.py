"""What Kafka needs, tried when a person asks: the topic, the right to write to it, and what its settings do.

Nothing is produced. A user who may write may also look at the topic, but need not see its settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
)

from transforms.preflight import Finding
from transforms.secret import shown
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka import reply as kafka_outcome
from transforms.write.kafka.reply import DENIED, UNKNOWN_TOPIC, Names
from transforms.write.kafka.writer import LOOK_SECONDS, NOT_SHOWN

if TYPE_CHECKING:
    from transforms.write.kafka.destination import Kafka

OURS = 1_000_000  # librdkafka's own message.max.bytes
DAY = 86_400_000  # milliseconds
# Of brokers that know no such request, or do not answer it.
TOLD_NOTHING = {
    KafkaError._TIMED_OUT,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
}


def check(settings: Kafka) -> Iterator[Finding]:
    """Raises OSError when an authority cannot be read."""
    (way,) = settings.preflight()
    names = Names(settings.bootstrap_servers, settings.topic)
    if way.passed is False or (way.passed is None and NOT_SHOWN not in way.cause):  # nobody answered
        yield way
        return
    tokens = settings.tokens()
    config = kafka_config.resolved(settings.bootstrap_servers, settings.config, settings.way_out, tokens)
    admin = AdminClient({**config, "log_level": 0})
    try:
        topic = _topic(admin, settings.topic)
    except KafkaException as error:
        told_nothing = error.args[0].code() in TOLD_NOTHING
        yield way if told_nothing else _not_there(admin, names, error.args[0])
        return
    yield Finding(way.what, True, note=_replication(topic))
    yield _right(names, topic)
    try:
        told = _settings(admin, settings.topic)
    except KafkaException as error:
        note = f"not shown to this user ({shown(error.args[0].name())}), who needs no right to see them"
        yield Finding("the topic's settings", True, note=note)
        return
    yield from _compared(names, topic, told, int(config.get("message.max.bytes", OURS)))


def _topic(admin: Any, topic: str) -> Any:
    asked = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=LOOK_SECONDS
    )
    return asked[topic].result(LOOK_SECONDS + 1.0)


def _not_there(admin: Any, names: Names, error: KafkaError) -> Finding:
    what = f"topic {names.topic}"
    cause, blocked = kafka_outcome.advice(names, error)
    if error.code() in UNKNOWN_TOPIC and _makes_topics(admin):
        made = "its brokers make one with the first event, by their own settings. Better make it before."
        return Finding(what, True, f"{names.where} has no topic {names.topic}; {made}")
    return Finding(what, False if blocked or error.code() in DENIED else None, cause)


def _makes_topics(admin: Any) -> bool:
    with contextlib.suppress(KafkaException):
        broker = next(iter(admin.list_topics(timeout=LOOK_SECONDS).brokers))
        told = _told(admin, ConfigResource(ResourceType.BROKER, str(broker)))
        return told.get("auto.create.topics.enable") == "true"
    return False


def _settings(admin: Any, topic: str) -> Mapping[str, str]:
    """The topic's settings. Raises KafkaException."""
    return _told(admin, ConfigResource(ResourceType.TOPIC, topic))


def _told(admin: Any, resource: Any) -> Mapping[str, str]:
    asked = admin.describe_configs([resource], request_timeout=LOOK_SECONDS)
    return {name: each.value for name, each in asked[resource].result(LOOK_SECONDS + 1.0).items()}


def _replication(topic: Any) -> str:
    copies = min((len(each.replicas) for each in topic.partitions), default=0)
    return f"{len(topic.partitions)} partitions, {copies} replica{'' if copies == 1 else 's'} of each"


def _right(names: Names, topic: Any) -> Finding:
    what, granted = "the right to write", topic.authorized_operations
    if not granted:
        return Finding(what, True, note="the brokers do not tell; the first event will")
    if AclOperation.WRITE in granted or AclOperation.ALL in granted:
        return Finding(what, True)
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    return Finding(what, False, kafka_outcome.advice(names, error)[0])


def _compared(names: Names, topic: Any, told: Mapping[str, str], ours: int) -> Iterator[Finding]:
    yield _size(told, ours)
    yield _retention(told)
    if found := _replicas(names, topic.partitions, told):
        yield found


def _size(told: Mapping[str, str], ours: int) -> Finding:
    what, theirs = "max.message.bytes", _number(told, "max.message.bytes")
    if theirs is None or theirs >= ours:
        return Finding(what, True, note="" if theirs is None else f"{theirs}, and we send up to {ours}")
    return Finding(
        what,
        True,
        f"The topic takes {theirs} bytes, packed, and we hand over events of up to {ours}: larger ones "
        f"become dead letters. Raise the topic's max.message.bytes to {ours}.",
    )


def _retention(told: Mapping[str, str]) -> Finding:
    """It counts from the event's own time, unless the topic stamps what arrives."""
    what, kept = "retention.ms", _number(told, "retention.ms")
    if kept is None or kept < 0 or kept >= DAY:
        return Finding(what, True, note="" if kept is None else str(kept))
    hours = f"{kept / 3_600_000:g} h"
    why = (
        "what has waited for longer, here or in an outage of the brokers, is deleted as soon as it arrives"
        if told.get("message.timestamp.type", "CreateTime") == "CreateTime"
        else "a reader that is away for longer loses events"
    )
    return Finding(what, True, f"The topic keeps {hours}: {why}. Raise its retention.ms.")


def _replicas(names: Names, partitions: Sequence[Any], told: Mapping[str, str]) -> Finding | None:
    needed = _number(told, "min.insync.replicas") or 1
    if all(len(each.isr) >= needed for each in partitions):
        return None
    least = min(len(each.isr) for each in partitions)
    most = min(len(each.replicas) for each in partitions)
    cause = (
        f"{names.where}: a partition of {names.topic} has {least} replica(s) in sync, and nothing is taken "
        f"with fewer than min.insync.replicas={needed}."
    )
    if most < needed:  # which no broker that comes back will change
        return Finding("min.insync.replicas", False, f"{cause} Give the topic more replicas, or lower it.")
    return Finding("min.insync.replicas", None, f"{cause} Look at the brokers that are away.")


def _number(told: Mapping[str, str], name: str) -> int | None:
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return int(told[name])
    return None
