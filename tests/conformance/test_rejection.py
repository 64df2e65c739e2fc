"""An event that is refused for good becomes a dead letter, and nothing else does, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from transforms.write.dead_letters.directory import read_dead_letters

COUNT = 9
POSITIONS = {
    "first": [0],
    "middle": [4],
    "last": [COUNT - 1],
    "two apart": [2, 6],
    "all but one": [n for n in range(COUNT) if n != 5],
    "all": list(range(COUNT)),
}


@pytest.mark.parametrize("where", POSITIONS)
def test_what_is_refused_for_good_is_dead_and_all_else_arrives(
    case: Case, tally: Tally, tmp_path: Path, where: str
) -> None:
    case.needs("reject")
    bad = POSITIONS[where]
    received = [case.poison(n) if n in bad else event for n, event in enumerate(events(0, COUNT))]
    lane = Lane(tmp_path, case.destination())
    lane.take(received)
    if len(bad) == COUNT:  # nothing else is taken, so the next event must show that the others are to blame
        received += events(COUNT, 1)
        lane.take(received[COUNT:])
    lane.run()
    assert lane.close()
    assert sorted(lane.dead) == [received[n].id for n in bad]
    # original bytes, stage and cause: what a replay needs
    written = {letter.event_id: letter for letter in read_dead_letters(tmp_path / "dead_letters")}
    for n in bad:
        letter = written[received[n].id]
        assert letter.raw == received[n].raw
        assert (letter.stage, letter.destination) == ("write", lane.cursor.name)
        assert letter.cause
    row = tally.account(case, "rejected events", received, lane)
    assert (row.delivered, row.dead_lettered) == (len(received) - len(bad), len(bad))
