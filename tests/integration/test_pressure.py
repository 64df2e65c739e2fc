"""More than fits: a journal at its bound pauses the feed; and a second connection that closes gaps."""

from __future__ import annotations

from functools import partial
from itertools import islice

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Finish
from tests.integration.evidence import ids_in_files
from tests.integration.job import World
from transforms.write.dead_letters.directory import read_dead_letters


def gaps(around: World) -> list[str]:
    return [one.cause for one in read_dead_letters(around.dead_letters) if one.cause.startswith("feed_gap")]


def has_opened(around: World, streams: int) -> bool:
    return len(around.feed.streams) >= streams


def test_a_full_journal_pauses_the_feed_and_says_so(around: World) -> None:
    """The practice feed waits for a slow reader as long as it takes, so here even the gap loses nothing."""
    events = list(islice(generate(), 8_000))
    around.splunk.hang()
    with around.live_job(journal_max_bytes=1_000_000) as job:
        around.feed.publish_many(events)
        job.wait_for_log("the journal is full")
        assert "--journal_max_bytes=1000000" in job.log
        held = job.metric("grantex_events_received_total")
        assert 2_000 < held < 6_000
        assert "paused" in job.get("/readyz")[1]
        around.splunk.release()
        job.wait_until(lambda: around.splunk.count >= len(events), "everything arrived", 60)
        job.wait_until_settled("files", "splunk")
        assert "the journal has room again" in job.log
        assert job.drain() == 0
    assert len(set(around.splunk.ids)) == len(events)
    assert sorted(ids_in_files(around.out)) == sorted(set(around.splunk.ids))
    assert set(gaps(around)) == {"feed_gap: the journal was full"}


def test_with_two_connections_one_that_is_cut_leaves_no_gap(around: World) -> None:
    with around.live_job(feed_connections=2) as job:
        around.feed.wait_for_streams(2, timeout=30)
        job.wait_until(lambda: job.metric("grantex_feed_connections") == 2, "both are live")
        with around.feed.publishing(500.0):
            for how in (Finish.CUT, Finish.RESET):
                # Of a stream that was just opened nobody knows yet whether the other had heard all before it.
                heard = around.splunk.count + 200
                job.wait_until(lambda heard=heard: around.splunk.count >= heard, "both are heard")  # type: ignore[misc]
                opened = len(around.feed.streams) + 1
                around.feed.open_streams[0].put(how)
                around.feed.wait_for(partial(has_opened, around, opened), 30)
                job.wait_until(lambda: job.metric("grantex_feed_connections") == 2, "both are live again")
        # The last ones may still be on their way out of the feed.
        job.wait_until(lambda: set(around.splunk.ids) == around.feed.sent_ids, "everything arrived")
        job.wait_until_settled("files", "splunk")
        assert job.metric("grantex_feed_gaps_total") == 0
        assert job.drain() == 0
    assert set(around.splunk.ids) == around.feed.sent_ids
    assert sorted(ids_in_files(around.out)) == sorted(around.feed.sent_ids)
