"""A whole run in this process: how it starts, what it refuses, how it ends, and its exit codes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.flags.settings import Settings
from pipelines.local.lane import Lane
from pipelines.local.run import CannotStart, run
from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from pipelines.preflight import Preflight
from pipelines.stream import build, in_a_lane
from tests.pipelines.local.test_lane import eventually
from tests.pipelines.practice.remembering import Other, Remembering, Taken
from transforms.feed.journal import Journal
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import read_dead_letters

pytestmark = pytest.mark.usefixtures("streams_end_at_once")


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=1.0) as made:
        yield made


class Start:
    """A run in a thread of its own."""

    def __init__(self, feed: PracticeFeed, place: Path, *destinations: Destination, **settings: Any) -> None:
        given: dict[str, Any] = {"state_dir": place / "state", "status_port": 0} | settings
        self.settings = replace(Settings(), **given)
        self.feed = FeedSettings(feed.url, LiteralSecret(feed.api_key))
        self.destinations = destinations
        self.stop = threading.Event()
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run)

    def here(self) -> int:
        """Run in this thread."""

        def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
            stages = in_a_lane(lane, self.settings.dead_letters_place)
            build(pipeline, [lane.destination], stages, window_size=300)

        return run(self.settings, self.feed, self.destinations, graph, self.stop, preflight=Preflight({}))

    def _run(self) -> None:
        self.code = self.here()

    def __enter__(self) -> Start:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.wait()

    def wait(self) -> int | None:
        """The exit code."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.code


def test_a_run_ends_with_its_input_and_exits_0(feed: PracticeFeed, tmp_path: Path) -> None:
    taken, other = Taken(), Taken()
    with Start(feed, tmp_path, Remembering(taken), Other(other)) as started:
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 40))
        feed.end_input()
        assert started.wait() == 0
    assert len(set(taken.ids)) == len(set(other.ids)) == 40


def test_what_is_left_at_the_time_out_is_named_and_the_exit_is_still_0(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = Taken()
    taken.released.clear()
    with Start(feed, tmp_path, Remembering(taken), drain_timeout=3.5) as started:
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 5))
        assert taken.wait_for_attempts(1)
        started.stop.set()
        assert started.wait() == 0
    taken.released.set()
    assert "5 events kept for shelved" in caplog.text


def test_the_feed_of_another_account_is_exit_2(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = Taken()
    with Start(feed, tmp_path, Remembering(taken)) as started:
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 5))  # before the first is kept, the account is known
        assert taken.wait_for_attempts(1)
        started.stop.set()
        assert started.wait() == 0
    feed.api_keys[feed.api_key] = "dev_somebody_else"
    with Start(feed, tmp_path, Remembering(Taken())) as started:
        feed.wait_for(lambda: len(feed.streams) > 1 or started.code is not None)  # asking delays no stream
        feed.publish_many(islice(generate(), 5))
        assert started.wait() == 2
    assert "--feed_api_key" in caplog.text
    journal = Journal(tmp_path / "state", feed_url=feed.url)
    assert journal.end == 5, "no event of theirs was kept"
    journal.close()


def test_a_state_directory_in_use_is_refused(feed: PracticeFeed, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state", feed_url=feed.url)
    with pytest.raises(CannotStart, match=r"--state_dir=.*is in use"):
        Start(feed, tmp_path, Remembering(Taken())).here()
    journal.close()
    assert feed.requests == []


def test_the_state_directory_of_another_feed_is_refused(feed: PracticeFeed, tmp_path: Path) -> None:
    Journal(tmp_path / "state", feed_url="https://feed.test").close()
    with pytest.raises(CannotStart, match=r"--state_dir=.*https://feed\.test"):
        Start(feed, tmp_path, Remembering(Taken())).here()
    assert feed.requests == []


def test_a_status_port_that_is_taken_is_refused_and_the_journal_is_free_again(
    feed: PracticeFeed, tmp_path: Path
) -> None:
    with pytest.raises(CannotStart, match=rf"--status_port={feed.port}.*another port"):
        Start(feed, tmp_path, Remembering(Taken()), status_port=feed.port).here()
    Journal(tmp_path / "state", feed_url=feed.url).close()
    assert feed.requests == []


def test_forgetting_a_destination_that_was_never_there_is_refused(feed: PracticeFeed, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"--forget_destination=nobody.*it knows: none"):
        Start(feed, tmp_path, Remembering(Taken()), forget_destination=("nobody",)).here()


def test_a_forgotten_destination_starts_at_the_end_when_it_returns(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "state", feed_url=feed.url)
    journal.cursor("other")
    journal.close()
    taken, other = Taken(), Taken()
    with Start(feed, tmp_path, Remembering(taken)):
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 5))
        assert taken.wait_for(5)
    assert "other is not among the destinations any more" in caplog.text
    with Start(feed, tmp_path, Remembering(taken), forget_destination=("other",)):
        feed.wait_for(lambda: len(feed.streams) == 2)
    assert "other is forgotten, with 5 events" in caplog.text
    with Start(feed, tmp_path, Remembering(taken), Other(other)):
        feed.wait_for(lambda: len(feed.streams) == 3)
        feed.publish_many(islice(generate(), 3))
        assert other.wait_for(3)
    assert len(other.ids) == 3


