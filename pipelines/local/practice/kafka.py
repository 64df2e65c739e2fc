"""A practice Kafka: librdkafka's own mock cluster, which speaks the real protocol on loopback.

It makes topics when they are first written to, and keeps at most 5 MB of each partition, so that its memory
stays bounded.
"""

from __future__ import annotations

from types import TracebackType

from confluent_kafka import Producer

START_SECONDS = 10.0


class PracticeKafka:
    """A context manager that serves on `bootstrap_servers` until it is left."""

    def __init__(self, brokers: int = 1) -> None:
        self._brokers = brokers
        self._owner: Producer | None = None  # the cluster lives as long as this client

    def __enter__(self) -> PracticeKafka:
        self._owner = Producer({"test.mock.num.brokers": self._brokers, "log_level": 2})
        found = self._owner.list_topics(timeout=START_SECONDS).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in found)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = None
