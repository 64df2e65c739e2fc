"""The practice ledger does what feed.md says the service's does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import httpx
import pytest

from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.ledger import OLD_TYPES, Generation, Ledger
from tests.pipelines.local.test_lane import eventually
from tests.transforms.write.manual_clock import ManualClock
from transforms.event_types import KNOWN


def get(feed: PracticeFeed, path: str, key: str = PRACTICE_KEY) -> httpx.Response:
    return httpx.get(feed.url + path, headers={"Authorization": f"Bearer {key}"}, trust_env=False)


def page(feed: PracticeFeed, webhook: str, query: str = "") -> Mapping[str, Any]:
    found: dict[str, Any] = get(feed, f"/v1/webhooks/{webhook}/deliveries?{query}").json()
    return found


def test_pages_are_newest_first_twenty_unless_asked_and_a_hundred_at_most() -> None:
    with PracticeFeed() as feed:
        webhook = feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN)).id
        events = list(islice(generate(1), 250))
        ids = [json.loads(event)["id"] for event in events]
        feed.publish_many(events)
        assert len(page(feed, webhook)["deliveries"]) == 20
        first, last = page(feed, webhook, "pageSize=500"), page(feed, webhook, "page=3&pageSize=100")
    assert [each["eventId"] for each in first["deliveries"]] == ids[:149:-1]
    assert [each["eventId"] for each in last["deliveries"]] == ids[49::-1]
    assert (first["total"], first["page"], first["pageSize"]) == (250, 1, 100)
    assert set(first["deliveries"][0]) == {
        *("id", "webhookId", "eventId", "eventType", "status", "attempts", "maxAttempts", "url"),
        *("lastError", "createdAt", "deliveredAt"),
    }


def test_rows_that_arrive_push_older_ones_to_later_pages() -> None:
    with PracticeFeed() as feed:
        webhook = feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN)).id
        feed.publish_many(islice(generate(1), 200))
        first = page(feed, webhook, "pageSize=100")["deliveries"]
        feed.ledger.arriving = 30
        second = page(feed, webhook, "page=2&pageSize=100")["deliveries"]
    assert [each["eventId"] for each in second[:30]] == [each["eventId"] for each in first[70:]]


@pytest.mark.parametrize(("generation", "number"), [("O", 3), ("N", len(KNOWN))])
def test_which_types_a_webhook_may_have(generation: Generation, number: int) -> None:
    ledger = Ledger(generation)
    with pytest.raises(ValueError, match="Valid: ") as refused:
        ledger.register("dev", "https://a.test", ["no.type"])
    valid = str(refused.value).partition("Valid: ")[2].split(", ")
    assert len(valid) == number
    assert set(OLD_TYPES) <= set(valid)
    assert ledger.register("dev", "https://a.test", valid).events == tuple(valid)


def test_only_rows_of_its_types_and_only_to_its_owner() -> None:
    with PracticeFeed({"k": "dev", "other": "somebody else"}, withhold_headers=False) as feed:
        webhook = feed.ledger.register("dev", "https://a.test", ["grant.revoked"]).id
        feed.publish_many(islice(generate(1), 20))
        mine = get(feed, f"/v1/webhooks/{webhook}/deliveries", "k").json()
        assert {each["eventType"] for each in mine["deliveries"]} == {"grant.revoked"}
        assert get(feed, f"/v1/webhooks/{webhook}/deliveries", "other").status_code == 404
        assert get(feed, "/v1/webhooks", "other").json() == {"webhooks": []}
        assert [each["id"] for each in get(feed, "/v1/webhooks", "k").json()["webhooks"]] == [webhook]
        assert get(feed, f"/v1/webhooks/{webhook}/deliveries?page=x", "k").status_code == 400
        del feed.ledger.webhooks[webhook]
        assert get(feed, f"/v1/webhooks/{webhook}/deliveries", "k").status_code == 404


def test_requests_a_minute_are_one_budget() -> None:
    clock = ManualClock()
    with PracticeFeed(ledger=Ledger(clock=clock, requests_per_minute=3)) as feed:
        left = [
            get(feed, path).headers["x-ratelimit-remaining"] for path in ("/v1/me", "/v1/webhooks", "/v1/me")
        ]
        assert left == ["2", "1", "0"]
        refused = get(feed, "/v1/me")
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.headers["retry-after"] == "60"
        clock.advance(60.0)
        assert get(feed, "/v1/me").status_code == 200


def test_dropped_events_are_in_the_ledger_and_in_no_stream() -> None:
    with PracticeFeed(withhold_headers=False) as feed:
        webhook = feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN)).id
        with httpx.stream(
            "GET",
            feed.url + "/v1/events/stream",
            headers={"Authorization": f"Bearer {PRACTICE_KEY}"},
            trust_env=False,
        ):
            feed.wait_for_streams()
            feed.ledger.drop(7)
            for event in islice(generate(1), 10):
                feed.publish(event)
            assert eventually(lambda: len(feed.streams[0].sent_ids) == 3)
        rows = [each["eventId"] for each in page(feed, webhook)["deliveries"]]
    assert set(rows) - set(feed.streams[0].sent_ids) == set(feed.ledger.dropped)
    assert len(feed.ledger.dropped) == 7
