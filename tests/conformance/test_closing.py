"""The end of a job while a request is under way that would last for half a minute."""

from __future__ import annotations

import time
from pathlib import Path

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from tests.conformance.test_outage import begun


def test_closing_while_a_request_is_in_flight(case: Case, tally: Tally, tmp_path: Path) -> None:
    """The job ends on time, and its next life finds the batch: sent once more, or known to have arrived."""
    case.needs("late")
    lane = begun(case, tmp_path)
    case.hang()
    lane.take(events(2, 10))
    lane.run(until=lambda: lane.status.in_flight > 0, step=1.0)
    started = time.monotonic()
    ended = lane.close(timeout=3.0)
    assert time.monotonic() - started < 3.5
    assert ended or "interrupt" in case.cannot
    case.calm()
    again = Lane(tmp_path, case.destination(), lane.clock)
    again.run()
    assert again.close()
    tally.account(case, "close during flight", events(0, 12), lane, again, in_doubt=10)
