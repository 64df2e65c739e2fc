"""Real servers that many tests share: each is started once in a run, by the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.bigquery import Emulator
    from tests.servers.kafka import KafkaServer
    from tests.servers.moto import Moto
    from tests.servers.pubsub import PubSubServer
    from tests.servers.seaweedfs import SeaweedFS


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """S3 with credentials."""
    from tests.servers.seaweedfs import running

    with running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """BigQuery with the dataset `events`."""
    from tests.servers.bigquery import running

    with running(tmp_path_factory.mktemp("bqemulator") / "log") as started:
        started.create_dataset("events")
        yield started


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Kafka, one broker; whoever kills it starts it again."""
    from tests.servers.kafka import KafkaServer

    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """AWS with users, roles and keys."""
    from tests.servers.moto import running

    with running(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def pubsub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSubServer]:
    """Google's fake of Pub/Sub, without topics."""
    from tests.servers.pubsub import running

    with running(tmp_path_factory.mktemp("pubsub") / "log") as server:
        yield server
