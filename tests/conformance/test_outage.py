"""Services that are away, busy or slow: everything arrives when they are back, nothing is dead before."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from transforms.batch import BatchPolicy

pytestmark = pytest.mark.usefixtures("impatient")


def begun(case: Case, directory: Path) -> Lane:
    """A lane that has delivered two events, so that what comes next hits requests and no greeting."""
    lane = Lane(directory, case.destination())
    lane.take(events(0, 2))
    lane.run()
    assert sorted(lane.delivered) == [event.id for event in events(0, 2)]
    return lane


def test_an_outage_then_recovery(case: Case, tally: Tally, tmp_path: Path) -> None:
    lane = begun(case, tmp_path)
    case.down()
    lane.take(events(2, 250))
    lane.run(until=lambda: lane.status.circuit.open)
    attempts = lane.status.attempts
    lane.run(until=lambda: lane.status.attempts >= attempts + 3)  # it is left alone but for probes
    assert lane.status.pending == 250
    assert lane.status.last_error
    case.up()
    lane.run()
    assert not lane.status.circuit.open
    assert lane.close()
    assert lane.dead == []
    tally.account(case, "outage", events(0, 252), lane)


def test_a_busy_service_then_recovery(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("busy")
    lane = begun(case, tmp_path)
    case.busy()
    lane.take(events(2, 50))
    lane.run(until=lambda: lane.status.circuit.open)
    case.calm()
    lane.run()
    assert lane.close()
    assert lane.dead == []
    tally.account(case, "busy", events(0, 52), lane)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_and_no_longer(case: Case, tally: Tally, tmp_path: Path, form: str) -> None:
    case.needs("retry_after")
    lane = begun(case, tmp_path)
    # A date is told from the writer's own clock, which is the machine's.
    later = datetime.fromtimestamp(time.time() + 40.0, timezone.utc)
    case.busy("40" if form == "seconds" else format_datetime(later, usegmt=True))
    lane.take(events(2, 10))
    attempts = lane.status.attempts
    lane.run(until=lambda: lane.status.attempts > attempts and lane.status.in_flight == 0, step=1.0)
    case.calm()
    lane.tick()
    lane.pass_time(35.0)
    assert lane.status.attempts == attempts + 1, "it came back before it was asked to"
    lane.pass_time(5.5)
    lane.run(until=lambda: lane.cursor.pending == 0, step=0.0)
    assert lane.status.attempts == attempts + 2
    assert lane.close()
    tally.account(case, f"Retry-After, {form}", events(0, 12), lane)


def test_a_slow_answer_is_waited_for(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("late")
    lane = begun(case, tmp_path)
    case.slow(0.1)
    retries = lane.status.retries
    lane.take(events(2, 10))
    lane.run()
    case.slow(0.0)
    assert lane.close()
    assert lane.status.retries == retries
    assert tally.account(case, "slow", events(0, 12), lane).repeated == 0


def test_a_late_success_is_counted_as_unknown(case: Case, tally: Tally, tmp_path: Path) -> None:
    """The service takes the request, and its answer comes after the writer has given up."""
    case.needs("late")
    lane = begun(case, tmp_path)
    case.hang()
    lane.take(events(2, 10))
    lane.run(until=lambda: lane.status.retries > 0)
    case.calm()
    lane.run()
    assert lane.close()
    if not case.once:
        assert lane.status.unknown >= 10
    tally.account(case, "time-out, late success", events(0, 12), lane)


def test_a_request_that_vanishes_is_sent_again(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("swallow")
    lane = begun(case, tmp_path)
    case.swallow()
    lane.take(events(2, 10))
    lane.run(until=lambda: lane.status.retries > 0)
    case.calm()
    lane.run()
    assert lane.close()
    tally.account(case, "black hole", events(0, 12), lane)


def test_kill_9_of_the_service(case: Case, tally: Tally, tmp_path: Path) -> None:
    """Under load; what it has acknowledged it keeps, and what it has not is sent again and known.

    The events are of now: a Kafka that starts forgets a producer whose newest message is a day old
    (`producer.id.expiration.ms`, by the messages' own time), and then takes what it has a second time.
    """
    case.needs("kill")
    received = events(0, 20_000, f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.000Z}")
    lane = Lane(tmp_path, case.destination(BatchPolicy(max_events=500, max_age=1.0)))
    lane.take(received)
    lane.run(until=lambda: len(lane.receipts) >= 5)
    case.kill()
    lane.run(until=lambda: lane.status.circuit.open)
    assert lane.cursor.pending > 500
    case.restart()
    lane.run(patience=90.0)
    assert lane.close()
    assert lane.dead == []
    tally.account(case, "kill -9 of the service", received, lane)
