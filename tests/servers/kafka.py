"""A real Apache Kafka, one KRaft node on loopback, from Maven's central repository."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from tests.servers import kafka_listeners
from tests.servers.kafka_listeners import PASSWORD, USER
from tests.servers.process import ServerProcess, cache_directory, fetch, free_port, install_once, unavailable

KAFKA = "4.1.2"
LOG4J = "2.25.1"
__all__ = ["PARTITIONS", "PASSWORD", "USER", "KafkaServer", "Record"]

CACHE = f"kafka-{KAFKA}"
DOWNLOAD_SECONDS = 600
ANSWER_SECONDS = 30.0
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

    servers: without signing in. sasl_servers: PLAIN, in the clear. sasl_ssl_servers: SCRAM-SHA-512 or
    OAUTHBEARER over TLS. ssl_servers: TLS with a certificate of the client's own. behind_proxy: a port with
    PLAIN whose clients are told to come through `proxy_port`, where whoever wants to stand in between must
    listen.

    for_long: Java optimizes what it does often, as a measurement wants it. For a test that costs more than it
    brings: 12 s of CPU for a start and not 7.
    """

    def __init__(self, directory: Path, *, for_long: bool = False) -> None:
        self._jars = jars()
        self._compiler = [] if for_long else ["-XX:TieredStopAtLevel=1"]
        self._directory = directory
        self._ports = kafka_listeners.free_ports()
        self.servers = self._at(kafka_listeners.CLEAR)
        self.sasl_servers = self._at("SASL_PLAINTEXT")
        self.sasl_ssl_servers = self._at("SASL_SSL")
        self.ssl_servers = self._at("SSL")
        self.behind_proxy, self.proxy_port = self._ports["PROXIED"], free_port()
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
        """Create `topic` with the broker's settings `config` ("_" for "."); every client sees it then."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, config=settings)
        admin = self._admin()  # whose end would end the request
        admin.create_topics([new])[topic].result(ANSWER_SECONDS)
        give_up = time.monotonic() + ANSWER_SECONDS
        while True:
            found = admin.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions.values()
            if len(found) == PARTITIONS and all(each.leader >= 0 for each in found):
                return
            assert time.monotonic() < give_up, f"{topic} has no leaders"
            time.sleep(0.05)

    def delete_topic(self, topic: str) -> None:
        admin = self._admin()
        admin.delete_topics([topic])[topic].result(ANSWER_SECONDS)

    def change_topic(self, topic: str, name: str, value: str) -> None:
        """Give `topic` another setting; the broker knows of it when this returns."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = self._admin()
        admin.incremental_alter_configs([resource])[resource].result(ANSWER_SECONDS)
        asked, give_up = ConfigResource(ResourceType.TOPIC, topic), time.monotonic() + ANSWER_SECONDS
        while admin.describe_configs([asked])[asked].result(ANSWER_SECONDS)[name].value != value:
            assert time.monotonic() < give_up, f"{topic} does not take {name}={value}"

    def grant(self, user: str, topic: str, right: str = "WRITE") -> None:
        """Let `user` write to `topic`, or whatever else there is a right for."""
        who = (f"User:{user}", "*", AclOperation[right], AclPermissionType.ALLOW)
        acl = AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *who)
        admin = self._admin()
        admin.create_acls([acl])[acl].result(ANSWER_SECONDS)

    def batches(self, topic: str) -> list[bytes]:
        """The first record batch of each partition that has one, as it is on the broker's disk."""
        logs = self._directory.glob(f"data/{topic}-*/00000000000000000000.log")
        return [found for log in sorted(logs) if (found := log.read_bytes())]

    @property
    def authority(self) -> str:
        """The PEM file of the authority that vouches for the broker."""
        return str(self._directory / "practice-authority.pem")

    def client_pair(self) -> tuple[str, str]:
        """Certificate and key, which that authority signed, of the user `writer`."""
        return tuple(str(self._directory / f"{USER}-{what}.pem") for what in ("certificate", "key"))  # type: ignore[return-value]

    def read(self, topic: str) -> list[Record]:
        """Everything that is in `topic` now, through a consumer that knows nothing of the producer."""
        return [record for each in range(PARTITIONS) for record in self._partition(topic, each)]

    def _partition(self, topic: str, partition: int) -> Iterator[Record]:
        where = TopicPartition(topic, partition, 0)
        settings = {"bootstrap.servers": self.servers, "group.id": "tests", "enable.auto.commit": False}
        with contextlib.closing(Consumer({**settings, "log_level": 0})) as consumer:
            first, end = consumer.get_watermark_offsets(where, timeout=ANSWER_SECONDS)
            assert first == 0, f"{topic}/{partition}: the broker has deleted {first} messages"
            consumer.assign([where])
            position, give_up = 0, time.monotonic() + ANSWER_SECONDS
            while position < end:
                assert time.monotonic() < give_up, (
                    f"{topic}/{partition}: {end - position} messages do not come"
                )
                found = consumer.consume(min(end - position, 10_000), timeout=1.0)
                if found:  # a soak's hour of messages takes its time on a busy machine
                    give_up = time.monotonic() + ANSWER_SECONDS
                for message in found:
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
        memory = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC"]
        return ["java", *memory, *self._compiler, "-cp", f"{self._jars}/*"]

    def _at(self, listener: str) -> str:
        return f"127.0.0.1:{self._ports[listener]}"

    def _format(self) -> None:
        self._settings.write_text(kafka_listeners.properties(self._directory, self._ports, self.proxy_port))
        tool = [*self._java(), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg"]
        tool += ["-c", str(self._settings), "--add-scram", kafka_listeners.SCRAM]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
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
            fetch(command, "Maven cannot fetch Apache Kafka", DOWNLOAD_SECONDS, cwd=directory)
    return directory / "lib"
