"""A destination as tests and benchmarks see it: what the job is told of it, and what it holds in the end."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.http_server import PracticeServer
from pipelines.practice.splunk import PracticeSplunk
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.kafka import KafkaServer
from tests.servers.seaweedfs import REGION, SeaweedFS

How = Literal["hang", "refuse"]
Held = Iterable[tuple[str, bytes | None]]
Outage = Callable[[], AbstractContextManager[None]]

DATASET = "events"


@dataclass(frozen=True)
class Landing:
    """One destination.

    once: it holds each id once, whatever happens to the job; the others may repeat what was under way.
    flags, environment: what the job is started with, beside the pace.
    read: id and bytes of everything it holds, through a client that knows nothing of the job's; None for the
        bytes where it takes them apart.
    pid: of its server, 0 when it has no process of its own.
    outages: what can be done to it; until the end of the block it hangs (keeps its connections and answers
        nothing) or refuses them.
    """

    name: str
    once: bool
    flags: Mapping[str, object]
    read: Callable[[], Held]
    environment: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0
    outages: Mapping[How, Outage] = field(default_factory=dict)
    stored: Callable[[str], bytes] | None = None


def files(directory: Path) -> Landing:
    """A directory of this machine."""
    return Landing(
        "files",
        True,
        {"files_dir": directory},
        lambda: _lines(_archive(directory)),
        stored=lambda place: Path(place).read_bytes(),
    )


def splunk(server: PracticeSplunk) -> Landing:
    """A practice Splunk that keeps its events."""
    return Landing(
        "splunk",
        False,
        {"splunk_hec_url": server.url, "splunk_hec_token": "env:LANDING_SPLUNK_TOKEN"},
        lambda: ((one.event_id, bytes(one.event)) for one in server.events),
        {"LANDING_SPLUNK_TOKEN": server.token},
        outages=_practice_outages(server),
    )


def datadog(server: PracticeDatadog) -> Landing:
    """A practice Datadog that keeps its events."""
    return Landing(
        "datadog",
        False,
        {"datadog_endpoint": server.url, "datadog_api_key": "env:LANDING_DATADOG_KEY"},
        lambda: ((one.id, one.message.encode()) for one in server.events),
        {"LANDING_DATADOG_KEY": server.key},
        outages=_practice_outages(server),
    )


def kafka(server: KafkaServer, topic: str) -> Landing:
    """A new topic of a real broker."""
    server.create_topic(topic)
    return Landing(
        "kafka",
        False,
        {"kafka_bootstrap_servers": server.servers, "kafka_topic": topic},
        lambda: ((record.key, record.value) for record in server.read(topic)),
        pid=server.pid,
        outages={"hang": server.hanging, "refuse": server.away},
    )


def s3(server: SeaweedFS, bucket: str) -> Landing:
    """A new bucket of a real S3 server."""
    assert server.process is not None
    server.client().create_bucket(Bucket=bucket)
    return Landing(
        "s3",
        True,
        {"s3_bucket": bucket, "s3_endpoint": server.endpoint, "s3_region": REGION},
        lambda: _lines(server.objects(bucket).values()),
        {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key},
        pid=server.process.pid,
        outages={"hang": server.process.hanging},
        stored=lambda place: server.stored(bucket, place.removeprefix(f"s3://{bucket}/")),
    )


def bigquery(server: Emulator, table: str) -> Landing:
    """A table of bqemulator that the job makes; its dataset is there."""
    return Landing(
        "bigquery",
        True,
        {
            "bigquery_table": f"{PROJECT}.{DATASET}.{table}",
            "bigquery_endpoint": server.rest,
            "bigquery_storage_endpoint": server.storage,
        },
        lambda: ((event_id, None) for event_id in server.ids(f"{DATASET}.{table}")),
        pid=server.process.pid,
        outages={"hang": server.process.hanging},
    )


def _practice_outages(server: PracticeServer) -> Mapping[How, Outage]:
    @contextlib.contextmanager
    def hang() -> Iterator[None]:
        server.hang()
        try:
            yield
        finally:
            server.release()

    @contextlib.contextmanager
    def refuse() -> Iterator[None]:
        server.down()
        try:
            yield
        finally:
            server.up()

    return {"hang": hang, "refuse": refuse}


def _archive(directory: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in sorted(directory.glob("dt=*/hour=*/*.ndjson.gz")))


def _lines(packed: Iterable[bytes]) -> Held:
    for line in (line for one in packed for line in gzip.decompress(one).splitlines()):
        yield json.loads(line)["id"], line
