"""`check` asks the feed whose key it is, what is left to ask, what time it is, which webhooks there are; and
holds a WebSocket until the service has counted it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pipelines.practice.feed import PRACTICE_DEVELOPER, PracticeFeed
from pipelines.practice.feed_websocket import SOCKET, SocketStream
from pipelines.practice.ledger import Ledger
from tests.transforms.write.manual_clock import ManualClock
from transforms.clock import SystemClock
from transforms.feed.check import check_key, check_socket, check_webhooks
from transforms.feed.request import MIN_STREAM_SECONDS, FeedSettings
from transforms.preflight import Finding
from transforms.secret import LiteralSecret

URL = "https://audit.example.com/hook"


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed() as feed:
        yield feed


def settings(feed: PracticeFeed, *types: str) -> FeedSettings:
    return FeedSettings(feed.url, LiteralSecret(feed.api_key), types)


def test_a_good_key_says_whose_it_is_and_what_its_plan_allows(feed: PracticeFeed) -> None:
    feed.ledger.requests_per_minute = 500
    feed.plan = "pro"
    key, rate, clock = check_key(settings(feed))
    assert (key.passed, key.note) == (True, f"developer {PRACTICE_DEVELOPER}, plan pro, live mode")
    assert (rate.passed, rate.cause, rate.note) == (True, "", "500, of which 499 are left in this one")
    assert clock == Finding("this machine's clock", True)
    assert [request.path for request in feed.requests] == ["/v1/me"]
    assert feed.streams == []


def test_a_budget_that_is_nearly_used_up_is_a_warning(feed: PracticeFeed) -> None:
    feed.ledger.requests_per_minute = 5
    found: list[Finding] = []
    for _ in range(4):
        found = list(check_key(settings(feed)))
    assert found[1].passed
    assert "Of 5 only 1 are left" in found[1].cause


@pytest.mark.parametrize(
    ("ahead", "passed", "said"),
    [
        (-50.0, True, ""),
        (-90.0, True, "90 s ahead of the service's"),
        (90.0, True, "90 s behind the service's"),
        (-400.0, False, "set the clock"),
        (400.0, False, "set the clock"),
    ],
)
def test_our_clock_is_compared_with_the_services(ahead: float, passed: bool, said: str) -> None:
    """ahead: seconds that the service is ahead of us."""
    clock = ManualClock(now=1_772_366_400.0)
    service = Ledger(clock=ManualClock(now=1_772_366_400.0 + ahead))
    with PracticeFeed(ledger=service) as feed:
        *_, found = check_key(settings(feed), clock)
    assert found.what == "this machine's clock"
    assert found.passed is passed
    assert said in found.cause
    assert bool(found.cause) is bool(said)


def test_a_refused_key_ends_it(feed: PracticeFeed) -> None:
    key = settings(feed)
    feed.api_keys = {}
    (found,) = check_key(key)
    assert found.passed is False
    assert "--feed_api_key" in found.cause


def test_no_webhook_is_no_fault_unless_one_is_wanted(feed: PracticeFeed) -> None:
    (found,) = check_webhooks(settings(feed))
    assert (found.passed, found.cause) == (True, "")
    assert "provision feed" in found.note
    (wanted,) = check_webhooks(settings(feed), webhook_url=URL)
    assert wanted.passed
    assert "None posts to --webhook_url" in wanted.cause
    _, ledger = check_webhooks(settings(feed), ledger_webhook="auto")
    assert ledger.passed is False
    assert "provision feed" in ledger.cause


def test_types_without_a_ledger_are_named(feed: PracticeFeed) -> None:
    made = feed.ledger.register(PRACTICE_DEVELOPER, URL, ["grant.created", "token.issued"])
    asked = settings(feed, "grant.created", "grant.revoked")
    webhooks, ledger = check_webhooks(asked, ledger_webhook="auto", webhook_url=URL)
    assert (webhooks.passed, webhooks.cause) == (True, "")
    assert webhooks.note == f"{made.id} (2 types); none is sent of grant.revoked"
    assert ledger.passed
    assert f"of {made.id}, which has rows of 1 of 2 types; nothing is proven of grant.revoked" in ledger.note
    _, other = check_webhooks(asked, ledger_webhook="wh_another")
    assert other.passed is False
    assert f"knows no webhook wh_another of this key; it knows: {made.id}" in other.cause


def test_webhooks_that_cannot_be_asked_about_are_a_fault_only_where_they_are_wanted(
    feed: PracticeFeed,
) -> None:
    feed.answer(500, path="/v1/webhooks", times=2)
    (idle,) = check_webhooks(settings(feed))
    assert idle.passed
    assert "answered 500" in idle.cause
    (wanted,) = check_webhooks(settings(feed), ledger_webhook="auto")
    assert wanted.passed is None


def test_a_used_up_minute_is_not_waited_out(feed: PracticeFeed) -> None:
    feed.ledger.requests_per_minute = 0
    (found,) = check_webhooks(settings(feed), ledger_webhook="auto")
    assert found.passed is None
    assert "used up" in found.cause


def test_a_websocket_is_held_until_its_slot_is_counted_and_then_closed(feed: PracticeFeed) -> None:
    began = time.monotonic()
    (found,) = check_socket(settings(feed))
    assert time.monotonic() - began >= MIN_STREAM_SECONDS
    assert (found.passed, found.cause) == (True, "")
    (stream,) = feed.streams
    assert isinstance(stream, SocketStream)
    feed.wait_for(lambda: not stream.is_open)
    assert stream.client_close is not None
    assert stream.client_close.code == 1000
    feed.wait_for(lambda: feed.socket_slots.taken(PRACTICE_DEVELOPER) == 0)


def test_a_proxy_that_drops_the_upgrade_is_named(feed: PracticeFeed) -> None:
    feed.answer(404, b"", path=SOCKET)
    (found,) = check_socket(settings(feed))
    assert found.passed is False
    assert "--feed_transport=sse" in found.cause


def test_taken_slots_are_a_warning_as_the_way_is_open(feed: PracticeFeed) -> None:
    for _ in range(5):
        assert feed.socket_slots.acquire(PRACTICE_DEVELOPER)
    (found,) = check_socket(settings(feed))
    assert found.passed
    assert "all five stream slots" in found.cause


def test_a_service_that_is_away_tells_nothing(feed: PracticeFeed) -> None:
    feed.down()
    for found in (*check_key(settings(feed)), *check_socket(settings(feed), SystemClock())):
        assert found.passed is None
        assert "could not be reached" in found.cause
