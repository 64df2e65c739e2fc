"""Webhooks into the job as a process of its own: to its destinations, over a kill, and through the relay."""

from __future__ import annotations

import signal
import time
from itertools import islice
from pathlib import Path

import msgspec

from pipelines.practice.events import generate
from pipelines.practice.webhooks import post, signed
from tests.integration import webhook_flood
from tests.integration.evidence import ids_in_files
from tests.integration.gap_test import FILES_ONLY
from tests.integration.job import World, world
from tests.integration.webhook_flood import SECRET
from tests.servers import pubsub as server
from transforms.feed.pubsub import ToChunks


def taking(around: World) -> tuple[str, dict[str, object]]:
    """Where webhooks go, and the flags that make the job take them."""
    port, flags = webhook_flood.taking(around)
    return f"http://127.0.0.1:{port}/grantex", {**flags, "webhook_path": "/grantex"}


def send(url: str, event: bytes, *, secret: str = SECRET, chunked: bool = False) -> int:
    return post(url, signed(event, secret, time.time()), event, chunked=chunked)


def test_what_was_answered_with_200_is_delivered_whatever_is_killed(around: World) -> None:
    url, flags = taking(around)
    events = list(islice(generate(), 40))
    with around.live_job(**flags, **FILES_ONLY) as job:
        answers = [send(url, event, chunked=bool(n % 2)) for n, event in enumerate(events[:20])]
        job.kill()
    with around.live_job(**flags, **FILES_ONLY) as job:
        answers += [send(url, event) for event in events[10:]]
        assert send(url, events[0], secret="forged") == 401
        around.feed.publish_many(events)  # what came by webhook is known
        job.wait_until(lambda: len(ids_in_files(around.out)) == 40, "files have all")
        counted = job.get("/metrics")[1]
        assert 'grantex_webhooks_total{result="accepted"} 20.0' in counted
        assert 'grantex_webhooks_total{result="duplicate"} 10.0' in counted
        assert 'grantex_webhooks_total{result="bad_signature"} 1.0' in counted
        assert job.drain() == 0
        assert SECRET not in job.log
    assert answers == [200] * 50
    assert sorted(ids_in_files(around.out)) == sorted(msgspec.json.decode(event)["id"] for event in events)


def test_after_the_end_of_a_run_no_webhook_is_taken_that_is_not_kept(around: World) -> None:
    url, flags = taking(around)
    events = generate()
    taken = []
    with around.live_job(**flags, **FILES_ONLY) as job:
        job.signal(signal.SIGTERM)
        while job.process.poll() is None:
            event = next(events)
            try:
                if send(url, event) == 200:
                    taken.append(msgspec.json.decode(event)["id"])
            except OSError:
                pass
        assert job.wait() == 0
    with around.live_job(**flags, **FILES_ONLY) as job:
        job.wait_until(lambda: set(taken) <= set(ids_in_files(around.out)), "all that was taken")
    assert len(ids_in_files(around.out)) == len(set(ids_in_files(around.out)))


def test_webhooks_reach_a_cluster_through_the_relay(tmp_path: Path) -> None:
    events = list(islice(generate(), 30))
    with world(tmp_path, forks=True) as made, server.running(tmp_path / "pubsub.log") as service:
        url, flags = taking(made)
        topic = service.topic("events")
        relay = {
            "pubsub_topic": topic,
            "pubsub_endpoint": service.endpoint,
            "files_dir": None,
            "files_max_age": None,
        }
        with made.live_job(**flags, **FILES_ONLY, **relay) as job:
            assert [send(url, event) for event in events] == [200] * 30
            job.wait_until_settled("pubsub")
            assert job.drain() == 0
        messages = service.messages("events")
    chunks = ToChunks()  # what a job with --pubsub_subscription begins with
    chunks.start_bundle()
    outputs = [each for message in messages for each in chunks.process(message.data)] + list(
        chunks.finish_bundle()
    )
    assert sorted(event.raw for each in outputs for event in each.value.events) == sorted(events)


def test_a_flood_of_bad_requests_takes_nothing_from_the_feed(around: World) -> None:
    """In short; webhook_flood.py measures what it costs."""
    port, flags = webhook_flood.taking(around)
    with around.live_job(**flags, **FILES_ONLY) as job:
        flood = webhook_flood.Flood(port, rate=1000)
        with flood.running():
            with around.feed.publishing(rate=500):
                job.wait_until(lambda: sum(flood.sent.values()) >= 1500, "a flood")
            genuine = next(generate())
            answer = post(f"http://127.0.0.1:{port}/", signed(genuine, SECRET, time.time()), genuine)
        published = sum(len(stream.sent_ids) for stream in around.feed.streams[:1])
        job.wait_until(lambda: len(ids_in_files(around.out)) >= published + 2, "everything")
        counted = job.get("/metrics")[1]
        assert job.drain() == 0
        told = [line for line in job.log.splitlines() if "webhooks without an event" in line]
    assert answer == 200
    assert len(ids_in_files(around.out)) == published + 2  # the genuine one, and the one that is repeated
    for result in ("bad_signature", "stale", "duplicate", "too_large", "malformed", "slow"):
        assert f'grantex_webhooks_total{{result="{result}"}} 0.0' not in counted
    assert len(told) <= 2
