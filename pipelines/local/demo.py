"""The demo: practice services on loopback, and the settings that point the real job at them."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipelines.local.practice.feed import PracticeFeed
from pipelines.local.practice.splunk import PracticeSplunk
from pipelines.settings import Settings
from transforms.secret import parse_secret

log = logging.getLogger("grantex.demo")

EVENTS_PER_SECOND = 20.0
FILES_MAX_AGE = 5.0  # seconds: a person watches, the usual five minutes would look like nothing happens
FILES = Path("out")


@contextlib.contextmanager
def practice(settings: Settings) -> Iterator[Settings]:
    """Start the practice services; yields the settings with feed and destinations filled in."""
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="grantex-beam-demo-"))
        feed = stack.enter_context(PracticeFeed(keep_ids=False))
        splunk = stack.enter_context(PracticeSplunk(keep_events=False, keep_ids=False))
        stack.enter_context(feed.publishing(EVENTS_PER_SECOND))
        files = settings.files_dir or FILES
        log.info("demo: practice feed on %s, practice Splunk on %s, files in %s", feed.url, splunk.url, files)
        yield replace(
            settings,
            state_dir=Path(state),
            feed_url=feed.url,
            feed_api_key=parse_secret(feed.api_key),
            splunk_hec_url=splunk.url,
            splunk_hec_token=parse_secret(splunk.token),
            files_dir=files,
            files_max_age=settings.files_max_age if "files_max_age" in settings.given else FILES_MAX_AGE,
        )
