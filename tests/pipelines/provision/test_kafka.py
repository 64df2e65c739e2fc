"""`provision kafka` against a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from tests.pipelines.provision.conftest import Run
from tests.servers.kafka import PASSWORD, KafkaServer
from tests.servers.kafka_listeners import GUEST
from tests.servers.process import free_port


def settings(broker: KafkaServer, topic: str) -> dict[str, str]:
    admin = AdminClient({"bootstrap.servers": broker.servers})
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result(10).items()}


def test_a_topic_is_made_once_and_differences_are_shown(broker: KafkaServer, run: Run) -> None:
    flags = ("kafka", f"--kafka_bootstrap_servers={broker.servers}", "--kafka_topic=provisioned")
    assert run(*flags, "--kafka_partitions=3", "--retention=soc2", "--yes=true") == 0, run.err
    assert "3 partitions, replication factor 1" in run.out
    found = settings(broker, "provisioned")
    assert found["retention.ms"] == str(1096 * 86_400_000)
    assert found["message.timestamp.type"] == "CreateTime"
    assert "kafka-acls.sh" in run.out
    assert run(*flags, "--retention=soc2") == 0  # and nothing is asked
    assert run.lines[-1] == "nothing is to be done"
    broker.change_topic("provisioned", "retention.ms", "60000")
    assert run(*flags, "--retention=soc2", "--yes=true") == 0
    assert f"retention.ms: there 60000, ours {1096 * 86_400_000}" in run.out
    assert settings(broker, "provisioned")["retention.ms"] == "60000"
    assert run(*flags, "--retention=soc2", "--yes=true", "--overwrite=true", "--kafka_partitions=9") == 0
    assert "the topic has 3 partitions; another number moves keys" in run.out
    assert settings(broker, "provisioned")["retention.ms"] == str(1096 * 86_400_000)


def test_a_user_without_rights_is_told_which(
    broker: KafkaServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    signing_in = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": GUEST}
    signing_in["sasl.password"] = "env:KAFKA_PASSWORD"
    flags = [f"--kafka_config={name}={value}" for name, value in signing_in.items()]
    usual = ("kafka", f"--kafka_bootstrap_servers={broker.sasl_servers}", "--kafka_topic=guests")
    assert run(*usual, *flags, "--yes=true") == 1
    assert "REFUSED     the topic guests" in run.out
    assert "they need Create on the cluster or on the topic" in run.out
    assert run.err.count("\n") == 1
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong-credential")
    assert run(*usual, *flags, "--yes=true") == 1
    assert run.err.count("\n") == 1
    assert "could not be asked" in run.err
    assert "uthentication" in run.err
    assert "wrong-credential" not in run.err


def test_brokers_that_are_not_there_are_one_line(run: Run) -> None:
    assert run("kafka", f"--kafka_bootstrap_servers=127.0.0.1:{free_port()}") == 1
    assert run.err.count("\n") == 1
    assert "could not be asked" in run.err
    assert run("kafka") == 2
    assert "--kafka_bootstrap_servers: is missing" in run.err


def test_printed_it_is_kafkas_own_commands(run: Run, tmp_path: Path) -> None:
    flags = ("kafka", "--kafka_bootstrap_servers=k1:9092,k2:9092", "--print=true", f"--into={tmp_path}")
    assert run(*flags) == 0
    made = (tmp_path / "topic.sh").read_text()
    assert "--topic grantex-events --partitions 6 --replication-factor 3" in made
    assert "--config min.insync.replicas=2" in made
    assert "--producer --topic grantex-events" in (tmp_path / "acls.sh").read_text()
