"""`provision kafka`: the topic with its settings; the rights of the job's user, by command."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.flags.provision import OfKafka, program
from pipelines.flags.settings import Settings
from pipelines.packs.retention import days, framework
from pipelines.provision.plan import CannotProvision, Plan, Refused, Thing, plan_of, required
from transforms.secret import SecretError, shown
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka.destination import Kafka
from transforms.write.kafka.reply import DENIED
from transforms.write.kafka.tokens import TokenError

ABOUT = """
Makes the topic of a Kafka cluster for the job, with settings that lose nothing. --kafka_config says how the
cluster is signed in to, as for the job. What is there already is left alone; what somebody made otherwise is
shown. Exit code 0: it is as shown, or was; 1: it is not; 2: wrong parameters.
"""
PROGRAM = program(
    "kafka", ABOUT, "kafka_bootstrap_servers kafka_topic kafka_config kafka_token", asks=OfKafka
)
SECONDS = 15.0
DAY = 86_400_000  # milliseconds
# A week is Kafka's own default; it is said so that nobody has to look it up.
WEEK = 7


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    cluster = Cluster(required(settings, "kafka_bootstrap_servers", "kafka"), settings)
    by_hand = [*cluster.partitions_by_hand(), _rights(settings)]
    return plan_of(str(cluster), [cluster.topic()], by_hand, settings["overwrite"])


def files(settings: Settings) -> Mapping[str, str]:
    """Kafka's own commands."""
    servers, topic = required(settings, "kafka_bootstrap_servers", "kafka"), settings["kafka_topic"]
    tools = _tools(servers)
    replicas = settings["kafka_replicas"] or 3
    config = "".join(f" \\\n  --config {name}={value}" for name, value in wanted(settings, replicas).items())
    return {
        "topic.sh": f"kafka-topics.sh {tools} --create --if-not-exists \\\n  --topic {topic} --partitions "
        f"{settings['kafka_partitions']} --replication-factor {replicas}{config}\n",
        "acls.sh": f"# USER: as whom the job signs in.\nkafka-acls.sh {tools} {_acl(topic)}\n",
    }


def wanted(settings: Settings, replicas: int) -> Mapping[str, str]:
    """The topic's settings (Kafka's "Topic configs"). One event is never larger than what the producer sends,
    and the time of a record is the event's own."""
    years = settings["retention"]
    keep = days(framework(years).advised) if years else WEEK
    found = {
        "cleanup.policy": "delete",
        "retention.ms": str(keep * DAY),
        "message.timestamp.type": "CreateTime",
        "compression.type": "producer",
    }
    # With three copies, two of which must have a record: one broker may fail without loss or standstill.
    return {**found, "min.insync.replicas": "2"} if replicas >= 3 else found


def _tools(servers: str) -> str:
    """How Kafka's own commands reach the cluster."""
    return f"--bootstrap-server {servers.partition(',')[0]} --command-config client.properties"


def _acl(topic: str) -> str:
    return f"--add --allow-principal User:USER --producer --topic {topic}"


def _rights(settings: Settings) -> str:
    tools, acl = _tools(settings["kafka_bootstrap_servers"]), _acl(settings["kafka_topic"])
    return f"the job's own right, where the cluster has ACLs: kafka-acls.sh {tools} {acl}"


