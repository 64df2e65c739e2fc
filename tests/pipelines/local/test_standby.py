"""Two runs on one state directory: the second stands by, is seen to do so, and takes over."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.flags.settings import Settings
from pipelines.local.run import CannotStart
from pipelines.local.standby import Standby
from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from tests.integration.job import free_port, get, metrics_at
from tests.pipelines.local.test_lane import eventually
from tests.pipelines.local.test_run import Start
from tests.pipelines.practice.remembering import Remembering, Taken
from tests.transforms.feed.journal.test_old_versions import DATA
from transforms.clock import SystemClock
from transforms.feed.journal import DirectoryInUse, Journal, JournalUnavailable
from transforms.feed.journal.schema import VERSION, sign
from transforms.feed.journal.space import DirectoryLock
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret

pytestmark = pytest.mark.usefixtures("streams_end_at_once")


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=0.5) as made:
        yield made


@pytest.fixture
def journal(feed: PracticeFeed, tmp_path: Path) -> Iterator[Journal]:
    """What another process has open."""
    made = Journal(tmp_path / "state", feed_url=feed.url)
    yield made
    made.close()


def page(port: int) -> Callable[[], bool]:
    return lambda: get(port, "/readyz") == (200, "standing by\n")


def standby_of(port: int) -> Any:
    return json.loads(get(port, "/status.json")[1])["standby"]


def test_the_second_takes_over_with_its_open_stream_and_nothing_is_missing(
    feed: PracticeFeed, tmp_path: Path
) -> None:
    first, second = Taken(), Taken()
    port = free_port()
    given: dict[str, Any] = {"standby": True, "feed_connections": 1}
    with Start(feed, tmp_path, Remembering(first), **given) as one:
        feed.wait_for_streams()
        with Start(feed, tmp_path, Remembering(second), **given, status_port=port) as other:
            feed.wait_for_streams(2)
            assert eventually(page(port))
            assert metrics_at(port)["grantex_standby", ""] == 1
            assert get(port, "/healthz") == (200, "ok\n")
            feed.publish_many(islice(generate(), 40))
            assert first.wait_for(40)
            assert eventually(lambda: standby_of(port)["events"] == 40)
            assert "Standing by" in json.loads(get(port, "/status.json")[1])["says"]
            # A keepalive says only that all was heard a second before it.
            assert eventually(lambda: time.time() - standby_of(port)["reaches_back_to"] > 2.0)
            one.stop.set()
            assert one.wait() == 0
            assert eventually(lambda: metrics_at(port).get(("grantex_standby", "")) == 0)
            assert standby_of(port) is None
            feed.publish_many(islice(generate(), 20))
            assert second.wait_for(20)
            assert feed.streams[1].is_open, "the stream that stood by goes on"
            assert len(feed.streams) == 2
            other.stop.set()
            assert other.wait() == 0
    assert len(second.ids) == 20
    assert not set(first.ids) & set(second.ids)
    journal = Journal(tmp_path / "state", feed_url=feed.url)
    assert journal.gaps() == []
    assert journal.end == 60
    journal.close()


def test_a_standby_makes_one_stream_and_the_others_when_it_takes_over(
    feed: PracticeFeed, tmp_path: Path
) -> None:
    Journal(tmp_path / "state", feed_url=feed.url).close()
    lock, port = DirectoryLock(tmp_path / "state"), free_port()
    with Start(feed, tmp_path, Remembering(Taken()), standby=True, feed_connections=3, status_port=port):
        assert eventually(page(port))
        feed.publish_many(islice(generate(), 5))
        assert eventually(lambda: standby_of(port)["events"] == 5)
        assert len(feed.streams) == 1
        lock.release()
        feed.wait_for_streams(3)


def test_a_standby_that_is_stopped_exits_0_and_leaves_the_directory_alone(
    feed: PracticeFeed, tmp_path: Path, journal: Journal
) -> None:
    with Start(feed, tmp_path, Remembering(Taken()), standby=True) as started:
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 5))
        started.stop.set()
        assert started.wait() == 0
    assert journal.end == 0


def test_with_the_other_s_port_it_waits_for_it_and_has_it_afterwards(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with Start(feed, tmp_path, Remembering(Taken()), status_port=port) as one:
        assert eventually(lambda: get(port, "/readyz") == (200, "ready\n"))
        with Start(feed, tmp_path, Remembering(Taken()), standby=True, status_port=port):
            feed.wait_for_streams(2)
            assert eventually(lambda: f"port {port} is taken" in caplog.text)
            one.stop.set()
            assert one.wait() == 0
            assert eventually(lambda: get(port, "/readyz") == (200, "ready\n"))


def test_the_journal_of_another_feed_is_refused_beside_the_process_that_has_it(
    feed: PracticeFeed, tmp_path: Path
) -> None:
    held = Journal(tmp_path / "state", feed_url="https://feed.test")
    with pytest.raises(CannotStart, match=r"another feed \(https://feed\.test"):
        Start(feed, tmp_path, Remembering(Taken()), standby=True).here()
    held.close()


def test_the_feed_of_another_account_is_refused_beside_the_process_that_has_it(
    feed: PracticeFeed, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.local.standby.LOOK_EVERY", 0.1)
    journal.check_account("dev_somebody_else")
    with pytest.raises(CannotStart, match="another account"):
        Start(feed, tmp_path, Remembering(Taken()), standby=True).here()


def test_an_older_standby_stays_says_why_and_does_not_hold_the_directory(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two versions side by side: a later one has made the journal its own, and ended."""
    monkeypatch.setattr("pipelines.local.standby.LOOK_EVERY", 0.1)
    state, port = tmp_path / "state", free_port()
    Journal(state, feed_url=feed.url).close()
    set_schema(state, VERSION + 1)
    lock = DirectoryLock(state)
    taken = Taken()
    with Start(feed, tmp_path, Remembering(taken), standby=True, status_port=port):
        assert eventually(lambda: get(port, "/readyz")[0] == 503)
        lock.release()
        assert eventually(lambda: "could not take over now, and keeps what it hears" in caplog.text)
        assert f"schema {VERSION + 1}" in get(port, "/readyz")[1]
        assert get(port, "/healthz")[0] == 200, "a restart would cure nothing"
        feed.publish_many(islice(generate(), 5))
        assert eventually(lambda: standby_of(port)["events"] == 5)
        again = DirectoryLock(state)  # by the later version's process, whose start nothing may refuse
        set_schema(state, VERSION)
        again.release()
        assert taken.wait_for(5)


