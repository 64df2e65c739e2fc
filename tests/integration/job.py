"""The job as a process of its own, between a practice feed and a practice HEC: what is seen from outside."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pipelines.practice.feed import PracticeFeed
from pipelines.practice.splunk import PracticeSplunk
from tests.servers.forkserver import JOB, Process, fork, spawn
from tests.servers.landing import Landing
from tests.servers.process import may_start

ROOT = Path(__file__).parents[2]
SECRETS = {
    "PRACTICE_FEED_KEY": "gx-live-7f3b-for-nobodys-eyes",
    "PRACTICE_HEC_TOKEN": "hec-51c9-for-nobodys-eyes",
}
PATIENCE = 60.0  # seconds; only ever waited out by a test that fails

Sample = tuple[str, str]  # metric, destination ("" when it has none)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of one of a job's pages; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (
        OSError,
        http.client.HTTPException,
    ):  # the latter of somebody else who was faster to take the port
        return 0, ""


def metrics_at(port: int) -> dict[Sample, float]:
    """Every sample of a job's /metrics, summed over labels other than the destination; empty while it
    starts."""
    status, body = get(port, "/metrics")
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(body) if status == 200 else ():
        for sample in family.samples:
            key = sample.name, sample.labels.get("destination", "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


@dataclass
class Job:
    """One start of the job. Its log grows in the file `log_file` over all starts that share it."""

    process: Process
    log_file: Path
    port: int
    began: int  # where this start's part of the log begins

    @property
    def log(self) -> str:
        """What this start has logged and printed so far."""
        with open(self.log_file, "rb") as file:
            file.seek(self.began)
            return file.read().decode()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages; 0 while nobody answers."""
        return get(self.port, path)

    def metrics(self) -> dict[Sample, float]:
        """Every sample of /metrics, summed over labels other than the destination; empty while it starts."""
        return metrics_at(self.port)

    def metric(self, name: str, destination: str = "") -> float:
        """One sample; -1 while it cannot be had."""
        return self.metrics().get((name, destination), -1.0)

    def memory(self) -> float:
        """MB resident now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024

    def wait_until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait until `condition` holds; raises AssertionError when it does not or the job ends before."""
        until = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"the job ended ({self.process.returncode}) before {what}"
            assert time.monotonic() < until, f"not within {timeout:.0f} s: {what}"
            time.sleep(0.02)

    def wait_for_log(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it has said `text`."""
        self.wait_until(lambda: text in self.log, f"{text!r} in its log", timeout)

    def wait_until_settled(self, *destinations: str, timeout: float = PATIENCE) -> None:
        """Wait until the books of these destinations show nothing pending."""

        def settled() -> bool:
            metrics = self.metrics()
            return all(metrics.get(("grantex_events_pending", name)) == 0 for name in destinations)

        self.wait_until(settled, f"nothing pending for {' and '.join(destinations)}", timeout)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code once it has ended."""
        return self.process.wait(timeout)

    def drain(self, timeout: float = PATIENCE) -> int:
        """SIGTERM, and the exit code."""
        self.signal()
        return self.wait(timeout)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


@dataclass
class World:
    """A practice feed, a practice HEC, and a directory with the job's state, files and log.

    forks: a start of the job costs no imports (tests/servers/forkserver.py)."""

    place: Path
    feed: PracticeFeed
    splunk: PracticeSplunk
    environment: Mapping[str, str] = field(default_factory=lambda: dict(SECRETS))
    more: Mapping[str, object] = field(default_factory=dict)
    forks: bool = False

    @property
    def state(self) -> Path:
        return self.place / "state"

    @property
    def out(self) -> Path:
        return self.place / "out"

    @property
    def dead_letters(self) -> Path:
        return self.state / "dead_letters"

    def deliver_to(self, landings: Sequence[Landing]) -> None:
        """The job's destinations are these and, unless they are left out by None, files and Splunk."""
        for one in landings:
            self.more = {**self.more, **one.flags}
            self.environment = {**self.environment, **one.environment}

    def flags(self, **more: object) -> list[str]:
        """Flags for all destinations at a test's pace; a value of None leaves a flag out."""
        flags: dict[str, object] = {
            "feed_url": self.feed.url,
            "feed_api_key": "env:PRACTICE_FEED_KEY",
            "feed_connections": 1,  # most tests look at one stream
            "splunk_hec_url": self.splunk.url,
            "splunk_hec_token": "env:PRACTICE_HEC_TOKEN",
            "splunk_max_age": 0.2,
            "files_dir": self.out,
            "files_max_age": 0.5,
            "state_dir": self.state,
            **self.more,
            **more,
        }
        return [f"--{name}={value}" for name, value in flags.items() if value is not None]

    def popen(self, flags: list[str], *, log: str = "job.log", code: Path = ROOT) -> Job:
        """Start the job with exactly these flags and, unless they name one, a status port of its own.

        code: where the packages are that it runs.
        """
        may_start("the job")
        port = free_port()
        given = [flag for flag in flags if flag.startswith("--status_port=")] or [f"--status_port={port}"]
        rest = [flag for flag in flags if not flag.startswith("--status_port=")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GRANTEX_")}
        output = self.place / log
        began = output.stat().st_size if output.exists() else 0
        start = fork if self.forks and code == ROOT else spawn
        process = start(JOB, [*rest, *given], environment | dict(self.environment), output, code)
        return Job(process, output, port, began)

    def job(self, **more: object) -> AbstractContextManager[Job]:
        """The job with `flags`, until the end of the block."""
        return self.start(self.flags(**more))

    @contextlib.contextmanager
    def start(self, flags: list[str]) -> Iterator[Job]:
        """The job until the end of the block; its log is printed when the block fails."""
        job = self.popen(flags)
        try:
            yield job
        except BaseException:
            print(f"--- the job's log ({job.process.poll()}) ---\n{job.log}\n---", file=sys.stderr)
            raise
        finally:
            if job.process.poll() is None:
                job.kill()

    @contextlib.contextmanager
    def live_job(self, **more: object) -> Iterator[Job]:
        """`job`, once its stream is open."""
        before = len(self.feed.streams)
        with self.job(**more) as job:
            job.wait_until(lambda: len(self.feed.streams) > before, "it opened a stream")
            yield job


@contextlib.contextmanager
def world(place: Path, *, keep_events: bool = True, forks: bool = False) -> Iterator[World]:
    """Both practice services, gone at the end."""
    key, token = SECRETS["PRACTICE_FEED_KEY"], SECRETS["PRACTICE_HEC_TOKEN"]
    with (
        PracticeFeed(api_keys={key: "dev_practice"}, keepalive=1.0) as feed,
        PracticeSplunk(token=token, keep_events=keep_events) as splunk,
    ):
        yield World(place, feed, splunk, forks=forks)
