"""The job on a cluster runner against the job on one machine: the same events to the same five destinations.

Prism and Flink listen on every interface, so everything happens in a network namespace of its own.
Destinations are practice servers and a real Kafka, all on this machine, whose processors they share with both
sides: what is compared is what the runner costs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from pipelines.practice.bigquery import PracticeBigQuery
from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.s3 import PracticeS3
from pipelines.practice.splunk import PracticeSplunk
from tests.benchmarks.measure import GIVE_UP, BenchmarkError, latency
from tests.benchmarks.processes import (
    ENVIRONMENT,
    ROOT,
    Side,
    children_of,
    cpu_of,
    memory_of,
    running,
    server,
    stats,
)
from tests.benchmarks.sides import Task, job, ours
from tests.benchmarks.tables import percentile
from tests.servers import flink, own_network, prism
from tests.servers.kafka import PARTITIONS, KafkaServer

POLL = 0.2  # seconds
TOPIC = "bench"
MAX_AGE = 0.5


@dataclass
class Five:
    """The destinations: what the job is told of them, how many events each has taken, and their ids."""

    flags: Mapping[str, object]
    environment: Mapping[str, str]
    counts: Mapping[str, Callable[[], int]]
    ids: Mapping[str, Callable[[], Sequence[str]]]


@dataclass
class Run:
    """Seconds and MB; `job` is our process and workers, `runner` what runs them (nothing, too)."""

    wall: float
    job_cpu: float
    runner_cpu: float
    job_peak: float
    runner_peak: float
    drain: float
    repeated: int


def on_a_cluster(arguments: argparse.Namespace) -> None:
    """The part of the benchmark: measured in a process of its own, in a network of its own."""
    if arguments.command is not ours:
        return
    if not own_network.namespace():
        print("\nPrism is left out: it needs a network namespace, which cannot be made here")
        return
    prism.program()
    figures = [f"--events={arguments.events}", f"--singles={arguments.singles}", f"--runs={arguments.runs}"]
    if all(map(shutil.which, flink.PROGRAMS)):
        flink.install()
        figures.append("--flink")
    else:
        print(f"\nFlink is left out: it needs {' and '.join(flink.PROGRAMS)}")
    command = [*own_network.namespace(), sys.executable, "-m", "tests.benchmarks.cluster", *figures]
    subprocess.run(command, cwd=ROOT, check=True)


def on_prism(task: Task) -> list[str]:
    """The command of `sides.ours`, with Prism as its runner."""
    return [*(flag for flag in ours(task) if not local(flag)), *prism_flags(task.state_dir)]


def local(flag: str) -> bool:
    """Whether a flag is for one machine alone."""
    return flag.startswith(("--state_dir=", "--status_port="))


def prism_flags(place: str) -> list[str]:
    """What selects the runner."""
    return [
        "--runner=PrismRunner",
        f"--prism_location={prism.program()}",
        "--prism_log_level=warn",
        f"--dead_letters={place}/letters",
    ]


def burst(more: Sequence[str], events: int) -> Run:
    """All events at once to all five, which are new. Raises BenchmarkError when any does not arrive."""
    with (
        tempfile.TemporaryDirectory() as place,
        five(Path(place)) as to,
        server("feed_server", f"--events={events}") as (feed,),
        running(
            [*asked(feed, place, to, bool(more)), *(more or ["--status_port=0"])], to.environment
        ) as side,
    ):
        watch = Watch(side, runner=lambda: children_of(side.process.pid))
        wall = watch.until_all_is_there(events, to, feed)
        started = time.monotonic()
        ended = side.stop()
        drain = time.monotonic() - started
        if ended.code:
            raise BenchmarkError(side.failure(f"It exited {ended.code}"))
        return watch.run(wall, drain, repeats(events, to))


def burst_on_flink(events: int) -> Run:
    """As `burst`. Its workers are started by a pool, from which they have their environment; a job that Flink
    cancels ends at once."""
    with (
        tempfile.TemporaryDirectory() as place,
        five(Path(place)) as to,
        server("feed_server", f"--events={events}") as (feed,),
    ):
        os.environ.update({**ENVIRONMENT, **to.environment})
        with flink.cluster(Path(place) / "flink") as cluster:
            flags = [*asked(feed, place, to, True), *cluster.options, f"--dead_letters={place}/letters"]
            with running(flags) as side:
                watch = Watch(side, runner=cluster.pids, workers=lambda: children_of(cluster.pool.pid))
                wall = watch.until_all_is_there(events, to, feed)
                for job_id in cluster.jobs():
                    cluster.cancel(job_id)
        return watch.run(wall, 0.0, repeats(events, to))


def asked(feed: int, place: str, to: Five, of_a_cluster: bool) -> list[str]:
    """The job's command line, but for its runner."""
    given = [flag for flag in job(feed, f"{place}/state") if not (of_a_cluster and local(flag))]
    return [*given, *(f"--{name}={value}" for name, value in to.flags.items())]


def repeats(events: int, to: Five) -> int:
    """How many came more than once. Raises BenchmarkError when one is missing."""
    repeated = 0
    for name, read in to.ids.items():
        ids = read()
        if len(set(ids)) != events:
            raise BenchmarkError(f"{name} holds {len(set(ids))} of {events} events")
        repeated += len(ids) - events
    return repeated


