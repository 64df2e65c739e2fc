"""Signs of life for systemd, and what calls for a restart: no progress, and what a restart may cure."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import apache_beam as beam
import pytest

from pipelines.local.lane import Lane
from pipelines.local.standby_ring import StandbyRing
from pipelines.local.watchdog import HANGS_AFTER, Health, Watchdog, notify
from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.feed_stream import Finish
from pipelines.stream import build, in_a_lane
from tests.pipelines.local.test_lane import eventually
from tests.pipelines.practice.remembering import Remembering, Taken
from tests.transforms.feed.journal.support import event, open_journal
from tests.transforms.write.manual_clock import ManualClock
from transforms.clock import SystemClock
from transforms.feed.journal import Journal
from transforms.feed.journal.cursor import Books
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.feed.status import Phase
from transforms.secret import LiteralSecret


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd has at the other end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield made


def test_the_service_manager_hears_what_it_is_told(manager: socket.socket) -> None:
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"grantex-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + name)
        made.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("STOPPING=1")
        assert made.recv(100) == b"STOPPING=1"


def test_nobody_to_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


class World:
    """What a watchdog asks, and what it told."""

    def __init__(self) -> None:
        self.hanging: list[str] = []
        self.ready = False
        self.told: list[str] = []
        self.dog = Watchdog(lambda: self.hanging, lambda: self.ready, ManualClock(), self.told.append)

    def turn(self) -> str:
        self.told.clear()
        self.dog.turn()
        return "; ".join(self.told)


def test_a_start_may_take_its_time_while_it_makes_progress() -> None:
    world = World()
    assert world.turn() == "EXTEND_TIMEOUT_USEC=30000000"
    world.hanging = ["feed"]
    assert world.turn() == ""
    world.hanging, world.ready = [], True
    assert world.turn() == "READY=1\nWATCHDOG=1"
    world.ready = False
    assert world.turn() == "WATCHDOG=1", "a feed that is away is no reason to end the process"


def test_there_is_no_sign_of_life_while_anything_hangs(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.ready = True
    world.turn()
    world.hanging = ["splunk"]
    assert (world.turn(), world.turn()) == ("", "")
    assert caplog.text.count("no progress for 180 s: splunk") == 1
    world.hanging = []
    assert world.turn() == "WATCHDOG=1"
    world.dog.stopping()
    assert world.told[-1] == "STOPPING=1"


def test_it_turns_by_itself_where_there_is_a_service_manager(manager: socket.socket) -> None:
    clock = ManualClock()
    dog = Watchdog(list, lambda: True, clock)
    (thread,) = [each for each in threading.enumerate() if each.name == "watchdog"]
    for expected in (b"READY=1\nWATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"):
        while not select.select([manager], [], [], 0.005)[0]:
            clock.advance_for([thread], 1.0)
        assert manager.recv(100) == expected
    dog.close()


class StandIn:
    """As much of a lane, or of a reader, as is watched."""

    def __init__(self, name: str, quiet: float = 0.0) -> None:
        self.name, self.quiet = name, quiet
        self.keeps_failing = self.has_recovered = False

    def quiet_for(self) -> float:
        return self.quiet

    def hanging(self, seconds: float) -> list[str]:
        return [self.name] if self.quiet > seconds else []


def watched(
    place: Path, *lanes: StandIn, reader: StandIn | None = None, journal: Journal | None = None
) -> Health:
    health = Health(place)
    health.reader = cast(FeedReader, reader)
    health.deliver(cast(Journal, journal), cast("list[Lane]", list(lanes)))
    return health


def test_what_hangs_is_named_and_no_lock_is_waited_for(tmp_path: Path) -> None:
    journal: Any = object()  # whatever is asked of it raises
    lanes = StandIn("files"), StandIn("s3", HANGS_AFTER + 1)
    health = watched(tmp_path, *lanes, reader=StandIn("feed"), journal=journal)
    assert health.hanging() == ["s3"]
    assert health.faults() == ["no progress for 180 s: s3"]
    health = watched(tmp_path, StandIn("files"), reader=StandIn("feed 2", HANGS_AFTER + 1))
    assert health.hanging() == ["feed 2"]


def test_a_lane_that_fails_again_and_again_is_a_reason_for_one_restart(tmp_path: Path) -> None:
    splunk = StandIn("splunk")
    health = watched(tmp_path, StandIn("files"), splunk)
    assert health.faults() == []
    splunk.keeps_failing = True
    assert health.faults() == ["restarting again and again: splunk"]
    assert health.faults() == ["restarting again and again: splunk"], "until the process is restarted"
    assert health.hanging() == [], "systemd's watchdog has no part in it"
    for _ in range(2):
        health = watched(tmp_path, splunk)
        splunk.keeps_failing = False
        assert health.faults() == []
        splunk.keeps_failing = True
        assert health.faults() == [], "the restart cured nothing, and another one would not either"


def test_a_lane_that_ran_well_in_between_is_a_new_reason(tmp_path: Path) -> None:
    splunk = StandIn("splunk")
    splunk.keeps_failing = True
    assert watched(tmp_path, splunk).faults()
    health = watched(tmp_path, splunk)
    splunk.keeps_failing, splunk.has_recovered = False, True
    assert health.faults() == []
    splunk.keeps_failing, splunk.has_recovered = True, False
    assert health.faults() == ["restarting again and again: splunk"]


def test_a_standby_knows_when_it_takes_over_what_the_other_was_restarted_for(tmp_path: Path) -> None:
    standby = Health(tmp_path)
    assert standby.faults() == []
    splunk = StandIn("splunk")
    splunk.keeps_failing = True
    assert watched(tmp_path, splunk).faults()
    assert standby.faults() == []
    standby.deliver(cast(Journal, None), cast("list[Lane]", [splunk]))
    assert standby.faults() == [], "the restart of the first cured nothing, nor would one of this"


def test_books_that_do_not_balance_are_a_reason_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path / "state")
    journal.cursor("files")
    health = watched(tmp_path, journal=journal)
    assert health.faults() == []
    wrong = Books(received=2, delivered=1, dead_lettered=0, pending=0)
    monkeypatch.setattr(journal, "books", lambda: {"files": wrong})
    assert health.faults() == ["the books do not balance for files"]
    assert watched(tmp_path, journal=journal).faults() == []
    journal.close()


def test_a_journal_that_is_busy_for_long_is_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the lock of its database: a restart would not take it away."""
    monkeypatch.setattr("pipelines.local.watchdog.BOOKS_PATIENCE", 0.01)
    journal = open_journal(tmp_path / "state")
    health = watched(tmp_path, journal=journal)
    with journal._database.lock:
        found: list[list[str]] = []
        asking = threading.Thread(target=lambda: found.append(health.faults()))
        asking.start()
        asking.join(10)
    assert found == [[]]
    journal.close()