def test_dead_letters_that_cannot_be_written_hold_up_the_feed_s_and_no_destination(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    letters = tmp_path / "state" / "dead_letters"
    letters.parent.mkdir()
    letters.write_text("a file where the directory should be")
    taken, other = Taken(), Taken()
    with Start(feed, tmp_path, Remembering(taken), Other(other)) as started:
        feed.wait_for_streams()
        feed.publish_many([b"no JSON", *islice(generate(), 40)])
        assert other.wait_for(40)
        assert taken.wait_for(40), "the first destination is one like the others"
        started.stop.set()
        assert started.wait() == 0
    assert "dead letters of the feed are kept" in caplog.text
    letters.unlink()
    with Start(feed, tmp_path, Remembering(taken), Other(other)):
        feed.wait_for(lambda: len(feed.streams) == 2)
    causes = [letter.cause.partition(":")[0] for letter in read_dead_letters(letters)]
    assert causes[0] == "not_json"


def test_a_drain_reads_the_feed_until_the_destinations_have_what_was_received(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    taken, slow = Taken(), Taken()
    slow.released.clear()
    with Start(feed, tmp_path, Remembering(taken), Other(slow)) as started:
        feed.wait_for_streams()
        events = list(islice(generate(), 45))
        feed.publish_many(events[:40])
        assert taken.wait_for(40)
        assert slow.wait_for_attempts(1)
        started.stop.set()
        assert eventually(lambda: "draining: what is received" in caplog.text)
        feed.publish_many(events[40:])
        assert taken.wait_for(45), "what is published while the slow one catches up is heard"
        slow.released.set()
        assert started.wait() == 0
    assert len(slow.ids) == len(taken.ids) == 45
    assert "drained: every event received" in caplog.text


def test_a_drain_does_not_wait_for_a_destination_that_is_down(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    taken, down = Taken(), Taken(down=True)
    with Start(feed, tmp_path, Remembering(taken), Other(down), drain_timeout=300) as started:
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 40))
        assert taken.wait_for(40)
        assert eventually(lambda: "other is left alone for now" in caplog.text)
        started.stop.set()
        assert started.wait() == 0, "within the patience of a test, and not after 300 s"
    assert "40 events kept for other" in caplog.text
    down.down = False
    with Start(feed, tmp_path, Remembering(taken), Other(down)):
        assert down.wait_for(40)


def test_a_destination_that_goes_down_in_a_drain_is_waited_for_no_longer(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = Taken()
    slow.released.clear()
    with Start(feed, tmp_path, Remembering(slow), drain_timeout=300) as started:
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 40))
        assert slow.wait_for_attempts(1)
        started.stop.set()
        assert eventually(lambda: "draining: what is received" in caplog.text)
        slow.down = True
        slow.released.set()
        assert started.wait() == 0
    assert "40 events kept for shelved" in caplog.text


def test_a_journal_found_damaged_ends_the_run_with_exit_1(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Start(feed, tmp_path, Remembering(Taken())) as started:
        feed.wait_for_streams()
        (tmp_path / "state" / "journal.suspect").touch()
        started.stop.set()
        assert started.wait() == 1
    assert "the journal is damaged: start again" in caplog.text


def test_damage_that_only_the_feed_s_dead_letters_meet_ends_the_run_as_well(
    feed: PracticeFeed, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "dead_letters").write_text("a file where the directory should be")
    with Start(feed, tmp_path, Remembering(Taken())) as started:
        feed.wait_for_streams()
        (tmp_path / "state" / "journal.suspect").touch()
        feed.publish_many([b"no JSON"])
        assert started.wait() == 1


def test_a_webhook_port_that_is_taken_is_refused(feed: PracticeFeed, tmp_path: Path) -> None:
    webhooks = {"webhook_port": feed.port, "webhook_secret": (LiteralSecret("webhook-secret"),)}
    with pytest.raises(CannotStart, match=rf"--webhook_port={feed.port}: port {feed.port} is taken"):
        Start(feed, tmp_path, Remembering(Taken()), **webhooks).here()
    assert feed.requests == []
