"""A job on a real Flink between a practice feed and three practice destinations, and what arrived where."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.http_server import PracticeServer
from pipelines.practice.s3 import PracticeS3
from pipelines.practice.splunk import PracticeSplunk
from tests.servers import flink
from tests.servers.flink import Flink, wait_for
from tests.servers.seaweedfs import SeaweedFS
from transforms.write.dead_letters.directory import read_dead_letters

# Four of 26 starts never came to anything on a busy machine: such a one is reported, not tried again.
START_SECONDS = 150.0
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Timing(PracticeServer):
    """Knows when each request's events arrived: (epoch seconds, seconds since the oldest was made)."""

    arrivals: list[tuple[float, float]]

    def taken(self, ids: Sequence[str]) -> None:
        if ids:
            now = time.time()
            self.__dict__.setdefault("arrivals", []).append((now, now - min(map(made_at, ids))))
        super().taken(ids)

    def worst_lag(self, start: float, end: float) -> float:
        """The longest that an event took which arrived between these times; infinite when none did."""
        return max((lag for at, lag in list(self.arrivals) if start <= at <= end), default=float("inf"))


class Splunk(Timing, PracticeSplunk):
    """The practice Splunk, timed."""


class Datadog(Timing, PracticeDatadog):
    """The practice Datadog, timed."""


class S3(Timing, PracticeS3):
    """The practice S3, timed."""


@dataclass
class World:
    """Everything around a job, and the job's driver once `start` was called."""

    flink: Flink
    feed: PracticeFeed
    splunk: Splunk
    datadog: Datadog
    s3: S3
    directory: Path
    letters: str
    driver: subprocess.Popen[bytes] | None = None

    @property
    def destinations(self) -> dict[str, Timing]:
        return {"splunk": self.splunk, "datadog": self.datadog, "s3": self.s3}

    def start(self, *more: str, seconds: float = START_SECONDS) -> str:
        """Submit the job; returns Flink's id of it once it reads the feed. Raises AssertionError, with the
        ends of all logs, when it is not submitted in time, or stalls for `seconds` then."""
        known, streams = set(self.flink.jobs()), len(self.feed.streams)
        command = [sys.executable, "-m", "pipelines.stream", *self.flink.options, *self._parameters(), *more]
        with (self.flink.directory / "driver.log").open("ab") as log:
            self.driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment())
        self._wait(lambda: bool(self.flink.jobs().keys() - known), "is not submitted", START_SECONDS)
        self._wait(lambda: len(self.feed.streams) > streams, "stalls at its start: no stream", seconds)
        (job,) = self.flink.jobs().keys() - known
        return job

    def _wait(self, reached: Callable[[], bool], what: str, seconds: float) -> None:
        """Until the job has come so far."""
        assert self.driver is not None
        give_up = time.monotonic() + seconds
        while not reached():
            code = self.driver.poll()
            if code is None and time.monotonic() < give_up:
                time.sleep(0.1)
                continue
            how = f"{what} after {seconds:.0f} s" if code is None else f"has ended with {code}"
            raise AssertionError(f"the job {how}; Flink has {self.flink.jobs()}\n{self.flink.tail()}")

    def sent(self) -> set[str]:
        """Ids of all events whose bytes went into a socket of the feed."""
        return self.feed.sent_ids

    def missing(self) -> dict[str, set[str]]:
        """What was sent and is not at a destination."""
        sent = self.sent()
        return {name: sent.difference(list(server.ids)) for name, server in self.destinations.items()}

    def wait_for_all(self, seconds: float = 60.0) -> None:
        """Until every event sent is at every destination."""
        wait_for(lambda: not any(self.missing().values()), "events are missing", seconds)

    def wait_for_quiet(self, seconds: float = 60.0) -> None:
        """Until nothing more has arrived anywhere for five seconds."""
        last: list[Any] = [None, time.monotonic()]

        def quiet() -> bool:
            counts = [server.count for server in self.destinations.values()]
            if counts != last[0]:
                last[:] = counts, time.monotonic()
            return bool(time.monotonic() - last[1] > 5.0)

        wait_for(quiet, "events go on arriving", seconds)

    def repeats(self) -> dict[str, int]:
        """How many events more than once, for each destination."""
        return {
            name: sum(times - 1 for times in Counter(server.ids).values())
            for name, server in self.destinations.items()
        }

    def gaps(self) -> list[tuple[float, float, str]]:
        """The feed's gaps on record: from and until (epoch seconds), and why."""
        found = []
        for letter in read_dead_letters(self.letters):
            if letter.cause.startswith("feed_gap"):
                record = msgspec.json.decode(letter.raw)
                found.append((_epoch(record["since"]), _epoch(record["until"]), record["reason"]))
        return found

    def unexplained(self) -> set[str]:
        """What is missing somewhere and was not made in a gap on record."""
        gaps, missing = self.gaps(), set().union(*self.missing().values())
        # An event is made some time before it is received.
        explained = {
            event_id
            for event_id in missing
            if any(since - 1.0 <= made_at(event_id) <= until for since, until, _ in gaps)
        }
        return missing - explained

    def causes(self) -> list[str]:
        """The causes of all other dead letters."""
        causes = [letter.cause for letter in read_dead_letters(self.letters)]
        return [cause for cause in causes if not cause.startswith("feed_gap")]

    def _parameters(self) -> list[str]:
        return [
            f"--feed_url={self.feed.url}",
            f"--feed_api_key=file:{self.directory / 'feed_key'}",
            f"--splunk_hec_url={self.splunk.url}",
            f"--splunk_hec_token=file:{self.directory / 'hec_token'}",
            "--splunk_max_age=0.5",
            f"--datadog_endpoint={self.datadog.url}",
            f"--datadog_api_key=file:{self.directory / 'datadog_key'}",
            "--datadog_max_age=0.5",
            f"--s3_bucket={self.s3.bucket}",
            f"--s3_endpoint={self.s3.url}",
            "--s3_max_age=1",
            f"--dead_letters={self.letters}",
        ]


def _environment() -> dict[str, str]:
    """Without what is said to the tests, which the job would take for settings of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GRANTEX_")}


def made_at(event_id: str) -> float:
    """Epoch seconds of a practice event: its id is a ULID."""
    millis = 0
    for character in event_id.removeprefix("evt_")[:10]:
        millis = millis * 32 + CROCKFORD.index(character)
    return millis / 1000


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """A cluster and servers; no job yet. A failure in the block has the ends of all logs with it."""
    # Workers inherit them from the pool; one pair for both stores, the practice one and that of dead letters.
    key, secret_key = SeaweedFS.access_key, SeaweedFS.secret_key
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = key, secret_key
    with (
        PracticeFeed(keepalive=1.0) as feed,
        Splunk(keep_events=False) as splunk,
        Datadog(keep_events=False) as datadog,
        S3(key=key, secret_key=secret_key, keep_events=False) as store,
        flink.cluster(directory / "cluster") as cluster,
    ):
        # A directory that all workers share, as they are on one machine.
        made = World(cluster, feed, splunk, datadog, store, directory, str(directory / "letters"))
        secrets = {"feed_key": feed.api_key, "hec_token": splunk.token, "datadog_key": datadog.key}
        for name, value in secrets.items():
            (directory / name).write_text(value)
        try:
            yield made
        finally:
            if made.driver is not None and made.driver.poll() is None:
                made.driver.kill()
                made.driver.wait()
