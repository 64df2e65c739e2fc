"""The demo: practice services on loopback, and the settings that point the real job at them."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

from pipelines.local.practice import destinations
from pipelines.local.practice.feed import PracticeFeed
from pipelines.local.temporary import temporary_directory
from pipelines.settings import Settings
from transforms.secret import parse_secret

log = logging.getLogger("grantex.demo")

EVENTS_PER_SECOND = 20.0


@contextlib.contextmanager
def practice(settings: Settings, stop: threading.Event) -> Iterator[Settings]:
    """Start the practice services; yields the settings with feed and destinations filled in.

    stop: set when the job drains; what fails now and then works from then on, so that nothing is left over.
    """
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(temporary_directory("grantex-beam-demo-"))
        feed = stack.enter_context(PracticeFeed(keep_ids=False))
        added = destinations.begin(stack, settings, stop)
        stack.enter_context(feed.publishing(EVENTS_PER_SECOND))
        log.info("%.0f made-up events/s to practice services; Ctrl-C ends it", EVENTS_PER_SECOND)
        effective = replace(
            settings,
            state_dir=state,
            feed_url=feed.url,
            feed_api_key=parse_secret(feed.api_key),
            status_port=_status_port(settings),
            **added,
        )
        yield effective
        log.info("over; the NDJSON files it wrote are in %s", effective.files_dir)


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
