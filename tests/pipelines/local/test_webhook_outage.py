"""Five minutes without a stream, in simulated time: webhooks alone bring what was published meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from pipelines.local.webhook import WebhookReceiver, WebhookSettings
from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.ledger import Generation
from pipelines.practice.webhooks import PER_TICK, TICK, WebhookSender
from tests.pipelines.local.test_lane import eventually
from tests.transforms.write.manual_clock import ManualClock
from transforms.event_types import KNOWN
from transforms.feed.journal import Journal
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret

SECRET = "5e" * 24


@dataclass(frozen=True)
class Webhook:
    url: str
    secret: str = SECRET
    events: tuple[str, ...] = tuple(KNOWN)


def ids(events: list[bytes]) -> list[str]:
    return [msgspec.json.decode(event)["id"] for event in events]


@pytest.mark.parametrize("generation", ["O", "N"])
def test_webhooks_cover_five_minutes_without_a_stream(tmp_path: Path, generation: Generation) -> None:
    clock = ManualClock()
    journal = Journal(tmp_path / "state", feed_url="https://feed.test", dedupe_horizon=86_400, clock=clock)
    cursor = journal.cursor("keeps what is received")
    with PracticeFeed(keepalive=0.05, clock=clock) as feed:
        receiver = WebhookReceiver(WebhookSettings(port=0, secrets=(LiteralSecret(SECRET),)), journal, clock)
        sender = WebhookSender([Webhook(f"http://127.0.0.1:{receiver.port}/")], generation, clock)
        reader = FeedReader(
            FeedSettings(feed.url, LiteralSecret(feed.api_key)), journal, connections=2, clock=clock
        )
        receiver.start()
        reader.start()
        events = list(islice(generate(now=clock.now()), 180))
        before, during, after = events[:20], events[20:160], events[160:]

        def publish(some: list[bytes]) -> None:
            feed.publish_many(some)
            sender.publish(some)

        until_true(lambda: len(feed.open_streams) == 2, clock, step=1.0)
        publish(before)
        assert eventually(lambda: journal.end == 20)
        feed.down()
        assert eventually(lambda: not feed.open_streams)
        for minute in range(5):
            publish(during[minute * 28 : minute * 28 + 28])
            for _ in range(2):
                clock.advance(TICK)
                assert sender.tick() <= PER_TICK
        assert journal.gap_open
        feed.up()
        until_true(lambda: len(feed.open_streams) >= 1 and not journal.gap_open, clock, step=5.0)
        publish(after)
        assert eventually(lambda: journal.end >= 20 + len(after))
        while sender.counts("pending"):
            clock.advance(TICK)
            sender.tick()
        reader.stop()
        receiver.close()
    kept = [event.raw for chunk in journal.read(cursor.position, 10**6) for event in chunk.events]
    gaps = journal.gaps()
    journal.close()
    assert sorted(ids(kept)) == sorted(ids(events)), "each once, and none is missing"
    assert sorted(kept) == sorted(events), "byte for byte"
    assert sum((gap.until or 0.0) - gap.since for gap in gaps) >= 299, "a webhook closes no gap"
    assert receiver.counts["accepted"] >= len(during)
    assert receiver.counts["accepted"] + receiver.counts["duplicate"] == len(events)
    assert sender.counts("failed") == 0


def until_true(condition: Callable[[], bool], clock: ManualClock, step: float) -> None:
    """Let time pass, `step` seconds at once, until it holds."""

    def holds() -> bool:
        if condition():
            return True
        clock.advance(step)
        return False

    assert eventually(holds)
