"""All six destinations at once: practice Splunk and Datadog, files, and real Kafka, S3 and BigQuery."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.splunk import PracticeSplunk
from tests.servers import bigquery, landing, seaweedfs
from tests.servers.kafka import KafkaServer
from tests.servers.landing import Landing


@dataclass(frozen=True)
class RealServers:
    """Those that take their time to start; topics, buckets and tables of their own part those who share
    them."""

    kafka: KafkaServer
    s3: seaweedfs.SeaweedFS
    bigquery: bigquery.Emulator


@contextlib.contextmanager
def real_servers(directory: Path) -> Iterator[RealServers]:
    """All three until the end of the block; skips the test when one of them cannot be had."""
    places = {name: directory / name for name in ("kafka", "s3")}
    for place in places.values():
        place.mkdir()
    with contextlib.ExitStack() as stack:
        broker = KafkaServer(places["kafka"], for_long=True)
        stack.callback(broker.stop)
        s3 = stack.enter_context(seaweedfs.running(places["s3"]))
        emulator = stack.enter_context(bigquery.running(directory / "bqemulator.log"))
        emulator.create_dataset(landing.DATASET)
        yield RealServers(broker, s3, emulator)


@contextlib.contextmanager
def six(
    servers: RealServers, splunk: PracticeSplunk, directory: Path, name: str
) -> Iterator[Sequence[Landing]]:
    """A new place called `name` at each of them; files go to `directory`."""
    with PracticeDatadog() as datadog:
        yield (
            landing.files(directory),
            landing.splunk(splunk),
            landing.datadog(datadog),
            landing.s3(servers.s3, name),
            landing.bigquery(servers.bigquery, name),
            landing.kafka(servers.kafka, name),
        )
