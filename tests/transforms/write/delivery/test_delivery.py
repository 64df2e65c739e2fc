"""Delivery: ticks, writer threads and the ledger's promises. Threads meet at events, never at sleeps."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest

from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.service import PATIENCE, Fake, FakeWriter, Service, events
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Chunk, Event, Receipt
from transforms.secret import SecretError
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.ledger import Filtered, MemoryLedger, Settlement
from transforms.write.delivery.outbox import MAX_UNSETTLED_BYTES
from transforms.write.failure import as_outcome


class StrictLedger(MemoryLedger):
    """Fails a test that breaks a promise, and fails itself when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.settled: list[int] = []
        self.filtered: list[int] = []
        self.sealed: set[str] = set()
        self.left: list[Batch] = []
        self.full = 0
        self.skip: Sequence[int] = ()

    def commit(
        self, settlements: Sequence[Settlement], seals: Sequence[Batch], filtered: Filtered | None = None
    ) -> None:
        if self.full:
            self.full -= 1
            raise OSError("disk full")
        super().commit(settlements, seals)
        for first, end in filtered.ranges if filtered else ():
            self.filtered += range(first, end)
        assert len(self.filtered) == len(set(self.filtered))
        for settlement in settlements:
            assert settlement.batch.id in self.sealed
            self.settled += [*settlement.delivered, *settlement.dead_lettered]
        assert len(self.settled) == len(set(self.settled))
        self.sealed.update(batch.id for batch in seals)
        self.log.append(f"{len(settlements)} outcomes {len(seals)} seals")

    def resplit(self, batch: Batch, parts: Sequence[Batch]) -> None:
        super().resplit(batch, parts)
        assert batch.id in self.sealed
        assert sorted(batch.offsets) == sorted(offset for part in parts for offset in part.offsets)
        self.sealed.update(part.id for part in parts)
        self.log.append(f"resplit into {len(parts)}")

    def remember(self, batch: Batch, memo: bytes) -> None:
        self.log.append(f"remember {memo.decode()}")

    def recover(self) -> Sequence[Batch]:
        self.sealed.update(batch.id for batch in self.left)
        return self.left

    def is_sealed(self, first: int, end: int) -> Sequence[int]:
        return self.skip


class Stage:
    """A delivery with everything around it, driven by hand."""

    def __init__(self, concurrency: int = 1, limit: int | None = None) -> None:
        self.service = Service()
        self.ledger = StrictLedger()
        self.clock = ManualClock()
        self.bell = threading.Event()
        self.delivery = Delivery(
            Fake(self.service, concurrency=concurrency),
            self.ledger,
            clock=self.clock,
            uniform=lambda low, high: high,
            dead_letter_limit=limit,
            wake=self.bell.set,
        )

    def add(self, first: int, count: int, size: int = 2) -> None:
        self.delivery.add_chunk(Chunk(events(first, count, size=size), first, self.clock.now()))

    def tick(self) -> list[DeadLetter | Receipt]:
        return list(self.delivery.tick())

    def attempt(self) -> list[DeadLetter | Receipt]:
        """Start what has closed, and record what became of it."""
        return self.tick() + self.woken()

    def woken(self) -> list[DeadLetter | Receipt]:
        """Wait for a writer to have something to record, and record it."""
        assert self.bell.wait(PATIENCE), "no writer reported"
        self.bell.clear()
        return self.tick()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.delivery.close(PATIENCE)


def test_a_batch_is_sealed_before_its_attempt_and_its_receipt_follows_the_record(stage: Stage) -> None:
    stage.service.script = lambda batch: None if batch.id in stage.ledger.sealed else Outcome(later=[99])
    stage.add(0, 4)
    assert stage.tick() == []
    (receipt,) = stage.woken()
    assert isinstance(receipt, Receipt)
    assert list(receipt.event_ids) == [f"evt_{n:05d}" for n in range(4)]
    assert stage.ledger.settled == [0, 1, 2, 3]
    assert stage.ledger.log == ["0 outcomes 1 seals", "1 outcomes 0 seals"]
    assert stage.delivery.idle()


def test_a_dead_letter_is_given_out_before_anything_is_recorded(stage: Stage) -> None:
    stage.service.script = lambda batch: Outcome(rejected={1: "bad_field: x"})
    stage.add(0, 4)
    stage.tick()
    assert stage.bell.wait(PATIENCE)
    results = stage.delivery.tick()
    letter = next(results)
    assert isinstance(letter, DeadLetter)
    assert (letter.event_id, letter.destination, letter.attempts) == ("evt_00001", "fake", 1)
    assert letter.at == stage.clock.now()
    assert stage.ledger.settled == []
    (receipt,) = results
    assert isinstance(receipt, Receipt)
    assert len(receipt.event_ids) == 3
    assert sorted(stage.ledger.settled) == [0, 1, 2, 3]


