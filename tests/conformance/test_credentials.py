"""A wrong credential loses nothing: it is said, everything waits, and a right one is found by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from tests.conformance.test_outage import begun

pytestmark = pytest.mark.usefixtures("impatient")


def test_a_wrong_credential_blocks_until_it_is_right(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("credential")
    case.spoil_credential()
    lane = Lane(tmp_path, case.destination())
    lane.take(events(0, 20))
    lane.run(until=lambda: lane.status.circuit.open)
    assert lane.status.attempts == 1, "the circuit opens at once: trying others would only lock us out"
    attempts = lane.status.attempts
    lane.run(until=lambda: lane.status.attempts > attempts + 2)
    assert lane.status.pending == 20
    case.mend_credential()
    lane.run()
    assert lane.close()
    assert lane.dead == []
    row = tally.account(case, "wrong credential", events(0, 20), lane)
    assert row.repeated == 0, "nothing was taken with it"


def test_a_rotated_credential_is_found_without_a_restart(case: Case, tally: Tally, tmp_path: Path) -> None:
    case.needs("rotate")
    lane = begun(case, tmp_path)
    case.revoke_credential()
    lane.take(events(2, 20))
    lane.run(until=lambda: lane.status.circuit.open)
    case.mend_credential()
    lane.run()
    assert lane.close()
    assert lane.dead == []
    assert tally.account(case, "rotated credential", events(0, 22), lane).repeated == 0
