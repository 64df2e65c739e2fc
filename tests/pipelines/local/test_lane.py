"""A lane over a real journal, on the real in-process runner: restarts, dead letters, drain."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.beam import in_process_runner
from pipelines.local.lane import KEEPS_FAILING, Lane, WriteInLane
from pipelines.stream import build, in_a_lane
from tests.pipelines.practice.remembering import Other, Remembering, Taken
from transforms.clock import SystemClock
from transforms.event import Batch, Chunk, Event
from transforms.feed.journal import Journal
from transforms.feed.journal.database import Database
from transforms.in_process import Ticket
from transforms.window import Window
from transforms.write.contract import Destination
from transforms.write.dead_letters.directory import WriteDeadLetters, read_dead_letters
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.ledger import Filtered, MemoryLedger, Settlement

FEED = "http://feed.test"


def some(start: int, end: int) -> list[Event]:
    return [Event(f"evt_{n:05d}", "t", "2026-03-01T12:00:00Z", b'{"n":%d}' % n) for n in range(start, end)]


def some_bad(start: int, end: int) -> list[Event]:
    """So many that are refused and, as evidence that the destination takes others, one that is not."""
    return [
        *(Event(f"bad_{n:05d}", "t", "", b'{"n":%d}' % n) for n in range(start, end)),
        *some(end, end + 1),
    ]


def eventually(condition: Callable[[], object], timeout: float = 20.0) -> bool:
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "state", feed_url=FEED)
    yield made
    made.close()


def lane(journal: Journal, destination: Destination, letters: Path, **more: Any) -> Lane:
    def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
        build(pipeline, [destination], in_a_lane(lane, letters), window_size=300)

    return Lane(
        destination,
        journal,
        graph,
        clock=SystemClock(),
        uniform=lambda low, high: 0.0,  # no wait between restarts
        **more,
    )


def end(*lanes: Lane, within: float = 10.0) -> None:
    for one in lanes:
        one.drain(time.monotonic() + within)
    for one in lanes:
        assert one.join(within + 10)


def test_a_lane_that_may_be_killed_has_nothing_in_the_temporary_directory(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    taken = Taken()
    one = lane(journal, Remembering(taken), tmp_path / "letters")
    one.start()
    journal.append(some(0, 10), [])
    assert taken.wait_for(10)
    assert list(place.iterdir()) == []
    end(one)


def test_a_bug_in_a_writer_restarts_its_lane_from_its_seals_and_no_other(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = Taken(failures=3), Taken()
    lanes = [
        lane(journal, Remembering(broken), tmp_path / "letters"),
        lane(journal, Other(fine), tmp_path / "letters"),
    ]
    for one in lanes:
        one.start()
    journal.append(some(0, 10), [])
    assert fine.wait_for(10)
    assert broken.wait_for(10)
    journal.append(some(10, 30), [])
    assert fine.wait_for(30)
    assert broken.wait_for(30)
    end(*lanes)

    assert [one.restarts for one in lanes] == [3, 0]
    assert all(one.drained for one in lanes)
    assert sorted(broken.ids) == sorted(fine.ids) == [event.id for event in some(0, 30)]
    assert broken.batches[:4] == [broken.batches[0]] * 4, "the sealed batch comes again unchanged"
    logged = [
        record for record in caplog.records if "its lane stopped on an unexpected error" in record.message
    ]
    assert len(logged) == 3
    assert [record.exc_info is not None for record in logged] == [True, False, False], "one traceback"
    assert "a bug in the writer" in logged[0].message
    assert lanes[0].failure == ""


def test_a_dead_letter_is_on_disk_before_its_receipt_is_committed(tmp_path: Path) -> None:
    letters = tmp_path / "letters"
    seen: list[tuple[int, int]] = []  # dead-lettered in the books, dead letters on disk

    class Watched(Database):
        @contextmanager
        def transaction(self) -> Iterator[sqlite3.Connection]:
            with super().transaction() as connection:
                yield connection
                (counted,) = connection.execute("SELECT total(dead_lettered) FROM cursors").fetchone()
                seen.append((int(counted), sum(1 for _ in read_dead_letters(letters))))

    journal = Journal(tmp_path / "state", feed_url=FEED, database=Watched)
    one = lane(journal, Remembering(Taken(rejects="bad")), letters)
    one.start()
    for start in range(0, 40, 10):
        journal.append(some_bad(start, start + 10), [])
    assert eventually(lambda: one.drained)
    end(one)
    assert journal.books()["shelved"].dead_lettered == 40
    journal.close()
    assert seen[-1] == (40, 40)
    assert [(counted, on_disk) for counted, on_disk in seen if counted > on_disk] == []


def test_dead_letters_that_cannot_be_written_keep_their_events(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    letters = tmp_path / "letters"
    letters.write_text("a file where the directory should be")
    one = lane(journal, Remembering(Taken(rejects="bad")), letters)
    one.start()
    journal.append(some_bad(0, 4), [])
    assert eventually(lambda: one.restarts >= 2)
    assert "dead letters cannot be written" in one.failure or "dead letters cannot be written" in caplog.text
    assert journal.books()["shelved"].pending == 4, "the one that it took is delivered"
    letters.unlink()
    assert eventually(lambda: one.drained)
    end(one)
    bad = {event.id for event in some_bad(0, 4)[:-1]}
    assert {letter.event_id for letter in read_dead_letters(letters)} == bad


def test_a_hung_writer_does_not_hold_up_the_drain_for_longer_than_it_may(
    journal: Journal, tmp_path: Path
) -> None:
    hung = Taken()
    hung.released.clear()
    one = lane(journal, Remembering(hung), tmp_path / "letters")
    one.start()
    journal.append(some(0, 10), [])
    assert hung.wait_for_attempts(1)
    since = time.monotonic()
    one.drain(since + 0.5)
    assert one.join(10)
    assert 0.5 <= time.monotonic() - since < 5.0
    assert not one.drained
    assert one.cursor.pending == 10
    hung.released.set()


def test_a_lane_that_waits_for_its_restart_ends_at_once(journal: Journal, tmp_path: Path) -> None:
    destination = Remembering(Taken(failures=1000))

    def graph(pipeline: beam.Pipeline, lane: Lane) -> None:
        build(pipeline, [destination], in_a_lane(lane, tmp_path), window_size=300)

    waiting = Lane(destination, journal, graph, clock=SystemClock(), uniform=lambda low, high: 60.0)
    waiting.start()
    journal.append(some(0, 10), [])
    assert eventually(lambda: waiting.failure)
    since = time.monotonic()
    end(waiting)
    assert time.monotonic() - since < 5.0
    assert waiting.restarts == 1
    assert waiting.cursor.pending == 10


def test_two_lanes_that_start_together_do_not_disturb_each_other(journal: Journal, tmp_path: Path) -> None:
    both = [Taken(), Taken()]
    lanes = [
        lane(journal, kind(taken), tmp_path) for kind, taken in zip((Remembering, Other), both, strict=True)
    ]
    publisher = threading.Thread(
        target=lambda: [journal.append(some(n, n + 7), []) for n in range(0, 700, 7)]
    )
    for one in lanes:
        one.start()
    publisher.start()
    publisher.join()
    assert all(taken.wait_for(700) for taken in both)
    end(*lanes)
    assert all(sorted(taken.ids) == [event.id for event in some(0, 700)] for taken in both)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@dataclass
class _Moment:
    """What was on disk and out of the stage when the ledger recorded an outcome."""

    dead_letters: int
    settled: int


class _Watching(MemoryLedger):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.moments: list[_Moment] = []

    def commit(
        self, settlements: Sequence[Settlement], seals: Sequence[Batch], filtered: Filtered | None = None
    ) -> None:
        super().commit(settlements, seals, filtered)
        for settlement in settlements:
            on_disk = len(list(read_dead_letters(self.directory)))
            self.moments.append(_Moment(on_disk, len(settlement.dead_lettered)))


class _Chunks(beam.DoFn):
    """Stands for the journal's source: chunks, a flush, and an empty chunk when a writer reports."""

    def __init__(self, delivery: Ticket[Delivery], bell: Ticket[threading.Event]) -> None:
        self._delivery, self._bell = delivery, bell

    def process(self, element: Any) -> Iterator[Chunk]:
        bad = [Event("bad_1", "", "", b"{1}"), Event("bad_2", "", "", b"{2}")]
        yield Chunk([*some(0, 4), bad[0]], 0, 1.0)
        yield Chunk()
        yield Chunk(bad[1:], 5, 1.0)
        yield Chunk(flush=True)
        while not self._delivery.live.idle():
            assert self._bell.live.wait(10)
            self._bell.live.clear()
            yield Chunk()