def test_a_dead_letter_that_could_not_be_written_comes_again(stage: Stage) -> None:
    stage.service.script = lambda batch: Outcome(rejected={1: "bad_field: x"})
    stage.add(0, 4)
    stage.tick()
    assert stage.bell.wait(PATIENCE)
    first = next(stage.delivery.tick())  # and the bundle fails here
    again, receipt = stage.tick()
    assert first == again
    assert isinstance(receipt, Receipt)
    assert stage.delivery.status().dead_lettered == {"bad_field": 1}


def test_a_failing_ledger_loses_and_doubles_nothing(stage: Stage) -> None:
    stage.add(0, 4)
    stage.ledger.full = 1
    with pytest.raises(OSError, match="disk full"):
        stage.tick()
    assert stage.service.writes == []
    assert stage.delivery.deadline() == stage.clock.monotonic()
    stage.tick()
    stage.ledger.full = 1
    with pytest.raises(OSError, match="disk full"):
        stage.woken()
    assert not stage.delivery.idle()
    assert len(stage.tick()) == 1
    assert stage.ledger.settled == [0, 1, 2, 3]
    assert stage.delivery.status().delivered == 4


def test_halves_are_sealed_before_they_are_attempted(stage: Stage) -> None:
    def script(batch: Batch) -> Outcome | None:
        assert batch.id in stage.ledger.sealed
        later = range(len(batch.events))
        return Outcome(later=later, too_large=True) if len(batch.events) > 2 or 2 in batch.offsets else None

    stage.service.script = script
    stage.add(0, 4)
    stage.tick()
    results: list[DeadLetter | Receipt] = []
    assert stage.bell.wait(PATIENCE)
    stage.bell.clear()

    def fail_resplit(batch: Batch, parts: Sequence[Batch]) -> None:
        raise OSError("disk full")

    resplit, stage.ledger.resplit = stage.ledger.resplit, fail_resplit  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk full"):
        stage.tick()
    assert len(stage.service.writes) == 1
    stage.ledger.resplit = resplit  # type: ignore[method-assign]
    results += stage.tick()
    while not stage.delivery.idle():
        results += stage.woken()
    letters = [result for result in results if isinstance(result, DeadLetter)]
    assert [(letter.event_id, letter.cause.split(":")[0]) for letter in letters] == [
        ("evt_00002", "too_large")
    ]
    assert sorted(stage.ledger.settled) == [0, 1, 2, 3]


def test_what_was_sealed_before_a_restart_goes_first_and_unchanged(stage: Stage) -> None:
    old_events = [Event(f"old_{n}", "t", "", b"{}") for n in range(2)]
    left = Batch(old_events, [3, 5], id="kept", seal=9, memo=b"key", attempts=2)
    stage.ledger.left = [left]
    stage.ledger.skip = range(3, 6)
    assert stage.delivery.recover() == 1
    stage.add(2, 8)  # offsets 2..9, of which 3, 4 and 5 are sealed or settled
    stage.delivery.flush()
    (old,) = stage.woken()
    assert stage.service.writes[0].batch is left
    assert isinstance(old, Receipt)
    assert (old.batch_id, old.attempts) == ("kept", 3)
    while not stage.delivery.idle():
        stage.woken()
    assert [list(write.batch.offsets) for write in stage.service.writes[1:]] == [[2, 6, 7, 8], [9]]


def test_what_was_sealed_before_is_not_sent_before_it_can_be_recorded(stage: Stage) -> None:
    old_events = [Event(f"old_{n}", "t", "", b"{}") for n in range(2)]
    stage.ledger.left = [Batch(old_events, [0, 1], id="kept", seal=9)]
    stage.delivery.recover()
    assert stage.delivery.ready(), "a tick is wanted"
    assert stage.service.opened == 0, "no writer was started"
    assert stage.delivery.pending() == 2
    assert stage.tick() == []
    (receipt,) = stage.woken()
    assert isinstance(receipt, Receipt)
    assert receipt.batch_id == "kept"


def test_a_memo_is_remembered_by_the_ledger_during_the_attempt(stage: Stage) -> None:
    stage.service.script = lambda batch: batch.remember(b"key")
    stage.add(0, 4)
    stage.tick()
    stage.woken()
    assert stage.ledger.log == ["0 outcomes 1 seals", "remember key", "1 outcomes 0 seals"]