class Cluster:
    """A cluster, asked by librdkafka's admin client. Raises CannotProvision, also of every method."""

    def __init__(self, servers: str, settings: Settings) -> None:
        from confluent_kafka.admin import AdminClient

        self._name, self._settings, self._servers = settings["kafka_topic"], settings, servers
        self._heard: list[Any] = []  # what librdkafka says about connections, by a callback
        own = Kafka(
            bootstrap_servers=servers,
            topic=self._name,
            config=dict(settings["kafka_config"]),
            token=settings["kafka_token"],
            way_out=settings.way_out,
        )
        with self._asking("sign in"):
            resolved = kafka_config.resolved(servers, own.config, settings.way_out, own.tokens())
            # A producer's: it would ask for what this user need not have the right to.
            told: dict[str, Any] = {
                name: value for name, value in resolved.items() if name not in kafka_config.FIXED
            }
            told["error_cb"] = self._heard.append
            self._admin = AdminClient(told)
            self._topics = self._list()

    def __str__(self) -> str:
        return f"Kafka at {self._servers}, {len(self._topics.brokers)} broker(s)"

    def _list(self) -> Any:
        """All topics and brokers. Raises KafkaException, at once when no broker is there or lets us in."""
        from confluent_kafka import KafkaException

        until = time.monotonic() + SECONDS
        while not self._heard and time.monotonic() < until:
            with contextlib.suppress(KafkaException):
                return self._admin.list_topics(timeout=0.5)
            self._admin.poll(0)  # why, is told by the callback
        raise KafkaException(*self._heard[:1])

    @property
    def _replicas(self) -> int:
        return self._settings["kafka_replicas"] or min(3, len(self._topics.brokers))

    def topic(self) -> Thing:
        ours = wanted(self._settings, self._replicas)
        what = f"the topic {self._name}"
        if self._name not in self._topics.topics:
            more = f", {self._settings['kafka_partitions']} partitions, replication factor {self._replicas}"
            return Thing(what + more, ours, None, lambda: self._make(ours))
        return Thing(what, ours, self._found(), lambda: None, lambda: self._change(ours))

    def partitions_by_hand(self) -> Iterator[str]:
        """More partitions can be had, and move the keys of events to others: nothing to do in passing."""
        there, asked = self._topics.topics.get(self._name), self._settings["kafka_partitions"]
        there_are = 0 if there is None else len(there.partitions)
        if 0 < there_are < asked and "kafka_partitions" in self._settings.given:
            yield (
                f"the topic has {there_are} partitions; another number moves keys to other ones: "
                f"kafka-topics.sh --bootstrap-server {self._servers.partition(',')[0]} --alter "
                f"--topic {self._name} --partitions {asked}"
            )

    def _resource(self, settings: Mapping[str, str] | None = None) -> Any:
        from confluent_kafka.admin import (  # type: ignore[attr-defined]
            AlterConfigOpType,
            ConfigEntry,
            ConfigResource,
            ResourceType,
        )

        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in (settings or {}).items()
        ]
        return ConfigResource(ResourceType.TOPIC, self._name, incremental_configs=entries)

    def _found(self) -> Mapping[str, str]:
        with self._asking("DescribeConfigs on the topic"):
            (future,) = self._admin.describe_configs([self._resource()], request_timeout=SECONDS).values()
            return {name: str(entry.value) for name, entry in future.result(SECONDS).items()}

    def _make(self, settings: Mapping[str, str]) -> None:
        from confluent_kafka.cimpl import NewTopic

        partitions = self._settings["kafka_partitions"]
        topic = NewTopic(self._name, partitions, self._replicas, config=dict(settings))
        with self._asking("Create on the cluster or on the topic, and Describe to see one that is there"):
            (future,) = self._admin.create_topics([topic], request_timeout=SECONDS).values()
            future.result(SECONDS)

    def _change(self, settings: Mapping[str, str]) -> None:
        with self._asking("AlterConfigs on the topic"):
            changes = self._admin.incremental_alter_configs(
                [self._resource(settings)], request_timeout=SECONDS
            )
            (future,) = changes.values()
            future.result(SECONDS)

    @contextlib.contextmanager
    def _asking(self, right: str) -> Iterator[None]:
        from confluent_kafka import KafkaError, KafkaException

        try:
            yield
        except KafkaException as error:
            said = error.args[0]
            words = kafka_config.in_words(error)
            if isinstance(said, KafkaError) and said.code() in DENIED:
                raise Refused(f"this user may not ({words}): they need {right}") from None
            if isinstance(said, KafkaError) and said.code() > 0:  # a broker's own word
                raise Refused(f"Kafka refused it: {words}") from None
            raise CannotProvision(
                f"Kafka at {self._servers} could not be asked ({words}): are --kafka_bootstrap_servers and "
                "the settings of --kafka_config (security.protocol, sasl.*) right?"
            ) from None
        except TokenError as error:
            raise CannotProvision(f"--kafka_token: {error}", bad=True) from None
        except SecretError as error:
            raise CannotProvision(f"--kafka_config: {error}", bad=True) from None
        except OSError as error:
            raise CannotProvision(shown(str(error)), bad=True) from None