def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "restarted_for").write_text("[1, {")
    splunk = StandIn("splunk")
    splunk.keeps_failing = True
    assert watched(tmp_path, splunk).faults() == ["restarting again and again: splunk"]


# Real progress


class Ahead(SystemClock):
    """A clock whose time may be moved on."""

    def __init__(self) -> None:
        self.by = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.by


def test_a_stream_that_hears_something_or_waits_does_not_hang_and_one_that_stays_does(tmp_path: Path) -> None:
    clock = Ahead()
    with PracticeFeed(keepalive=None) as feed:
        ring = StandbyRing(1_000_000, 3600.0, clock)
        reader = FeedReader(FeedSettings(feed.url, LiteralSecret(feed.api_key)), ring, clock=clock)
        assert reader.hanging(HANGS_AFTER) == []
        reader.start()
        feed.wait_for_streams()
        feed.publish_many(islice(generate(), 1))
        assert eventually(lambda: ring.events == 1)
        clock.by = HANGS_AFTER + 10
        assert reader.hanging(HANGS_AFTER) == ["feed"]
        feed.publish_many(islice(generate(), 1))
        assert eventually(lambda: reader.hanging(HANGS_AFTER) == [])
        feed.answer_streams(429, "TOO_MANY_CONNECTIONS")
        feed.finish_streams(Finish.END)
        assert eventually(lambda: reader.statuses[0].phase is Phase.WAITING)
        clock.by += HANGS_AFTER + 10
        assert reader.hanging(HANGS_AFTER) == []
        reader.stop()
        assert reader.hanging(0.0) == []


def test_a_lane_whose_destination_hangs_turns_and_one_that_stays_in_its_work_does_not(tmp_path: Path) -> None:
    clock = Ahead()
    journal = Journal(tmp_path / "state", feed_url="http://feed.test")
    taken, held = Taken(), threading.Event()
    taken.released.clear()

    def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
        held.wait(20)
        build(pipeline, [lane.destination], in_a_lane(lane, tmp_path / "letters"), window_size=300)

    lane = Lane(Remembering(taken), journal, graph, clock=clock)
    assert lane.quiet_for() == 0.0
    lane.start()
    clock.by = HANGS_AFTER + 10
    assert lane.quiet_for() > HANGS_AFTER
    held.set()
    journal.append([event(1)], [])
    assert taken.wait_for_attempts(1)
    assert eventually(lambda: lane.quiet_for() < HANGS_AFTER)
    clock.by += HANGS_AFTER + 10
    journal.append([event(2)], [])
    assert eventually(lambda: lane.quiet_for() < HANGS_AFTER), "its destination hangs, it does not"
    taken.released.set()
    lane.drain(clock.monotonic() + 10)
    assert lane.join(20)
    assert lane.quiet_for() == 0.0
    journal.close()


def test_a_lane_that_waits_before_it_starts_anew_does_not_hang(tmp_path: Path) -> None:
    clock = Ahead()
    journal = Journal(tmp_path / "state", feed_url="http://feed.test")

    def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
        raise ZeroDivisionError("a bug")

    lane = Lane(Remembering(Taken()), journal, graph, clock=clock, uniform=lambda low, high: 60.0)
    lane.start()
    assert eventually(lambda: lane.failure)
    assert eventually(lambda: lane.quiet_for() == 0.0)
    clock.by = HANGS_AFTER + 10
    assert lane.quiet_for() == 0.0
    lane.drain(clock.monotonic())
    assert lane.join(20)
    journal.close()
