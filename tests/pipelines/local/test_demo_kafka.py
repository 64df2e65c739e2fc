"""The practice Kafka itself: what is written can be read, as from any cluster."""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from pipelines.local.demo import PracticeKafka
from tests.transforms.write.encodings import batch
from transforms.write.kafka.destination import Kafka

TOPIC = "grantex-events"


def test_what_our_writer_sends_a_consumer_reads() -> None:
    sent = batch(20)
    with PracticeKafka() as cluster:
        assert cluster.bootstrap_servers.startswith("127.0.0.1:")
        writer = Kafka(cluster.bootstrap_servers, TOPIC).open()
        assert writer.write(sent) is None
        writer.close()
        consumer = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "test"})
        partitions = consumer.list_topics(TOPIC).topics[TOPIC].partitions
        consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
        read: dict[str, bytes] = {}
        while len(read) < len(sent.events):
            message = consumer.poll(10)
            assert message is not None, "nothing more within 10 s"
            assert message.error() is None
            key, value = message.key(), message.value()
            assert key is not None
            assert value is not None
            read[key.decode()] = value
        consumer.close()
    assert read == {event.id: event.raw for event in sent.events}
