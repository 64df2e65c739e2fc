"""The demo: practice services on loopback, and the settings that point the real job at them."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.local.practice.feed import PracticeFeed
from pipelines.local.practice.splunk import PracticeSplunk
from pipelines.settings import Settings
from transforms.secret import parse_secret

log = logging.getLogger("grantex.demo")

EVENTS_PER_SECOND = 20.0
MAX_AGES = {"files": 5.0}  # seconds: a person watches, the usual five minutes would look like nothing happens
FILES = Path("out")
# One service fails now and then, so that a person sees a retry, the circuit and the recovery.
WELL_SECONDS = 45.0
FAILING_SECONDS = 15.0

# What a practice destination adds to the settings.
Added = dict[str, Any]


@contextlib.contextmanager
def practice(settings: Settings, stop: threading.Event) -> Iterator[Settings]:
    """Start the practice services; yields the settings with feed and destinations filled in.

    stop: set when the job drains; what fails now and then works from then on, so that nothing is left over.
    """
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="grantex-beam-demo-"))
        feed = stack.enter_context(PracticeFeed(keep_ids=False))
        added: Added = {}
        for begin in DESTINATIONS:
            added |= begin(stack, settings, stop)
        stack.enter_context(feed.publishing(EVENTS_PER_SECOND))
        ages = {f"{name}_max_age": age for name, age in MAX_AGES.items()}
        added |= {name: age for name, age in ages.items() if name not in settings.given}
        log.info(
            "%.0f made-up events a second to practice services on this machine; Ctrl-C ends it",
            EVENTS_PER_SECOND,
        )
        yield replace(
            settings,
            state_dir=Path(state),
            feed_url=feed.url,
            feed_api_key=parse_secret(feed.api_key),
            status_port=_status_port(settings),
            **added,
        )
        log.info("over; the NDJSON files it wrote are in %s", added["files_dir"])


def _splunk(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    server = stack.enter_context(PracticeSplunk(keep_events=False, keep_ids=False))
    stack.enter_context(_failing_now_and_then(server, stop))
    log.info(
        "practice Splunk is made to fail for %.0f s every %.0f s: its events wait, then arrive",
        FAILING_SECONDS,
        WELL_SECONDS,
    )
    return {"splunk_hec_url": server.url, "splunk_hec_token": parse_secret(server.token)}


def _files(stack: contextlib.ExitStack, settings: Settings, stop: threading.Event) -> Added:
    return {"files_dir": settings.files_dir or FILES}


# Each further practice destination is a function above and a name here.
DESTINATIONS: list[Callable[[contextlib.ExitStack, Settings, threading.Event], Added]] = [_splunk, _files]


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
