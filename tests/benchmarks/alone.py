"""Each destination alone, as it is configured by default, against the server that its tests use.

Events a second until the books say that all are delivered, counted then on the server's side; whose
processor was busy meanwhile says what limits it. Servers are those of the tests; one that cannot be had is
named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipelines.practice.datadog import KEY as DATADOG_KEY
from pipelines.practice.splunk import TOKEN as SPLUNK_TOKEN
from tests.benchmarks.measure import GIVE_UP, BenchmarkError, cpu_at, stop
from tests.benchmarks.processes import ROOT, Side, cpu_of, running, server, stats
from tests.benchmarks.sides import job, ours
from tests.integration.job import free_port, metrics_at
from tests.servers import bigquery, landing, seaweedfs
from tests.servers.kafka import KafkaServer
from tests.servers.landing import Landing
from tests.servers.process import ServerProcess

POLL = 0.1  # seconds
BUSY = 0.85  # of one core; threads of one interpreter do not get far beyond
NAME = "bench"


@dataclass
class Alone:
    """One run. `ours` and `server`: shares of one core; None without a server."""

    rate: float  # events a second
    cpu: float  # our microseconds an event
    ours: float
    server: float | None
    peak: float  # MB resident

    def limit(self) -> str:
        """What it waits for, in a few words."""
        if self.ours > BUSY:
            return "our CPU"
        if self.server is not None and self.server > BUSY:
            return "the server's CPU"
        return "each waits for the other's answer" if self.server is not None else "the disk"


class Watch:
    """CPU seconds of the job and of the server over time."""

    def __init__(self, side: Side, server_pid: int) -> None:
        self._side, self._pid = side, server_pid
        self._ours: list[tuple[float, float]] = []
        self._theirs: list[tuple[float, float]] = []

    def look(self) -> float:
        """Take a sample; when it was taken."""
        now = time.monotonic()
        self._ours.append((now, self._side.cpu()))
        self._theirs.append((now, cpu_of(self._pid) if self._pid else 0.0))
        return now

    def used(self, since: float, until: float) -> tuple[float, float]:
        """Ours and the server's between two moments."""
        ours, theirs = (cpu_at(each, until) - cpu_at(each, since) for each in (self._ours, self._theirs))
        return ours, theirs


def each_destination(arguments: argparse.Namespace) -> None:
    """Run and print one line a destination."""
    if arguments.command is not ours:
        return
    print(
        "\nEach destination alone, with its defaults (gzip too) but max_age 0.2 s; CPU as shares of one core"
    )
    print(f"  {'':10} events  events/s   us of our CPU an event   our CPU   server   peak")
    for name, (share, stand) in STANDS.items():
        events = max(5_000, int(arguments.events * share))
        try:
            with tempfile.TemporaryDirectory() as place, stand(Path(place)) as stands:
                one = alone(stands, events, Path(place))
        except (pytest.skip.Exception, pytest.fail.Exception) as error:  # its server cannot be had here
            print(f"  {name:10} {str(error.msg)[:90]}")
            continue
        theirs = "" if one.server is None else f"{one.server:.0%}"
        print(
            f"  {name:10} {events:6} {one.rate:9,.0f} {one.cpu:24.1f} {one.ours:9.0%} {theirs:>8}"
            f" {one.peak:4.0f} MB   {one.limit()}",
            flush=True,
        )


def alone(stands: Landing, events: int, place: Path) -> Alone:
    """Give one destination so many events, as fast as it takes them. Raises BenchmarkError."""
    port = free_port()
    flags = {**stands.flags, f"{stands.name}_max_age": 0.2, "status_port": port}
    given = [f"--{name}={value}" for name, value in flags.items()]
    with (
        server("feed_server", f"--events={events}") as (feed,),
        running([*job(feed, str(place / "state")), *given], stands.environment) as side,
    ):
        watch = Watch(side, stands.pid)
        until_delivered(side, watch, port, stands.name, events)
        ended, peak = watch.look(), side.memory("VmHWM")
        asked = stats(feed)["asked"]
        cpu, theirs = watch.used(asked, ended)
        stop(side, ours)
    there = len({event_id for event_id, _ in stands.read()})
    if there != events:
        raise BenchmarkError(f"{stands.name} holds {there} of {events} events")
    wall = ended - asked
    return Alone(events / wall, cpu / events * 1e6, cpu / wall, theirs / wall if stands.pid else None, peak)


def until_delivered(side: Side, watch: Watch, port: int, name: str, events: int) -> None:
    """Wait until the books say so. Raises BenchmarkError."""
    deadline = time.monotonic() + GIVE_UP
    while metrics_at(port).get(("grantex_events_delivered_total", name), 0) < events:
        if not side.running:
            raise BenchmarkError(side.failure("It ended by itself"))
        if watch.look() > deadline:
            raise BenchmarkError(side.failure(f"Not {events} events within {GIVE_UP} s"))
        time.sleep(POLL)


@contextlib.contextmanager
def practice(name: str, flags: Mapping[str, str], place: Path) -> Iterator[Landing]:
    """A practice service in a process of its own; what it took is in a file of ids. flags: {} is its URL."""
    ids, log = place / "ids", place / "log"
    command = [sys.executable, "-m", f"pipelines.local.practice.{name}", f"--ids={ids}"]
    with ServerProcess(command, log, cwd=ROOT) as process:
        process.wait_until(lambda: b"\n" in log.read_bytes(), f"the practice {name}")
        url = json.loads(log.read_bytes().splitlines()[0])["url"]
        given = {flag: value.format(url) for flag, value in flags.items()}
        yield Landing(
            name, False, given, lambda: ((line, None) for line in ids.read_text().split()), pid=process.pid
        )


def splunk(place: Path) -> AbstractContextManager[Landing]:
    return practice("splunk", {"splunk_hec_url": "{}", "splunk_hec_token": SPLUNK_TOKEN}, place)


def datadog(place: Path) -> AbstractContextManager[Landing]:
    return practice("datadog", {"datadog_endpoint": "{}", "datadog_api_key": DATADOG_KEY}, place)


@contextlib.contextmanager
def files(place: Path) -> Iterator[Landing]:
    yield landing.files(place / "out")


@contextlib.contextmanager
def kafka(place: Path) -> Iterator[Landing]:
    broker = KafkaServer(place, for_long=True)
    try:
        yield landing.kafka(broker, NAME)
    finally:
        broker.stop()


@contextlib.contextmanager
def s3(place: Path) -> Iterator[Landing]:
    with seaweedfs.running(place) as running_server:
        yield landing.s3(running_server, NAME)


@contextlib.contextmanager
def bigquery_storage_write(place: Path) -> Iterator[Landing]:
    with bigquery.running(place / "log") as emulator:
        emulator.create_dataset(landing.DATASET)
        yield landing.bigquery(emulator, NAME)


@contextlib.contextmanager
def bigquery_insert_all(place: Path) -> Iterator[Landing]:
    with bigquery_storage_write(place) as stands:
        yield replace(stands, flags={**stands.flags, "bigquery_method": "insert_all"})


# Name -> its share of the events, so that each takes seconds, and what stands for it.
STANDS: Mapping[str, tuple[float, Callable[[Path], AbstractContextManager[Landing]]]] = {
    "files": (1.0, files),
    "splunk": (1.0, splunk),
    "datadog": (1.0, datadog),
    "kafka": (1.0, kafka),
    "s3": (1.0, s3),
    "bigquery": (0.1, bigquery_storage_write),
    "insert_all": (0.1, bigquery_insert_all),
}