class Watch:
    """CPU and memory of a side, of its workers elsewhere and of the runner, as far as they used it since."""

    def __init__(
        self,
        side: Side,
        runner: Callable[[], Sequence[int]],
        workers: Callable[[], Sequence[int]] = list,
    ) -> None:
        self._side, self._runner, self._workers = side, runner, workers
        self._give_up = time.monotonic() + GIVE_UP
        self._before = {pid: cpu_of(pid) for pid in runner()}
        self._cpu: dict[str, dict[int, float]] = {"job": {}, "runner": {}}
        self._peak: dict[str, dict[int, float]] = {"job": {}, "runner": {}}

    def until_all_is_there(self, events: int, to: Five, feed: int) -> float:
        """Seconds since the feed was asked. Raises BenchmarkError when the side is gone or too slow."""
        while min(count() for count in to.counts.values()) < events:
            self._look()
            if not self._side.running or time.monotonic() > self._give_up:
                missing = {name: events - count() for name, count in to.counts.items()}
                raise BenchmarkError(self._side.failure(f"Ended, or not done in time; missing: {missing}"))
            time.sleep(POLL)
        wall: float = time.monotonic() - stats(feed)["asked"]
        self._look()
        return wall

    def run(self, wall: float, drain: float, repeated: int) -> Run:
        """What was seen."""
        cpu = {who: sum(figures.values()) for who, figures in self._cpu.items()}
        peak = {who: sum(figures.values()) for who, figures in self._peak.items()}
        return Run(wall, cpu["job"], cpu["runner"], peak["job"], peak["runner"], drain, repeated)

    def _look(self) -> None:
        pids = {"job": [self._side.process.pid, *self._workers()], "runner": self._runner()}
        for who, each in ((who, pid) for who, found in pids.items() for pid in found):
            with contextlib.suppress(OSError):  # it has ended
                self._cpu[who][each] = cpu_of(each) - self._before.get(each, 0.0)
                self._peak[who][each] = memory_of(each, "VmHWM")


@contextlib.contextmanager
def five(place: Path) -> Iterator[Five]:
    """New destinations until the end of the block."""
    broker = KafkaServer(place, for_long=True)
    with (
        contextlib.ExitStack() as stack,
        PracticeSplunk(keep_events=False) as splunk,
        PracticeDatadog(keep_events=False) as datadog,
        PracticeS3(keep_events=False) as s3,
        PracticeBigQuery(keep_events=False) as bigquery,
    ):
        stack.callback(broker.stop)
        broker.create_topic(TOPIC)
        topic = stack.enter_context(contextlib.closing(Topic(broker)))
        flags = {
            "splunk_hec_url": splunk.url,
            "splunk_hec_token": "env:BENCH_HEC_TOKEN",
            "datadog_endpoint": datadog.url,
            "datadog_api_key": "env:BENCH_DATADOG_KEY",
            "s3_bucket": s3.bucket,
            "s3_endpoint": s3.url,
            "bigquery_table": f"{bigquery.project}.{bigquery.dataset}.events",
            "bigquery_endpoint": bigquery.url,
            "bigquery_storage_endpoint": bigquery.storage_url,
            "kafka_bootstrap_servers": broker.servers,
            "kafka_topic": TOPIC,
        }
        environment = {
            "BENCH_HEC_TOKEN": splunk.token,
            "BENCH_DATADOG_KEY": datadog.key,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        }
        practice = {"splunk": splunk, "datadog": datadog, "s3": s3, "bigquery": bigquery}
        ages = {f"{name}_max_age": MAX_AGE for name in (*practice, "kafka")}
        ids: dict[str, Callable[[], Sequence[str]]] = {
            name: partial(getattr, one, "ids") for name, one in practice.items()
        }
        counts: dict[str, Callable[[], int]] = {
            name: partial(lambda server: len(server.ids), one) for name, one in practice.items()
        }
        ids["kafka"] = lambda: [record.key for record in broker.read(TOPIC)]
        counts["kafka"] = topic.count
        yield Five({**flags, **ages}, environment, counts, ids)


class Topic:
    """How many messages the broker holds."""

    def __init__(self, broker: KafkaServer) -> None:
        self._consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "bench", "log_level": 0})

    def count(self) -> int:
        """Over all partitions."""
        ends = [
            self._consumer.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=10)
            for number in range(PARTITIONS)
        ]
        return sum(end for _, end in ends)

    def close(self) -> None:
        self._consumer.close()


def main() -> None:
    """Measure, in turn, and print."""
    own_network.bring_loopback_up()
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("events", "singles", "runs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--flink", action="store_true")
    arguments = parser.parse_args()
    print(f"\nFive destinations, {arguments.events} events at once: on clusters and on one machine")
    print("  (Splunk, Datadog, S3 and BigQuery are practice servers, Kafka is real; all share these cores)")
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as place:
            clusters = {"Prism": burst(prism_flags(place), arguments.events)}
        if arguments.flink:
            clusters["Flink"] = burst_on_flink(arguments.events)
        machine = burst([], arguments.events)
        show("one machine", machine)
        for name, run in clusters.items():
            show(name, run)
            ratio = (run.job_cpu + run.runner_cpu) / machine.job_cpu
            print(f"  {'':11} wall x{run.wall / machine.wall:.2f}   CPU x{ratio:.2f}", flush=True)
    if not arguments.singles:
        return
    print(f"\nOne event to its request on Prism, max_age {MAX_AGE} s, one destination")
    delays = latency(on_prism, arguments.singles, MAX_AGE)
    middle, high = percentile(delays, 0.5), percentile(delays, 0.99)
    print(f"  p50 {middle:.3f} s   p99 {high:.3f} s   max {delays[-1]:.3f} s", flush=True)


def show(name: str, run: Run) -> None:
    """Print one run."""
    print(
        f"  {name:11} wall {run.wall:5.1f} s   our CPU {run.job_cpu:5.1f} s, {run.job_peak:3.0f} MB"
        f"   runner {run.runner_cpu:5.1f} s, {run.runner_peak:3.0f} MB   drain {run.drain:4.1f} s"
        f"   repeated {run.repeated}",
        flush=True,
    )


if __name__ == "__main__":
    main()
