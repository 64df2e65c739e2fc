"""Connections that break before, during and after a request: nothing is lost, repeats are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.case import Case, When, events
from tests.conformance.tally import Tally
from tests.conformance.test_outage import begun

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_reset(case: Case, tally: Tally, tmp_path: Path, when: When) -> None:
    case.needs("reset")
    lane = begun(case, tmp_path)
    case.reset(when)
    lane.take(events(2, 10))
    lane.run()
    assert lane.close()
    assert lane.dead == []
    row = tally.account(case, f"reset {when} the request", events(0, 12), lane)
    if when != "after":
        assert row.repeated == 0, "nothing of it was taken"


def test_an_answer_that_ends_early(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("truncate")
    lane = begun(case, tmp_path)
    case.truncate()
    lane.take(events(2, 10))
    lane.run()
    assert lane.close()
    assert lane.dead == []
    tally.account(case, "truncated answer", events(0, 12), lane)


def test_an_answer_that_a_gateway_loses(case: Case, tally: Tally, tmp_path: Path) -> None:
    """It was reached, and what it reached may have taken the request: so it is sent again, and counted."""
    case.needs("gateway")
    lane = begun(case, tmp_path)
    case.gateway()
    lane.take(events(2, 10))
    lane.run(until=lambda: lane.status.retries > 0)
    case.calm()
    lane.run()
    assert lane.close()
    assert lane.dead == []
    tally.account(case, "gateway's time-out", events(0, 12), lane)
