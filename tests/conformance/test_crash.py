"""A crash at the worst moments of an attempt: the next life sends the same batch, and knows what is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.write.contract import Destination, Outcome, Writer


class Crash(Exception):
    """The process ended here."""


class CrashingWriter(Writer):
    """Crashes at `moment` of the attempt number `attempt`."""

    def __init__(self, writer: Writer, moment: str, attempts: list[Batch], attempt: int) -> None:
        self._writer, self._moment, self._attempts, self._attempt = writer, moment, attempts, attempt

    def write(self, batch: Batch) -> Outcome | None:
        self._attempts.append(batch)
        now = len(self._attempts) == self._attempt
        if now and self._moment == "before the attempt":
            raise Crash
        remember = batch.on_remember
        if now and self._moment == "memo committed":
            batch.on_remember = lambda batch, memo: committed(remember, batch, memo)
        outcome = self._writer.write(batch)
        if now and self._moment == "taken by the service":
            raise Crash
        return outcome

    def close(self) -> None:
        self._writer.close()


def committed(remember: Callable[[Batch, bytes], None] | None, batch: Batch, memo: bytes) -> None:
    """What was to be remembered is on disk, and nothing has happened since."""
    assert remember is not None
    remember(batch, memo)
    raise Crash


@dataclass(frozen=True)
class Crashing(Destination):
    """`inner`, whose writer crashes."""

    inner: Destination
    moment: str
    attempts: list[Batch]
    attempt: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.inner.name

    @property
    def policy(self) -> BatchPolicy:  # type: ignore[override]
        return self.inner.policy

    def size(self, event: Event) -> int:
        return self.inner.size(event)

    def partition(self, event: Event) -> str:
        return self.inner.partition(event)

    def open(self) -> Writer:
        return CrashingWriter(self.inner.open(), self.moment, self.attempts, self.attempt)


@pytest.mark.parametrize("moment", ["before the attempt", "memo committed", "taken by the service"])
def test_the_same_batch_comes_again_after_a_crash(
    case: Case, tally: Tally, tmp_path: Path, moment: str
) -> None:
    if moment == "memo committed":
        case.needs("memo")
    received = events(0, 30)
    attempts: list[Batch] = []
    policy = BatchPolicy(max_events=10, max_age=1.0)
    lane = Lane(tmp_path, Crashing(case.destination(policy), moment, attempts, attempt=2))
    lane.take(received)
    with pytest.raises(Crash):
        lane.run()
    crashed = attempts[1]
    lane.close()

    again: list[Batch] = []
    life = Lane(tmp_path, Crashing(case.destination(policy), "never", again, attempt=0), lane.clock)
    life.run()
    assert life.close()
    same = next(batch for batch in again if batch.id == crashed.id)
    assert [event.id for event in same.events] == [event.id for event in crashed.events]
    in_doubt = 10 if moment == "taken by the service" else 0
    row = tally.account(case, f"crash, {moment}", received, lane, life, in_doubt=in_doubt)
    assert row.delivered == 30
    if not in_doubt:
        assert row.repeated == 0


def test_two_crashes_of_the_same_batch(case: Case, tally: Tally, tmp_path: Path) -> None:
    """Once the service has it, once it only seems so: the memo is what tells them apart."""
    received = events(0, 30)
    policy = BatchPolicy(max_events=10, max_age=1.0)
    lives: list[Lane] = []
    for moment in ("taken by the service", "taken by the service", "before the attempt"):
        lane = Lane(tmp_path, Crashing(case.destination(policy), moment, [], attempt=1))
        if not lives:
            lane.take(received)
        with pytest.raises(Crash):
            lane.run()
        lane.close()
        lives.append(lane)
    last = Lane(tmp_path, case.destination(policy))
    last.run()
    assert last.close()
    tally.account(case, "crash, three times", received, *lives, last, in_doubt=20)