def test_age_and_the_windows_end_are_deadlines(stage: Stage) -> None:
    assert stage.delivery.deadline() is None
    now = stage.clock.now()
    event = Event("evt_1", "t", "", b"{}")
    stage.delivery.add_chunk(Chunk([event], 0, now), window_end=now + 2.0)
    assert stage.delivery.deadline() == stage.clock.monotonic() + 2.0
    stage.clock.advance(2.0)
    stage.tick()
    assert len(stage.woken()) == 1
    # Catching up: that the window is long over is no reason to send what there is of it in crumbs.
    stage.delivery.add_chunk(Chunk([event], 1, now), window_end=now + 2.0)
    assert stage.delivery.deadline() == stage.clock.monotonic() + 5.0


def test_a_retry_waits_for_its_time_and_is_launched_without_a_tick(stage: Stage) -> None:
    outcomes = iter([httpx.ConnectError("refused"), None])

    def script(batch: Batch) -> Outcome | None:
        error = next(outcomes)
        if error is not None:
            raise error
        return None

    stage.service.script = script
    stage.add(0, 4)
    stage.tick()
    assert stage.woken() == []
    assert len(stage.service.writes) == 1
    status = stage.delivery.status()
    assert "cannot be reached (refused)" in status.last_error
    assert status.oldest_taken_at == stage.clock.now()
    stage.clock.advance(0.5)
    assert len(stage.woken()) == 1
    assert stage.delivery.status().retries == 1
    assert stage.service.opened == 1


def test_an_outage_opens_the_circuit_bounds_memory_and_ends() -> None:
    stage = Stage(concurrency=2)
    stage.service.refuse = ConnectionRefusedError("refused")
    first = 0
    while (room := stage.delivery.room()) > 0:
        stage.add(first, min(room, 10))
        first += min(room, 10)
        stage.tick()
    assert first <= 65 * 4
    while not stage.delivery.status().circuit.open:
        stage.woken()
        stage.clock.advance(60.0)
    circuit = stage.delivery.status().circuit
    assert "refused" in circuit.why
    stage.service.refuse = None
    stage.delivery.flush()
    while not stage.delivery.idle():
        stage.clock.advance(60.0)
        stage.woken()
    assert sorted(stage.ledger.settled) == list(range(first))
    status = stage.delivery.status()
    assert not status.circuit.open
    assert status.delivered == first
    assert status.pending == 0
    assert status.oldest_taken_at is None
    assert sum(status.request_seconds.counts) == status.attempts
    assert stage.delivery.close(PATIENCE)
    assert stage.service.closed == stage.service.opened