def set_schema(state: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite3")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


@pytest.mark.parametrize("schema", [1, 2])
def test_a_later_version_takes_over_the_journal_of_an_earlier_one(
    feed: PracticeFeed, tmp_path: Path, schema: int
) -> None:
    """As in an upgrade: nothing of it is changed before the directory is free."""
    state, port = tmp_path / "state", free_port()
    with tarfile.open(DATA / f"version_{schema}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / f"version_{schema}").rename(state)
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite3")) as connection:
        signed = "" if schema == 1 else ", checksum = ?"
        values = (feed.url,) if schema == 1 else (feed.url, sign("meta", "feed", feed.url))
        connection.execute(f"UPDATE meta SET value = ?{signed} WHERE key = 'feed'", values)
        connection.execute("DELETE FROM meta WHERE key = 'account'")
        connection.commit()
    lock = DirectoryLock(state)
    taken = Taken()
    with Start(feed, tmp_path, Remembering(taken), standby=True, status_port=port):
        assert eventually(page(port))
        assert schema_of(state) == schema
        feed.publish_many(islice(generate(), 5))
        assert eventually(lambda: standby_of(port)["events"] == 5)
        lock.release()
        assert taken.wait_for(5)
    assert schema_of(state) == VERSION


def schema_of(state: Path) -> int:
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite3")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_what_passes_by_itself_is_tried_again_with_what_was_heard(
    feed: PracticeFeed, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a full disk, or an SQLite shell that has the journal open when its directory falls free."""
    monkeypatch.setattr("pipelines.local.standby.TRY_AGAIN", 0.02)
    settings, stop = replace(Settings(), state_dir=tmp_path / "state"), threading.Event()
    settings.state_dir.mkdir()
    tries = iter(
        [JournalUnavailable("the disk is full"), DirectoryInUse("in use"), JournalUnavailable("full")]
    )

    def open_journal() -> Journal:
        for error in tries:
            raise error
        return Journal(tmp_path / "state", feed_url=feed.url)

    key = FeedSettings(feed.url, LiteralSecret(feed.api_key))
    standby = Standby(settings, key, SystemClock(), stop.set)
    journal = standby.wait(open_journal, stop)
    assert journal is not None
    assert "the disk is full" in caplog.text
    assert standby.why_not == ""
    feed.wait_for_streams()
    feed.publish_many(islice(generate(), 5))
    assert eventually(lambda: standby.ring.events == 5)
    standby.take_over(journal)
    assert journal.end == 5
    standby.reader.stop()
    journal.close()
