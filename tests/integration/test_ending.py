"""How a run ends: signals, the end of the input, destinations that are down, and what the next start does."""

from __future__ import annotations

import signal
import time
from itertools import islice

import pytest

from pipelines.practice.events import generate
from tests.integration.evidence import ids_in_files
from tests.integration.job import World
from transforms.feed.journal import Journal

DRAINED = "drained: every event received is delivered or a dead letter"


def test_the_end_of_the_input_drains_what_is_young_and_exits_0(around: World) -> None:
    with around.live_job(files_max_age=300, splunk_max_age=300) as job:
        around.feed.publish_many(islice(generate(), 300))
        around.feed.end_input()
        assert job.wait() == 0
        assert "(204)" in job.log
        assert DRAINED in job.log
    assert sorted(ids_in_files(around.out)) == sorted(around.splunk.ids)
    assert len(set(around.splunk.ids)) == 300


@pytest.mark.alone
def test_with_a_destination_down_sigint_ends_in_time_and_the_next_start_delivers(around: World) -> None:
    around.splunk.down()
    with around.live_job(drain_timeout=4) as job:
        around.feed.publish_many(islice(generate(), 300))
        job.wait_until(lambda: len(ids_in_files(around.out)) == 300, "files had it all")
        job.wait_until(lambda: job.metric("grantex_circuit_open", "splunk") == 1, "its circuit opened")
        since = time.monotonic()
        job.signal(signal.SIGINT)
        assert job.wait(10) == 0
        assert time.monotonic() - since < 5.5
        assert "SIGINT: stopping in good order" in job.log
        assert "300 events kept for splunk" in job.log
        assert DRAINED not in job.log
    around.splunk.up()
    with around.job() as job:
        assert around.splunk.wait_for(300, timeout=30)
        assert job.drain() == 0
        assert DRAINED in job.log
    assert sorted(around.splunk.ids) == sorted(ids_in_files(around.out))


@pytest.mark.alone
def test_a_second_signal_stops_at_once_and_nothing_is_lost(around: World) -> None:
    around.splunk.hang()
    with around.live_job() as job:
        around.feed.publish_many(islice(generate(), 40))
        assert around.splunk.wait_for_requests(1, timeout=30)
        job.wait_until(lambda: len(ids_in_files(around.out)) == 40, "files had it all")
        job.signal(signal.SIGTERM)
        job.wait_for_log("SIGTERM: stopping in good order")
        since = time.monotonic()
        job.signal(signal.SIGTERM)
        assert job.wait(10) == 1
        assert time.monotonic() - since < 2.0
        assert "SIGTERM: stopping at once" in job.log
    journal = Journal(around.state, feed_url=around.feed.url)
    assert journal.books()["splunk"].pending == 40
    assert len(journal.cursors["splunk"].recover()[0].events) == 40, "sealed, so it comes again unchanged"
    journal.close()


def test_with_a_destination_down_the_feed_is_closed_at_the_very_end_and_that_comes_soon(
    around: World,
) -> None:
    """From SIGTERM to the end it took 22 s of blindness with the default --drain_timeout."""
    around.splunk.down()
    with around.live_job() as job:
        around.feed.publish_many(islice(generate(), 300))
        job.wait_until(lambda: len(ids_in_files(around.out)) == 300, "files had it all")
        job.wait_until(lambda: job.metric("grantex_circuit_open", "splunk") == 1, "its circuit opened")
        job.signal()
        around.feed.wait_for(lambda: not around.feed.open_streams, 20)
        closed = time.monotonic()
        assert job.wait() == 0
        assert time.monotonic() - closed < 8.0
        assert "300 events kept for splunk" in job.log
