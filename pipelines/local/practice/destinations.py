"""The demo's practice destinations: how each begins, and the settings that point the real job at it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.local.practice import surroundings
from pipelines.local.practice.bigquery import PracticeBigQuery
from pipelines.local.practice.datadog import PracticeDatadog
from pipelines.local.practice.kafka import PracticeKafka
from pipelines.local.practice.s3 import PracticeS3
from pipelines.local.practice.splunk import PracticeSplunk
from pipelines.settings import Settings
from transforms.secret import parse_secret

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
    stack.enter_context(surroundings.no_proxy())
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
    stack.enter_context(surroundings.aws(server.access_key, server.secret_key))
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
    return {"kafka_bootstrap_servers": cluster.bootstrap_servers}


def _files(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    return {"files_dir": FILES, "files_max_age": ARCHIVE_SECONDS}


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