def test_a_dead_letter_is_on_disk_before_its_outcome_is_recorded(tmp_path: Path) -> None:
    ledger, bell = _Watching(tmp_path), threading.Event()
    taken = Taken(rejects="bad")
    delivery = Ticket(Delivery(Remembering(taken), ledger, name="audit", wake=bell.set))
    try:
        with beam.Pipeline(in_process_runner()) as pipeline:
            chunks = pipeline | beam.Create([0]) | beam.ParDo(_Chunks(delivery, Ticket(bell)))
            written = chunks | Window(300) | WriteInLane(delivery)
            written.dead_letters | WriteDeadLetters(tmp_path)
            ids = written.delivered | beam.FlatMap(lambda one: one.event_ids)
            assert_that(ids, equal_to([event.id for event in some(0, 4)]))
    finally:
        assert delivery.live.close(10)
    on_disk = 0
    for moment in ledger.moments:
        on_disk += moment.settled
        assert moment.dead_letters >= on_disk
    assert on_disk == 2
    assert {one.event_id for one in read_dead_letters(tmp_path)} == {"bad_1", "bad_2"}


class _Unpicklable(Remembering):
    def __reduce__(self) -> str:
        raise AssertionError("a lane's destination was pickled")


def test_a_lane_s_graph_holds_tickets_and_neither_destination_nor_secret(
    journal: Journal, tmp_path: Path
) -> None:
    one = lane(journal, _Unpicklable(Taken()), tmp_path)
    pipeline = beam.Pipeline(in_process_runner())
    build(pipeline, [one.destination], in_a_lane(one, tmp_path), window_size=300)
    components = pipeline.to_runner_api().components
    labels = {transform.unique_name for transform in components.transforms.values()}
    assert {"WriteToShelved", "WriteToShelved/Deliver"} <= labels
    ours = [label for label in labels if label.startswith("WriteTo")]
    assert not [label for label in ours if "Flatten" in label or "GroupByKey" in label]