def test_an_outage_is_logged_when_it_begins_every_five_minutes_and_when_it_ends(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.service.refuse = SecretError("env:TOKEN is not set")
    stage.add(0, 4)
    stage.tick()
    stage.woken()
    for _ in range(3600 // 30):
        stage.clock.advance(30.0)
        stage.woken()
    stage.service.refuse = None
    stage.clock.advance(30.0)
    stage.woken()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("fake is left alone for now and only probed with one batch: fake: env:TOKEN")
    assert lines[-1] == "fake takes events again"
    assert len(lines) == 1 + 3600 // 300 + 1
    assert lines[1].startswith("fake has taken no events for 5 minutes: fake: env:TOKEN is not set.")
    assert lines[-2].startswith("fake has taken no events for 60 minutes: ")
    assert stage.delivery.close(PATIENCE)


def test_room_is_bounded_in_bytes_but_never_below_a_batch_when_nothing_waits(stage: Stage) -> None:
    stage.service.refuse = SecretError("env:TOKEN is not set")
    assert stage.delivery.room() == 128 * 4
    stage.add(0, 1, size=MAX_UNSETTLED_BYTES + 1)
    stage.tick()
    assert stage.delivery.room() == 0
    assert stage.woken() == []
    assert stage.delivery.status().circuit.why.startswith("fake: env:TOKEN is not set. The events are kept")


def test_a_bug_in_a_writer_reaches_the_lane_after_what_others_delivered_is_recorded() -> None:
    stage = Stage(concurrency=2)
    delivered = threading.Event()

    def script(batch: Batch) -> Outcome | None:
        if batch.offsets[0] == 0:
            delivered.wait(PATIENCE)
            raise KeyError("a bug")
        return None

    stage.service.script = script
    stage.add(0, 8)
    stage.tick()
    assert len(stage.woken()) == 1
    delivered.set()
    with pytest.raises(KeyError, match="a bug"):
        stage.woken()
    assert stage.ledger.settled == [4, 5, 6, 7]
    stage.add(8, 4)
    with pytest.raises(KeyError):
        stage.tick()
    assert stage.delivery.close(PATIENCE)
    assert len(stage.service.writes) == 2
    assert stage.service.closed == stage.service.opened


def test_a_contradictory_outcome_is_a_bug(stage: Stage) -> None:
    stage.service.script = lambda batch: Outcome(rejected={7: "x"})
    stage.add(0, 4)
    with pytest.raises(ValueError, match="fake: the writer's outcome names event 7"):
        stage.attempt()


def test_close_takes_a_hung_writers_connection_away_and_never_waits_longer() -> None:
    stage = Stage()
    hung, cut = threading.Event(), threading.Event()

    class Hung(FakeWriter):
        def write(self, batch: Batch) -> Outcome | None:
            hung.set()
            cut.wait(PATIENCE)
            raise ConnectionAbortedError("closed under me")

        def close(self) -> None:
            super().close()
            cut.set()

    stage.delivery._threads._destination = _Opens(Hung(stage.service))
    stage.add(0, 4)
    stage.tick()
    assert hung.wait(PATIENCE)
    assert stage.delivery.close(1.0)
    assert stage.service.closed == 1
    assert stage.tick() == []  # records the outcome that arrived meanwhile: all later
    assert stage.ledger.log == ["0 outcomes 1 seals", "1 outcomes 0 seals"]
    assert stage.ledger.settled == []
    assert stage.delivery.pending() == 4


def test_close_records_what_was_delivered_last_but_no_unwritten_dead_letter() -> None:
    stage = Stage()
    last = threading.Event()

    def script(batch: Batch) -> Outcome:
        if batch.offsets[0] == 8:
            last.set()
        return Outcome(rejected={1: "bad: x"} if batch.offsets[0] == 0 else {})

    stage.service.script = script
    stage.add(0, 12)
    stage.tick()
    assert last.wait(PATIENCE)
    assert stage.delivery.close(PATIENCE)
    assert sorted(stage.ledger.settled) == [0, *range(2, 12)]
    (letter,) = stage.tick()
    assert isinstance(letter, DeadLetter)
    assert sorted(stage.ledger.settled) == list(range(12))


def test_a_full_disk_at_the_end_is_no_reason_not_to_close(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.add(0, 4)
    stage.tick()
    assert stage.bell.wait(PATIENCE)
    stage.ledger.full = 1
    assert stage.delivery.close(PATIENCE)
    assert "fake: what was delivered last could not be recorded" in caplog.text


def test_close_gives_up_on_a_writer_that_cannot_be_closed() -> None:
    stage = Stage()
    hung, never = threading.Event(), threading.Event()

    class Stuck(FakeWriter):
        def write(self, batch: Batch) -> Outcome | None:
            hung.set()
            never.wait(PATIENCE)
            return None

        def close(self) -> None:
            never.wait(PATIENCE)

    stage.delivery._threads._destination = _Opens(Stuck(stage.service))
    stage.add(0, 4)
    stage.tick()
    assert hung.wait(PATIENCE)
    assert not stage.delivery.close(0.05)
    never.set()


@dataclass(frozen=True)
class _Opens(Destination):
    writer: Writer

    def open(self) -> Writer:
        return self.writer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), "later"),
        (httpx.ConnectTimeout("slow"), "later"),
        (httpx.PoolTimeout("busy"), "later"),
        (httpx.WriteTimeout("slow"), "later"),
        (httpx.ReadTimeout("slow"), "unknown"),
        (httpx.ReadError("reset"), "unknown"),
        (httpx.WriteError("reset"), "unknown"),
        (httpx.RemoteProtocolError("eof"), "unknown"),
        (httpx.LocalProtocolError("Illegal header value b'Splunk t0ken'"), "blocked"),
        (ConnectionRefusedError("refused"), "later"),
        (ConnectionResetError("reset"), "unknown"),
        (TimeoutError("slow"), "unknown"),
        (OSError(113, "No route to host"), "later"),
        (ssl.SSLEOFError("eof"), "unknown"),
        (ssl.SSLCertVerificationError("self-signed"), "blocked"),
        (SecretError("env:TOKEN is not set"), "blocked"),
        (OSError(28, "No space left on device"), "bug"),
        (KeyError("x"), "bug"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_exceptions_of_the_network_are_later_and_all_others_bugs(error: Exception, kind: str) -> None:
    outcome = as_outcome(error, 3, "fake")
    if kind == "bug":
        assert outcome is None
        return
    assert outcome is not None
    assert list(outcome.later) == [0, 1, 2]
    assert (outcome.unknown, outcome.blocked) == (kind == "unknown", kind == "blocked")
    assert "fake" in outcome.cause
    assert "t0ken" not in outcome.cause
