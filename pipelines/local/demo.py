"""The demo: practice services on loopback, and the settings that point the real job at them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import Producer

from pipelines.flags.settings import Settings
from pipelines.practice.bigquery import PracticeBigQuery
from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.s3 import PracticeS3
from pipelines.practice.splunk import PracticeSplunk
from transforms.secret import parse_secret

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

    def make(self, topic: str) -> None:
        """A topic; librdkafka's cluster makes each that is asked for by name."""
        assert self._owner is not None
        self._owner.list_topics(topic, timeout=START_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = None


@contextlib.contextmanager
def no_proxy() -> Iterator[None]:
    """What is on this machine is not looked for behind a proxy."""
    theirs = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    with _changed({"no_proxy": f"{theirs},127.0.0.1" if theirs else "127.0.0.1"}):
        yield


@contextlib.contextmanager
def aws(access_key: str, secret_key: str) -> Iterator[None]:
    """These credentials and none of the person's own, which shall not sign requests to a demo; and none of
    their settings, which may name a profile or an endpoint that leads elsewhere."""
    theirs: dict[str, str | None] = {name: None for name in os.environ if name.startswith("AWS_")}
    ours: dict[str, str | None] = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with _changed(theirs | ours):
        yield


@contextlib.contextmanager
def _changed(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Variables for a while; None takes one away."""
    before = {name: os.environ.get(name) for name in changes}
    _change(changes)
    try:
        yield
    finally:
        _change(before)


def _change(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


log = logging.getLogger("grantex.demo")
FILES = Path("out")
# One service fails now and then, so that a person sees a retry, the circuit and the recovery.
WELL_SECONDS = 45.0
FAILING_SECONDS = 15.0
# A person watches: the usual five minutes would look like nothing happens.
ARCHIVE_SECONDS = 5.0
# What a practice destination adds to the settings, unless a person gave it.
Added = dict[str, Any]
Begin = Callable[[contextlib.ExitStack, Settings, threading.Event], Added]


def begin(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    """Start every practice destination until `stack` is left; what they add to `settings`. They keep nothing
    of what arrives, so that a demo may run for days.

    stop: set when the job drains; what fails now and then works from then on, so that nothing is left over.
    """
    stack.enter_context(no_proxy())
    added: Added = {}
    for one in DESTINATIONS:
        added |= one(stack, settings, stop)
    return {name: value for name, value in added.items() if name not in settings.given}


def _bigquery(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    server = stack.enter_context(PracticeBigQuery(keep_events=False, keep_ids=False))
    return {
        "bigquery_table": f"{server.project}.{server.dataset}.events",
        "bigquery_endpoint": server.url,
        "bigquery_storage_endpoint": server.storage_url,
    }


def _s3(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    server = stack.enter_context(PracticeS3(keep_events=False, keep_ids=False))
    stack.enter_context(aws(server.access_key, server.secret_key))
    return {"s3_bucket": server.bucket, "s3_endpoint": server.url, "s3_max_age": ARCHIVE_SECONDS}


def _datadog(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    server = stack.enter_context(PracticeDatadog(keep_events=False, keep_ids=False))
    return {"datadog_endpoint": server.url, "datadog_api_key": parse_secret(server.key)}


def _splunk(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    server = stack.enter_context(PracticeSplunk(keep_events=False, keep_ids=False))
    stack.enter_context(_failing_now_and_then(server, stop))
    log.info("Splunk fails now and then, on purpose: its events wait")
    return {"splunk_hec_url": server.url, "splunk_hec_token": parse_secret(server.token)}


def _kafka(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    cluster = stack.enter_context(PracticeKafka())
    cluster.make(settings["kafka_topic"])
    return {"kafka_bootstrap_servers": cluster.bootstrap_servers}


def _files(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    return {"files_dir": str(FILES), "files_max_age": ARCHIVE_SECONDS}


# Each further practice destination is a function above and a name here.
DESTINATIONS: list[Begin] = [_bigquery, _s3, _datadog, _splunk, _kafka, _files]


@contextlib.contextmanager
def _failing_now_and_then(server: PracticeSplunk, stop: threading.Event) -> Iterator[None]:
    over = threading.Event()

    def fail() -> None:
        while not (over.is_set() or stop.wait(WELL_SECONDS)):
            server.busy()
            stop.wait(FAILING_SECONDS)
            server.busy(0)

    thread = threading.Thread(target=fail, name="demo-failing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


# The kernel lets go of the lock even after kill -9, and no process id can be mistaken for another's.
LOCK = "in-use.lock"


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A new directory, removed at the end; first goes what processes that were killed left under `prefix`."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_abandoned(left)
    with contextlib.ExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix=prefix)
        path = Path(directory.name)
        # It gets its name when it is held: one that is found and free was left behind.
        unnamed = path / "new.lock"
        fcntl.flock(stack.enter_context(unnamed.open("wb")), fcntl.LOCK_EX)
        unnamed.rename(path / LOCK)
        yield Path(stack.enter_context(directory))


def _remove_abandoned(directory: Path) -> None:
    """Remove a directory of ours that no living process holds."""
    with contextlib.suppress(OSError):
        if directory.is_symlink() or directory.stat().st_uid != os.getuid():
            return
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory)
            log.info("removed %s, which a demo that was killed had left behind", directory)


EVENTS_PER_SECOND = 20.0


@contextlib.contextmanager
def practice(settings: Settings, stop: threading.Event) -> Iterator[Settings]:
    """Start the practice services; yields the settings with feed and destinations filled in.

    stop: set when the job drains; what fails now and then works from then on, so that nothing is left over.
    """
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(temporary_directory("grantex-beam-demo-"))
        feed = stack.enter_context(PracticeFeed(keep_ids=False))
        added = begin(stack, settings, stop)
        stack.enter_context(feed.publishing(EVENTS_PER_SECOND))
        log.info("%.0f made-up events/s to practice services; Ctrl-C ends it", EVENTS_PER_SECOND)
        effective = settings.changed(
            state_dir=state,
            feed_url=feed.url,
            feed_api_key=parse_secret(feed.api_key),
            status_port=_status_port(settings),
            **added,
        )
        yield effective
        log.info("over; the NDJSON files it wrote are in %s", effective["files_dir"])


def _status_port(settings: Settings) -> int:
    """The port asked for, or any free one when it was not asked for and somebody has it."""
    wanted = settings.status_port
    if not wanted or "status_port" in settings.given:
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.status_host, wanted))
        except OSError:
            probe.bind((settings.status_host, 0))
        return int(probe.getsockname()[1])
