"""A real Apache Kafka, one KRaft node on loopback, from Maven's central repository."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.process import ServerProcess, cache_directory, free_port, install_once, unavailable

KAFKA = "4.1.2"
LOG4J = "2.25.1"
CACHE = f"kafka-{KAFKA}"
DOWNLOAD_SECONDS = 600
ANSWER_SECONDS = 30.0
USER, PASSWORD = "writer", "right-pass-word"
PARTITIONS = 3

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId>
      <version>{LOG4J}</version></dependency>
  </dependencies>
</project>
"""

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},\
CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},\
PROXIED://127.0.0.1:{proxy}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=\
PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.proxied.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""


@dataclass(frozen=True)
class Record:
    """One message as an independent consumer reads it."""

    key: str
    value: bytes
    headers: Mapping[str, str]
    timestamp: int  # milliseconds since the epoch
    partition: int


class KafkaServer:
    """A broker that can be killed and started again on the same data and ports.

    behind_proxy: a port with SASL whose clients are told to come through `proxy_port`, where whoever wants
    to stand in between must listen.
    """

    def __init__(self, directory: Path) -> None:
        self._jars = jars()
        self._directory = directory
        self._ports = [free_port() for _ in range(5)]
        self.servers = f"127.0.0.1:{self._ports[0]}"
        self.sasl_servers = f"127.0.0.1:{self._ports[1]}"
        self.behind_proxy, self.proxy_port = self._ports[3:]
        self._settings = directory / "server.properties"
        self._format()
        self.start()

    def start(self) -> None:
        """Start it, again on the same data after `kill` or `stop`; returns when it answers."""
        command = [*self._java(), "kafka.Kafka", str(self._settings)]
        self._process = ServerProcess(command, self._directory / "kafka.log", cwd=self._directory)
        self._process.wait_until(self._answers, f"Kafka {KAFKA}")

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hanging(self) -> AbstractContextManager[None]:
        """It keeps its connections and answers nothing until the end of the block."""
        return self._process.hanging()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """`kill -9`, and nobody listens until the end of the block, which is before it is up again."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def create_topic(self, topic: str, **config: str) -> None:
        """Create `topic` with the broker's settings `config` ("_" for ".")."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, config=settings)
        admin = self._admin()  # whose end would end the request
        admin.create_topics([new])[topic].result(ANSWER_SECONDS)

    def read(self, topic: str) -> list[Record]:
        """Everything that is in `topic` now, through a consumer that knows nothing of the producer."""
        return [record for each in range(PARTITIONS) for record in self._partition(topic, each)]

    def _partition(self, topic: str, partition: int) -> Iterator[Record]:
        where = TopicPartition(topic, partition, 0)
        settings = {"bootstrap.servers": self.servers, "group.id": "tests", "enable.auto.commit": False}
        with contextlib.closing(Consumer({**settings, "log_level": 0})) as consumer:
            _, end = consumer.get_watermark_offsets(where, timeout=ANSWER_SECONDS)
            consumer.assign([where])
            position, give_up = 0, time.monotonic() + ANSWER_SECONDS
            while position < end:
                assert time.monotonic() < give_up, (
                    f"{topic}/{partition}: {end - position} messages do not come"
                )
                for message in consumer.consume(min(end - position, 10_000), timeout=1.0):
                    assert message.error() is None, message.error()
                    yield _record(message)
                    position = (message.offset() or 0) + 1

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def _answers(self) -> bool:
        try:
            return bool(self._admin().list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False

    def _java(self) -> list[str]:
        return ["java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{self._jars}/*"]

    def _format(self) -> None:
        plain, sasl, controller, behind, proxy = self._ports
        self._settings.write_text(
            PROPERTIES.format(
                plain=plain,
                sasl=sasl,
                controller=controller,
                behind=behind,
                proxy=proxy,
                user=USER,
                password=PASSWORD,
                logs=self._directory / "data",
            )
        )
        tool = [*self._java(), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg"]
        done = subprocess.run([*tool, "-c", str(self._settings)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _record(message: Message) -> Record:
    key, value = message.key(), message.value()
    assert isinstance(key, bytes)
    assert isinstance(value, bytes)
    headers = {str(name): text.decode() for name, text in _pairs(message) if isinstance(text, bytes)}
    return Record(key.decode(), value, headers, message.timestamp()[1], message.partition() or 0)


def _pairs(message: Message) -> list[tuple[object, object]]:
    return [(each[0], each[1]) for each in message.headers() or []]


def jars() -> Path:
    """The directory with Kafka's jars, fetched once; skips the test when they cannot be had."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            unavailable(f"Apache Kafka needs {program} (Debian: default-jre-headless, maven)")
    directory = cache_directory(CACHE)
    with install_once(directory) as missing:
        if missing:
            (directory / "pom.xml").write_text(POM)
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"]
            try:
                done = subprocess.run(
                    command,
                    cwd=directory,
                    capture_output=True,
                    text=True,
                    timeout=DOWNLOAD_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                unavailable(f"Maven did not fetch Apache Kafka within {DOWNLOAD_SECONDS} s")
            if done.returncode:
                unavailable(f"Maven cannot fetch Apache Kafka: {json.dumps(done.stdout[-500:])}")
    return directory / "lib"
