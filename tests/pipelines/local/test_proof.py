"""Continuous proof: what the service published and nobody received is named, once, and nothing else is."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.local import verdict
from pipelines.local.metrics import exposition
from pipelines.local.proof import IN_FLIGHT, LOOK_EVERY, ContinuousProof, ProofStatus
from pipelines.local.status_json import status_json
from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.feed_stream import prepare
from pipelines.practice.ledger import Ledger
from tests.integration.silent_drops import Simulation
from tests.pipelines.local import looks
from tests.transforms.write.manual_clock import PassingClock
from transforms.dead_letter import DeadLetter, cause_word
from transforms.event import Event
from transforms.event_types import KNOWN
from transforms.feed.journal import Journal
from transforms.feed.ledger import LedgerError, LedgerGone
from transforms.feed.request import FeedSettings
from transforms.parse import parse_frame, parse_frames
from transforms.secret import LiteralSecret

ALL = sorted(KNOWN)


class World:
    """A service with a ledger, a journal and a proof, under one clock that stands still."""

    def __init__(self, directory: Path, feed: PracticeFeed, clock: PassingClock) -> None:
        self.directory, self.feed, self.clock = directory, feed, clock
        self.heard: float | None = None  # None: up to now
        self.types: tuple[str, ...] = ()
        self.webhook = "auto"
        self.made = 0
        self.journal = self.proof = None  # type: ignore[assignment]

    journal: Journal
    proof: ContinuousProof

    def start(self, **more: Any) -> None:
        """As a process starts: a journal that may have been there before, and a new proof."""
        self.journal = Journal(self.directory, feed_url="https://feed.test", clock=self.clock, **more)
        settings = FeedSettings(self.feed.url, LiteralSecret(PRACTICE_KEY), self.types)
        self.proof = ContinuousProof(settings, self.webhook, self.journal, self.until, self.clock)

    def until(self) -> float:
        return self.clock.now() if self.heard is None else self.heard

    def restart(self, **more: Any) -> None:
        self.journal.close()
        self.start(**more)

    def publish(self, number: int = 1, *, received: bool = True) -> list[str]:
        """Events of this moment, which nobody gets unless they are `received`; their ids."""
        self.made += 1
        prepared = prepare(islice(generate(self.made, now=self.clock.now()), number))
        self.feed.ledger.published(prepared)
        if received:
            self.receive(prepared.events)
        self.last = prepared.events
        return [event_id for event_id, _ in prepared.heads]

    def receive(self, raw: Sequence[bytes]) -> None:
        events, _ = parse_frames(raw, self.clock.now())
        self.journal.append(events, [])

    def walk_later(self, seconds: float = IN_FLIGHT + 5) -> None:
        self.clock.advance(seconds)
        self.proof.walk()

    def letters(self) -> list[DeadLetter]:
        """The missing events that were told, so far."""
        return [letter for _, letter in self.journal.dead_letters() if cause_word(letter.cause) == "missing"]

    def told(self) -> list[str]:
        return [letter.event_id for letter in self.letters()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = PassingClock()
    with PracticeFeed(ledger=Ledger(clock=clock)) as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ALL)
        world = World(tmp_path, feed, clock)
        world.start()
        clock.advance(1.0)
        world.walk_later()  # from here on it is proven
        world.walk_later()
        yield world
        world.journal.close()


def test_ten_minutes_with_silent_drops_late_events_and_restarts(tmp_path: Path) -> None:
    result = Simulation(tmp_path, seconds=600, rate=5, drops=40).run()
    assert len(result.dropped) == 40
    assert result.named.keys() == result.dropped.keys()
    assert set(result.times_named.values()) == {1}
    assert result.is_right


def test_a_missing_event_is_a_dead_letter_of_the_feed_and_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (lost,) = world.publish(received=False)
    world.publish(9)
    at = world.clock.now()
    world.walk_later()
    (letter,) = world.letters()
    assert (letter.stage, letter.destination, letter.event_id) == ("feed", "", lost)
    assert letter.cause.startswith("missing: published 2026-")
    told = json.loads(letter.raw)
    assert told["event_id"] == lost
    assert told["event_type"] in KNOWN
    assert told["created_at"].startswith("2026-")
    assert not isinstance(parse_frame(letter.raw, 0.0), Event), (
        "it must not be replayed as if it were the event"
    )
    assert any(lost in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert world.proof.status.missing == 1
    assert (world.proof.status.until or 0.0) >= at


def test_it_is_told_and_counted_once_over_walks_and_restarts(world: World) -> None:
    lost = world.publish(3, received=False)
    world.walk_later()
    world.walk_later()
    world.restart()
    world.walk_later()
    world.publish(2)
    world.walk_later()
    assert sorted(world.told()) == sorted(lost)
    assert world.proof.status.missing == 3


def test_what_is_in_flight_is_not_asked_for(world: World) -> None:
    world.publish(5, received=False)
    raw = world.last
    world.walk_later(IN_FLIGHT - 5)
    assert world.told() == []
    world.receive(raw)
    world.walk_later()
    assert world.told() == []


@pytest.mark.parametrize("paused", [30.0, 600.0, 3000.0])
def test_while_the_feed_is_not_read_nothing_is_said(world: World, paused: float) -> None:
    """The journal is full, or all streams are silent: what waits in a socket is not missing."""
    world.heard = world.clock.now()
    world.clock.advance(1.0)
    world.publish(5, received=False)
    raw = world.last
    for _ in range(int(paused / LOOK_EVERY) + 2):
        world.walk_later(LOOK_EVERY)
    assert world.told() == []
    world.receive(raw)
    world.heard = None
    world.walk_later()
    assert world.told() == []
    assert (world.proof.status.until or 0.0) > world.clock.now() - IN_FLIGHT - 2


def test_before_the_first_stream_nothing_is_proven(tmp_path: Path) -> None:
    clock = PassingClock()
    with PracticeFeed(ledger=Ledger(clock=clock)) as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ALL)
        world = World(tmp_path, feed, clock)
        world.until = lambda: None  # type: ignore[method-assign,return-value,assignment]
        world.start()
        with contextlib.closing(world.journal):
            world.publish(3, received=False)
            world.walk_later()
            world.walk_later()
            assert world.told() == []
            assert world.proof.status.until is None


def test_what_was_published_before_the_first_start_is_not_missing(tmp_path: Path) -> None:
    clock = PassingClock()
    with PracticeFeed(ledger=Ledger(clock=clock)) as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ALL)
        world = World(tmp_path, feed, clock)
        world.start()
        with contextlib.closing(world.journal):
            world.publish(50, received=False)
            clock.advance(3600.0)
            world.proof.walk()
            world.walk_later()
            assert world.told() == []
            assert (world.proof.status.since or 0.0) >= clock.now() - 70


def test_what_came_while_the_process_was_away_is_missing_and_says_why(world: World) -> None:
    world.publish(3)
    world.journal.heard()
    world.clock.advance(5.0)
    world.journal.close()
    lost: list[str] = []
    for _ in range(4):
        world.clock.advance(30.0)
        lost += world.publish(1, received=False)
    world.clock.advance(1.0)
    world.start()
    world.journal.open_gap("not running")
    world.journal.close_gap()
    world.walk_later()
    assert sorted(world.told()) == sorted(lost)
    assert all("while the feed was not heard (not running)" in letter.cause for letter in world.letters())


def test_what_a_standby_brings_is_not_missing(world: World) -> None:
    """Its ring is appended before the first walk of the new process."""
    world.journal.close()
    world.clock.advance(10.0)
    world.publish(20, received=False)
    ring = world.last
    world.clock.advance(10.0)
    world.start()
    world.receive(ring)
    world.walk_later()
    assert world.told() == []


def test_a_missing_event_that_comes_after_all_is_told_as_found(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.publish(2, received=False)
    raw = world.last
    world.walk_later()
    assert world.proof.status.missing == 2
    caplog.set_level(logging.INFO)
    world.receive(raw[:1])
    world.walk_later()
    assert (world.proof.status.missing, world.proof.status.found) == (2, 1)
    assert f"{first[0]} was missing and has come after all" in caplog.messages
    world.restart()
    world.walk_later()
    assert (world.proof.status.missing, world.proof.status.found) == (2, 1)
    assert sorted(world.told()) == sorted(first)


def test_types_that_the_webhook_lacks_are_named_and_never_missing(tmp_path: Path) -> None:
    clock = PassingClock()
    with PracticeFeed(ledger=Ledger("O", clock=clock)) as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ["grant.created", "token.issued"])
        world = World(tmp_path, feed, clock)
        world.start()
        with contextlib.closing(world.journal):
            world.walk_later()
            world.walk_later()
            world.publish(100, received=False)
            types = [parse_frame(raw, 0.0).type for raw in world.last]  # type: ignore[union-attr]
            world.walk_later()
            assert len(world.told()) == sum(kind in ("grant.created", "token.issued") for kind in types) < 100
            not_covered = world.proof.status.not_covered
    assert set(not_covered) == KNOWN - {"grant.created", "token.issued"}


def test_types_that_were_not_asked_for_are_not_missing(tmp_path: Path) -> None:
    clock = PassingClock()
    with PracticeFeed(ledger=Ledger(clock=clock)) as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ALL)
        world = World(tmp_path, feed, clock)
        world.types = ("grant.revoked",)
        world.start()
        with contextlib.closing(world.journal):
            world.walk_later()
            world.walk_later()
            world.publish(20, received=False)
            world.walk_later()
            kinds = {json.loads(letter.raw)["event_type"] for letter in world.letters()}
            assert kinds == {"grant.revoked"}
            assert world.proof.status.not_covered == ()


def test_time_before_the_webhook_is_not_provable(world: World) -> None:
    world.feed.ledger.webhooks.clear()
    world.clock.advance(300.0)
    world.feed.ledger.register(PRACTICE_DEVELOPER, "https://b.test", ALL)
    young = world.clock.now()
    with pytest.raises(LedgerGone):
        world.proof.walk()
    world.proof._failed(LedgerGone("gone"))
    world.clock.advance(1.0)
    lost = world.publish(1, received=False)
    world.walk_later()
    assert world.told() == lost
    assert world.proof.status.since == pytest.approx(young, abs=0.01)


def test_beyond_the_ids_that_are_kept_nothing_is_proven(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish(5)
    world.journal.close()
    world.clock.advance(2 * 3600.0)
    world.start(dedupe_horizon=600.0)
    lost = world.publish(1, received=False)
    world.walk_later()
    assert world.told() == lost
    assert (world.proof.status.since or 0.0) > world.clock.now() - 700
    assert any("nothing can be proven" in message for message in caplog.messages)


def test_after_a_stop_longer_than_the_horizon_receipts_tell_what_was_received(world: World) -> None:
    """A process that was away for three hours, and has ids of the last ten minutes only."""
    world.restart(receipt_retention=86_400.0)
    world.walk_later()
    for _ in range(20):
        world.publish(20)
        world.clock.advance(30.0)
    lost = world.publish(2, received=False)
    world.journal.close()
    world.clock.advance(1.0)
    lost += world.publish(3, received=False)
    world.clock.advance(3 * 3600.0)
    world.start(receipt_retention=86_400.0, dedupe_horizon=600.0)
    world.publish(1)
    world.walk_later()
    assert sorted(world.told()) == sorted(lost)
    assert world.proof.status.missing == 5
    world.walk_later()
    assert world.proof.status.missing == 5


@pytest.mark.parametrize("ahead", [-3600.0, -90.0, 90.0, 3600.0])
def test_a_service_whose_clock_is_another_is_understood(tmp_path: Path, ahead: float) -> None:
    ours, theirs = PassingClock(), PassingClock()
    theirs.advance(ahead)
    with PracticeFeed(ledger=Ledger(clock=theirs)) as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ALL)
        world = World(tmp_path, feed, theirs)
        world.journal = Journal(tmp_path, feed_url="https://feed.test", clock=ours)
        settings = FeedSettings(feed.url, LiteralSecret(PRACTICE_KEY))
        world.proof = ContinuousProof(settings, "auto", world.journal, ours.now, ours)

        def walk_later(seconds: float) -> None:
            theirs.advance(seconds)
            ours.advance(seconds)
            world.proof.walk()

        with contextlib.closing(world.journal):
            walk_later(65.0)
            walk_later(65.0)
            lost = world.publish(2, received=False)
            world.publish(3)
            walk_later(50.0)
            assert world.told() == []
            walk_later(15.0)
            assert sorted(world.told()) == sorted(lost)


def test_what_is_proven_never_goes_back(world: World) -> None:
    until = world.proof.status.until
    world.heard = world.clock.now() - 1000.0
    world.walk_later()
    assert world.proof.status.until == until
    world.clock._now -= 500.0  # the wall clock is set back
    world.heard = None
    world.proof.walk()
    assert (world.proof.status.until or 0.0) >= (until or 0.0)


def test_more_missing_ones_than_are_recorded_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.local.proof.MOST_AT_ONCE", 100)
    lost = world.publish(450, received=False)
    world.walk_later()
    named = []
    while letters := world.journal.dead_letters():
        named += [letter.event_id for _, letter in letters]
        world.journal.drop_dead_letters(letters[-1][0])
    assert sorted(named) == sorted(lost)
    assert world.proof.status.missing == 450


def test_a_walk_that_breaks_off_proves_nothing_and_the_next_one_all(world: World) -> None:
    lost = world.publish(150, received=False)
    until = world.proof.status.until
    world.clock.advance(70.0)
    world.proof._ledger.page(world.feed.ledger.webhooks.copy().popitem()[0], 1)
    world.feed.answer(500, times=3, path="/deliveries")
    with pytest.raises(LedgerError):
        world.proof.walk()
    assert world.proof.status.until == until
    world.proof.walk()
    assert world.proof.status.missing == len(lost)


def test_it_walks_by_itself_goes_on_after_failures_and_says_them(world: World) -> None:
    """In its thread: the clock makes time pass as it waits."""
    world.feed.answer(500, times=30, path="/deliveries")
    lost = world.publish(2, received=False)
    world.proof.start()
    world.feed.wait_for(lambda: world.journal.proof.missing == 2 or not world.proof._thread.is_alive(), 20.0)
    world.proof.stop(10.0)
    assert not world.proof._thread.is_alive()
    assert sorted(world.told()) == sorted(lost)


# What is shown of it

PROVEN = ProofStatus("wh_1", looks.AT - 3600, looks.AT - 60, 0, 0)


def test_the_page_says_until_when_all_is_accounted_for() -> None:
    found = verdict.of_run(looks.run(looks.destination("splunk"), proof=PROVEN))
    assert found.level is verdict.Level.GOOD
    assert "Every event up to 11:59:00 UTC is accounted for." in found.text


def test_missing_events_are_trouble_for_an_hour_and_then_on_record() -> None:
    proof = replace(PROVEN, missing=300, found=20, told_at=looks.AT - 10)
    found = verdict.of_run(looks.run(looks.destination("splunk"), proof=proof))
    assert found.level is verdict.Level.TROUBLE
    assert "300 events are missing, 20 of them came later" in found.text
    later = verdict.of_run(
        looks.run(looks.destination("splunk"), proof=replace(proof, told_at=looks.AT - 4000))
    )
    assert later.level is verdict.Level.GOOD
    assert "300 events are missing" in later.text


def test_a_proof_that_fails_for_long_is_watched() -> None:
    proof = replace(PROVEN, failure="the key is refused", failing_since=looks.AT - 60)
    assert verdict.of_run(looks.run(looks.destination("s3"), proof=proof)).level is verdict.Level.GOOD
    lasting = verdict.of_run(
        looks.run(looks.destination("s3"), proof=replace(proof, failing_since=looks.AT - 700))
    )
    assert lasting.level is verdict.Level.WATCH
    assert "Nothing newer is proven: the key is refused" in lasting.text


def test_metrics_and_json_have_it_when_it_is_on() -> None:
    off = looks.run(looks.destination("splunk"))
    assert b"grantex_ledger" not in exposition(off)
    assert json.loads(status_json(off))["proof"] is None
    on = looks.run(looks.destination("splunk"), proof=replace(PROVEN, missing=3, not_covered=("vc.issued",)))
    assert b"grantex_ledger_missing_total 3.0\n" in exposition(on)
    lines = exposition(on).decode().splitlines()
    (until,) = [line for line in lines if line.startswith("grantex_ledger_proven_until_timestamp_seconds ")]
    assert float(until.split()[1]) == looks.AT - 60
    told = json.loads(status_json(on))["proof"]
    assert (told["missing"], told["until"], told["not_covered"]) == (3, looks.AT - 60, ["vc.issued"])
