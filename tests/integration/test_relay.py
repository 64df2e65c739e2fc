"""The durable relay: a job on one machine publishes to Pub/Sub, and kill -9 loses nothing of what it took."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import msgspec

from pipelines.practice.events import generate
from tests.integration.job import world
from tests.servers import pubsub as server
from transforms.feed.pubsub import ToChunks

EVENTS = 3000


def test_what_the_feed_sent_is_in_the_subscription_whatever_was_killed(tmp_path: Path) -> None:
    events = list(islice(generate(), EVENTS))
    ids = {msgspec.json.decode(event)["id"]: event for event in events}
    with world(tmp_path, forks=True) as made, server.running(tmp_path / "pubsub.log") as service:
        topic = service.topic("events")
        none = {"splunk_hec_url": None, "splunk_hec_token": None, "splunk_max_age": None}
        files = {"files_dir": None, "files_max_age": None}
        flags = made.flags(pubsub_topic=topic, pubsub_endpoint=service.endpoint, **none, **files)
        with made.start(flags) as job:
            made.feed.wait_for_streams(timeout=30)
            made.feed.publish_many(events[:1000])
            job.wait_until(
                lambda: job.metric("grantex_events_delivered_total", "pubsub") > 0, "some is there"
            )
            made.feed.publish_many(events[1000:])
            job.wait_until(
                lambda: job.metric("grantex_events_received_total") == EVENTS, "everything was received"
            )
            job.kill()
        with made.start(flags) as job:
            job.wait_until_settled("pubsub")
            assert job.drain() == 0
        messages = service.messages("events")
    chunks = ToChunks()
    chunks.start_bundle()
    made_of = [each for message in messages for each in chunks.process(message.data)]
    made_of += chunks.finish_bundle()
    found = {event.id: event.raw for each in made_of for event in each.value.events}
    assert found == ids
    assert all(message.attributes["event_id"] in ids for message in messages)
    assert len(messages) <= EVENTS + 2 * 1000, "only what was under way at the kill may repeat"
