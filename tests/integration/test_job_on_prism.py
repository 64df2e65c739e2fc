"""The whole job as a process on a cluster runner: `--runner=PrismRunner`, SIGTERM, exit 0."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.events import generate
from tests.integration.job import World, world
from tests.servers import prism
from transforms.write.dead_letters.directory import read_dead_letters

pytestmark = pytest.mark.own_network(needs=prism.program)

EVENTS = 20_000


@pytest.fixture
def datadog() -> Iterator[PracticeDatadog]:
    with PracticeDatadog() as made:
        yield made


@pytest.fixture
def made(tmp_path: Path, datadog: PracticeDatadog) -> Iterator[World]:
    with world(tmp_path) as services:
        yield replace(services, environment={**services.environment, "PRACTICE_DATADOG_KEY": datadog.key})


def flags(made: World, datadog: PracticeDatadog, **more: object) -> list[str]:
    """One job on Prism with two destinations, which are asked afterwards."""
    given: dict[str, object] = {
        "runner": "PrismRunner",
        "prism_location": prism.program(),
        "prism_log_level": "warn",
        "feed_url": made.feed.url,
        "feed_api_key": "env:PRACTICE_FEED_KEY",
        "feed_connections": 1,  # a range that is split would be a second stream
        "splunk_hec_url": made.splunk.url,
        "splunk_hec_token": "env:PRACTICE_HEC_TOKEN",
        "splunk_max_age": 0.5,
        "datadog_endpoint": datadog.url,
        "datadog_api_key": "env:PRACTICE_DATADOG_KEY",
        "datadog_max_age": 0.5,
        "dead_letters": made.place / "letters",
        "window_size": 5,
    }
    return [f"--{name}={value}" for name, value in {**given, **more}.items()]


def take(number: int) -> tuple[list[bytes], list[str]]:
    """Made-up events and their ids."""
    events = list(islice(generate(), number))
    return events, [msgspec.json.decode(event)["id"] for event in events]


def test_each_destination_is_sent_what_it_asks_for_and_pseudonyms_where_it_asks_for_these(
    made: World, datadog: PracticeDatadog
) -> None:
    made = replace(made, environment={**made.environment, "PSEUDONYM_KEY": "0123456789abcdef"})
    events, _ = take(2_000)
    read = [msgspec.json.decode(event) for event in events]
    asked = {
        "splunk_types": "grant.*,!grant.revoked",
        "datadog_types": "budget.exhausted",
        "splunk_pseudonymize": "data.principalId",
        "pseudonym_key": "env:PSEUDONYM_KEY",
    }
    with made.start(flags(made, datadog, **asked)) as job:
        job.wait_until(lambda: made.feed.open_streams, "it opened a stream", 60)
        made.feed.publish_many(events)
        grants = {each["id"]: each for each in read if each["type"] == "grant.created"}
        exhausted = {each["id"] for each in read if each["type"] == "budget.exhausted"}
        job.wait_until(lambda: len(made.splunk.ids) >= len(grants), "Splunk has them", 60)
        assert job.drain(60) == 0, job.log
    assert "drained: every event received is delivered or a dead letter" in job.log
    assert Counter(made.splunk.ids) == Counter(grants.keys())
    assert Counter(datadog.ids) == Counter(exhausted)
    for one in made.splunk.events:
        sent, right = msgspec.json.decode(one.event), grants[one.event_id]
        person = right["data"]["principalId"]
        right["data"]["principalId"] = hmac.new(b"0123456789abcdef", person.encode(), "sha256").hexdigest()
        assert sent == right


def test_every_event_is_delivered_everywhere_and_sigterm_drains(
    made: World, datadog: PracticeDatadog
) -> None:
    events, ids = take(EVENTS)
    with made.start(flags(made, datadog)) as job:
        job.wait_until(lambda: made.feed.open_streams, "it opened a stream", 60)
        made.feed.publish_many([b"no JSON at all", *events[: EVENTS // 2]])
        job.wait_until(lambda: len(made.splunk.ids) >= EVENTS // 4, "Splunk has some", 60)
        made.feed.publish_many(events[EVENTS // 2 :])
        job.wait_until(lambda: len(datadog.ids) >= EVENTS - 100, "Datadog has nearly all", 60)
        assert job.drain(60) == 0, job.log
    assert "draining" in job.log
    assert "drained: every event received is delivered or a dead letter" in job.log
    assert Counter(made.splunk.ids) == Counter(ids)
    assert Counter(datadog.ids) == Counter(ids)
    [letter] = read_dead_letters(made.place / "letters")
    assert (letter.stage, letter.raw) == ("feed", b"no JSON at all")
    assert len(made.feed.streams) == 1, "a range was split, and the feed read twice"
    for secret in made.environment.values():
        assert secret not in job.log


def test_what_a_destination_that_is_down_does_not_take_at_the_drain_becomes_dead_letters(
    made: World, datadog: PracticeDatadog
) -> None:
    events, ids = take(500)
    made.splunk.down()
    with made.start(flags(made, datadog, drain_timeout=12)) as job:
        job.wait_until(lambda: made.feed.open_streams, "it opened a stream", 60)
        made.feed.publish_many(events)
        job.wait_until(lambda: len(datadog.ids) >= 500, "Datadog has all", 60)
        assert job.drain(60) == 0, job.log
    assert Counter(datadog.ids) == Counter(ids)
    letters = list(read_dead_letters(made.place / "letters"))
    assert Counter(letter.event_id for letter in letters) == Counter(ids)
    assert {letter.destination for letter in letters} == {"splunk"}
    assert "did not take it in the time for that" in letters[0].cause
