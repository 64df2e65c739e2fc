"""Reading the service's delivery ledger: walks while rows arrive, a time found by bisecting, politeness."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.practice import ledger as practice
from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from tests.transforms.write.manual_clock import ManualClock, PassingClock
from transforms.event_types import KNOWN
from transforms.feed.ledger import (
    PAGE_SIZE,
    SLACK,
    Delivery,
    Ledger,
    LedgerError,
    LedgerGone,
    Stopped,
    Webhook,
    choose,
)
from transforms.feed.request import FeedSettings
from transforms.secret import FileSecret, LiteralSecret

AT = 1_772_366_400.0


@pytest.fixture
def clock() -> PassingClock:
    return PassingClock()


@pytest.fixture
def feed(clock: PassingClock) -> Iterator[PracticeFeed]:
    with PracticeFeed(ledger=practice.Ledger(clock=clock)) as feed:
        yield feed


def filled(feed: PracticeFeed, clock: PassingClock, seconds: int, a_second: int) -> tuple[str, list[str]]:
    """A webhook with a row for each of so many events from AT on; its id and theirs, oldest first."""
    webhook = feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN)).id
    ids = []
    for second in range(seconds):
        events = list(islice(generate(second, now=clock.now()), a_second))
        ids += [json.loads(event)["id"] for event in events]
        feed.publish_many(events)
        clock.advance(1.0)
    return webhook, ids


@contextlib.contextmanager
def reading(feed: PracticeFeed, clock: PassingClock, **more: Any) -> Iterator[Ledger]:
    settings = FeedSettings(feed.url, more.pop("key", LiteralSecret(PRACTICE_KEY)))
    with contextlib.closing(Ledger(settings, clock=clock, uniform=lambda low, high: low, **more)) as ledger:
        yield ledger


def walked(ledger: Ledger, webhook: str, first: int = 1) -> list[str]:
    return [each.eventId for each in chain.from_iterable(ledger.walk(webhook, first))]


@pytest.mark.parametrize("rows", [0, 1, PAGE_SIZE, 3 * PAGE_SIZE, 3 * PAGE_SIZE + 1])
def test_a_walk_sees_every_row_newest_first(feed: PracticeFeed, clock: PassingClock, rows: int) -> None:
    webhook, ids = filled(feed, clock, 1, rows)
    with reading(feed, clock) as ledger:
        assert walked(ledger, webhook) == ids[::-1]
        assert ledger.requests == rows // PAGE_SIZE + 1


@pytest.mark.parametrize("arriving", [1, 37, 80])
def test_rows_that_arrive_meanwhile_hide_none_and_none_comes_twice(
    feed: PracticeFeed, clock: PassingClock, arriving: int
) -> None:
    webhook, ids = filled(feed, clock, 10, 100)
    feed.ledger.arriving = arriving
    with reading(feed, clock) as ledger:
        found = []
        for rows in ledger.walk(webhook):
            found += [each.eventId for each in rows]
            if set(ids) <= set(found):
                break
    assert [each for each in found if each in set(ids)] == ids[::-1]
    assert len(found) == len(set(found))


def test_pages_that_a_wait_pushed_down_are_passed_over(feed: PracticeFeed, clock: PassingClock) -> None:
    webhook, ids = filled(feed, clock, 10, 100)
    with reading(feed, clock) as ledger:
        rows = ledger.walk(webhook)
        found = [each.eventId for each in chain(next(rows), next(rows))]
        feed.publish_many(islice(generate(99), 5000))  # fifty pages of them
        found += [each.eventId for each in chain.from_iterable(rows)]
        assert [each for each in found if each in set(ids)] == ids[::-1]
        assert len(found) == len(set(found))
        assert ledger.requests <= 2 + 8 + 3


@pytest.mark.parametrize("arriving", [0, 60])
@pytest.mark.parametrize("at", [-100.0, 20.0, 300.0])
def test_a_time_is_found_in_a_few_requests(
    feed: PracticeFeed, clock: PassingClock, at: float, arriving: int
) -> None:
    webhook, ids = filled(feed, clock, 60, 50)
    feed.ledger.arriving = arriving
    with reading(feed, clock) as ledger:
        first = ledger.page_before(webhook, AT + at)
        asked = ledger.requests
        assert asked <= 9
        found = set()
        for rows in ledger.walk(webhook, first):
            found |= {each.eventId for each in rows}
            if set(ids) <= found or not rows:
                break
    wanted = {each for each in ids if Delivery(each).at <= AT + at}
    assert wanted <= found
    if not arriving and 0.0 <= at < 60.0:
        assert len(found) <= len(wanted) + 50 * SLACK + 3 * PAGE_SIZE


def test_a_fifth_of_the_budget_is_left_to_the_user(clock: PassingClock) -> None:
    with PracticeFeed(ledger=practice.Ledger(clock=clock, requests_per_minute=10)) as feed:
        webhook, ids = filled(feed, clock, 20, 100)
        with reading(feed, clock) as ledger:
            assert walked(ledger, webhook) == ids[::-1]
        # Eight of ten, then the rest of the minute.
        assert clock.waits == [60.0, 60.0]
        assert 429 not in [request.status for request in feed.requests]


def test_the_users_own_calls_make_it_wait_earlier(clock: PassingClock) -> None:
    with PracticeFeed(ledger=practice.Ledger(clock=clock, requests_per_minute=10)) as feed:
        webhook, _ = filled(feed, clock, 20, 100)
        with reading(feed, clock) as ledger:
            ledger.page(webhook, 1)
            feed.ledger._minute[PRACTICE_DEVELOPER] = (clock.monotonic(), 10)
            ledger.page(webhook, 2)
            assert clock.waits == [60.0]


def test_without_headers_it_goes_at_the_smallest_plans_pace(feed: PracticeFeed, clock: PassingClock) -> None:
    feed.answer(200, b'{"deliveries":[],"total":0,"page":1,"pageSize":100}', times=2)
    with reading(feed, clock) as ledger:
        ledger.page("wh", 1)
        ledger.page("wh", 1)
    assert clock.waits == [0.75]


@pytest.mark.parametrize(("headers", "wait"), [({"Retry-After": "17"}, 17.0), ({}, 60.0)])
def test_429_is_waited_for_as_it_asks(
    feed: PracticeFeed, clock: PassingClock, headers: dict[str, str], wait: float
) -> None:
    webhook, _ = filled(feed, clock, 1, 3)
    feed.answer(429, b'{"message":"m","code":"RATE_LIMIT_EXCEEDED"}', headers, times=2)
    with reading(feed, clock) as ledger:
        assert ledger.page(webhook, 1).total == 3
    assert clock.waits == [wait, wait]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_what_passes_is_tried_again_and_then_said(
    feed: PracticeFeed, clock: PassingClock, status: int
) -> None:
    webhook, _ = filled(feed, clock, 1, 3)
    with reading(feed, clock, tries=3) as ledger:
        feed.answer(status, times=2)
        assert ledger.page(webhook, 1).total == 3
        feed.answer(status, times=3)
        with pytest.raises(LedgerError, match=f"answered {status}"):
            ledger.page(webhook, 1)


def test_a_service_that_is_away_is_tried_again(feed: PracticeFeed, clock: PassingClock) -> None:
    webhook, _ = filled(feed, clock, 1, 3)
    with reading(feed, clock) as ledger:
        feed.reset("before", times=2)
        assert ledger.page(webhook, 1).total == 3


@pytest.mark.parametrize(
    "body",
    [b"<html><title>Sign in</title></html>", b"{}", b'{"deliveries":[],"total":"x"}', b"[", b'{"total":1}'],
)
def test_an_answer_in_other_words_is_no_ledger(feed: PracticeFeed, clock: PassingClock, body: bytes) -> None:
    feed.answer(200, body, times=3)
    with (
        reading(feed, clock) as ledger,
        pytest.raises(LedgerError, match="something in between answered 200"),
    ):
        ledger.page("wh", 1)


def test_a_webhook_that_is_gone_says_what_to_do(feed: PracticeFeed, clock: PassingClock) -> None:
    with reading(feed, clock) as ledger, pytest.raises(LedgerGone, match=r"no webhook wh_1 .*provision feed"):
        ledger.page("wh_1", 1)


def test_a_key_that_was_replaced_is_read_again(
    feed: PracticeFeed, clock: PassingClock, tmp_path: Path
) -> None:
    webhook, _ = filled(feed, clock, 1, 3)
    file = tmp_path / "key"
    file.write_text(PRACTICE_KEY)
    with reading(feed, clock, key=FileSecret(str(file))) as ledger:
        assert ledger.page(webhook, 1).total == 3
        feed.api_keys = {"new-key": PRACTICE_DEVELOPER}
        with pytest.raises(LedgerError, match="refused the key"):
            ledger.page(webhook, 1)
        file.write_text("new-key")
        assert ledger.page(webhook, 1).total == 3
        feed.api_keys = {"newer-key": PRACTICE_DEVELOPER}
        file.write_text("newer-key")
        assert ledger.page(webhook, 1).total == 3


def test_told_to_stop_it_waits_no_longer(feed: PracticeFeed, clock: PassingClock) -> None:
    stop = threading.Event()
    stop.set()
    with reading(feed, clock, stop=stop) as ledger, pytest.raises(Stopped):
        ledger.page("wh", 1)


def test_what_time_it_is_there(feed: PracticeFeed, clock: PassingClock) -> None:
    theirs = ManualClock(clock.now() + 7.0, clock.monotonic())
    feed.ledger._clock = theirs
    with reading(feed, clock) as ledger:
        ledger.webhooks()
        assert 6.0 <= ledger.ahead <= 7.0


def test_which_webhook_auto_means(feed: PracticeFeed, clock: PassingClock) -> None:
    few = feed.ledger.register(PRACTICE_DEVELOPER, "https://few.test", ["grant.created"])
    clock.advance(1.0)
    many = feed.ledger.register(PRACTICE_DEVELOPER, "https://many.test", sorted(KNOWN))
    clock.advance(1.0)
    feed.ledger.register(PRACTICE_DEVELOPER, "https://younger.test", sorted(KNOWN))
    with reading(feed, clock) as ledger:
        webhooks = ledger.webhooks()
    assert choose(webhooks, "auto").id == many.id
    assert choose(webhooks, "auto", "https://few.test").id == few.id
    assert choose(webhooks, few.id).id == few.id
    with pytest.raises(LedgerGone, match="knows no webhook wh_x"):
        choose(webhooks, "wh_x")
    with pytest.raises(LedgerGone, match="provision feed"):
        choose([], "auto")


def test_the_list_may_also_come_without_an_object_around_it(feed: PracticeFeed, clock: PassingClock) -> None:
    feed.answer(200, b'[{"id":"wh_1","events":["*"]}]')
    with reading(feed, clock) as ledger:
        (found,) = ledger.webhooks()
    assert found == Webhook("wh_1", events=("*",))
    assert found.covers("any.type")