def test_a_damaged_journal_ends_the_lane_and_asks_for_the_end_of_the_process(tmp_path: Path) -> None:
    state = tmp_path / "state"
    journal = Journal(state, feed_url=FEED)
    journal.cursor("shelved")
    journal.append(some(0, 40), [])
    journal.close()
    journal = Journal(state, feed_url=FEED)
    taken, broken = Taken(), threading.Event()
    made = lane(journal, Remembering(taken), tmp_path / "letters", on_broken=broken.set)
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite3")) as other:
        other.execute("UPDATE chunks SET body = zeroblob(length(body))")
        other.commit()
    made.start()
    assert broken.wait(20)
    assert made.join(20)
    assert (made.restarts, taken.ids, made.is_well) == (0, [], False)
    assert journal.is_suspect, "so the next start repairs it"
    journal.close()


def test_a_lane_that_restarts_again_and_again_is_told_from_one_that_did_once(
    journal: Journal, tmp_path: Path
) -> None:
    again, once = Taken(failures=1000), Taken(failures=1)
    lanes = [lane(journal, Remembering(again), tmp_path), lane(journal, Other(once), tmp_path)]
    for one in lanes:
        one.start()
    journal.append(some(0, 10), [])
    assert eventually(lambda: lanes[0].keeps_failing)
    assert lanes[0].restarts >= KEEPS_FAILING
    assert once.wait_for(10)
    assert not lanes[1].keeps_failing
    end(*lanes)
