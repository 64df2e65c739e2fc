"""Ids of what a destination has, read back without the events: from archives, from a table, from a topic."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from transforms.archive.bigquery_rows import BigQueryRows
from transforms.archive.choice import Archive
from transforms.archive.sources import ArchiveError
from transforms.feed.intake import iso
from transforms.secret import SecretError, redact
from transforms.write.bigquery.table import parse_table
from transforms.write.created_at import epoch_seconds
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka.destination import Kafka

DAY = 86_400.0
# What an event's `created_at` and its id's time differ by, generously: who reads by the one and counts by the
# other reads a little more.
MARGIN = 60.0  # seconds
ROWS_AT_ONCE = 20_000
MESSAGES_AT_ONCE = 5_000
BROKER_SECONDS = 15.0  # for one answer of the brokers
SILENT_SECONDS = 60.0  # without a message or the end of a partition


class Found(NamedTuple):
    """An event that is there. created_at: epoch seconds, 0 when it is not told."""

    id: str
    type: str
    created_at: float


# Some of them at a time, with how much of the whole has been read (0 to 1).
Some = tuple[Sequence[Found], float]


def in_archive(archive: Archive, since: float, until: float) -> Iterator[Some]:
    """Events of NDJSON files or objects. Raises ArchiveError."""
    selection = replace(archive.selection, since=since - MARGIN, until=until + MARGIN)
    archive = replace(archive, selection=selection)
    shards = archive.shards()
    size, done = sum(shard.size for shard in shards) or 1, 0
    for shard in shards:
        for _, events in archive.read(shard, Counter()):
            found = [Found(event.id, event.type, epoch_seconds(event.created_at)) for event in events]
            yield found, done / size
        done += shard.size
    yield (), 1.0


def in_table(rows: BigQueryRows, since: float, until: float) -> Iterator[Some]:
    """Rows of a table, asked for by day, so that only partitions of the window are read.

    Raises ArchiveError.
    """
    client = rows.client()
    columns = {str(field.name).lower(): str(field.field_type).upper() for field in rows.found(client).schema}
    typed = columns["created_at"] == "TIMESTAMP"
    name = parse_table(rows.table)
    query = (
        f"SELECT event_id, event_type, created_at FROM `{name.project}.{name.dataset}.{name.table}` "  # noqa: S608
        "WHERE created_at >= @since AND created_at < @until"
    )
    start, end = since - MARGIN, until + MARGIN
    for begin, stop in days(start, end):
        # Texts as the service writes them, which sort as they follow each other.
        given = {
            key: _moment(value) if typed else iso(value) for key, value in (("since", begin), ("until", stop))
        }
        for page in rows.pages(client, query, given, ROWS_AT_ONCE, _row):
            yield page, (begin - start) / (end - start)
    yield (), 1.0


def days(since: float, until: float) -> Iterator[tuple[float, float]]:
    """The window cut at midnight UTC."""
    while since < until:
        end = min((since // DAY + 1) * DAY, until)
        yield since, end
        since = end


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc)


def _row(row: Any) -> Found:
    at = row["created_at"]
    created = at.timestamp() if isinstance(at, datetime) else epoch_seconds(str(at or ""))
    return Found(str(row["event_id"]), str(row["event_type"] or ""), created)


def in_topic(
    settings: Kafka, since: float, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[Some]:
    """Messages of a topic from `since` (epoch seconds) to its present end: what was delivered late stands
    behind what was published later. Raises ArchiveError."""
    where = f"topic {settings.topic} at {settings.bootstrap_servers}"
    try:
        consumer = Consumer(_reading(settings))
    except (KafkaException, OSError, SecretError) as error:
        raise ArchiveError(f"{where} cannot be read: {redact(str(error))}") from error
    try:
        yield from _messages(consumer, settings.topic, since - MARGIN, where, monotonic)
    except KafkaException as error:
        why = kafka_config.in_words(error)
        raise ArchiveError(
            f"{where} cannot be read: {why}. Reading takes the right to read the topic, and the group "
            f"{GROUP}, which commits nothing"
        ) from error
    finally:
        consumer.close()


GROUP = "grantex-beam-reconcile"


def _reading(settings: Kafka) -> dict[str, Any]:
    """librdkafka's configuration of a consumer: how the cluster is reached, and nothing of how is written."""
    resolved = kafka_config.resolved(
        settings.bootstrap_servers, settings.config, settings.way_out, settings.tokens()
    )
    ours = kafka_config.FIXED.keys() | (kafka_config.DEFAULTS.keys() - {"client.id", "log_level"})
    kept = {key: value for key, value in resolved.items() if key not in ours}
    return {**kept, "group.id": GROUP, "enable.auto.commit": False, "enable.partition.eof": True}


def _messages(
    consumer: Consumer, topic: str, since: float, where: str, monotonic: Callable[[], float]
) -> Iterator[Some]:
    found = consumer.list_topics(topic, timeout=BROKER_SECONDS).topics.get(topic)
    if found is None or found.error is not None or not found.partitions:
        raise ArchiveError(f"{where}: there is no such topic")
    wanted = [TopicPartition(topic, number, int(since * 1000)) for number in found.partitions]
    starts = consumer.offsets_for_times(wanted, timeout=BROKER_SECONDS)
    ends = {
        each.partition: consumer.get_watermark_offsets(each, timeout=BROKER_SECONDS)[1] for each in starts
    }
    # -1: nothing is that young.
    left = {each.partition: each.offset for each in starts if 0 <= each.offset < ends[each.partition]}
    total = sum(ends[each] - left[each] for each in left) or 1
    consumer.assign([TopicPartition(topic, number, offset) for number, offset in left.items()])
    heard = monotonic()
    while left:
        messages = consumer.consume(MESSAGES_AT_ONCE, timeout=1.0)
        some = []
        for message in messages:
            error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
            if partition not in left or (error is not None and error.code() != KafkaError._PARTITION_EOF):
                continue  # librdkafka tries again by itself
            if error is None and offset < ends[partition]:
                some.append(_message(message))
            left[partition] = offset if error is not None else offset + 1
            if error is not None or left[partition] >= ends[partition]:
                del left[partition]
        if messages:
            heard = monotonic()
        elif monotonic() - heard > SILENT_SECONDS:
            raise ArchiveError(f"{where}: nothing came for {SILENT_SECONDS:.0f} s, before its end")
        yield some, 1 - sum(ends[each] - left[each] for each in left) / total
    yield (), 1.0


def _message(message: Any) -> Found:
    kinds = [value for name, value in message.headers() or () if name == "event-type"]
    kind = kinds[0].decode(errors="replace") if kinds and kinds[0] else ""
    key = message.key() or b""
    return Found(key.decode(errors="replace"), kind, message.timestamp()[1] / 1000)
