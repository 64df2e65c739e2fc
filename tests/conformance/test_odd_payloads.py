"""Whatever JSON the feed carries arrives, byte for byte where the service keeps bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.conformance.case import Case
from tests.conformance.lane import Lane
from tests.conformance.odd import COUNT, LARGE, odd_events
from tests.conformance.tally import Tally


def test_ten_thousand_odd_payloads(case: Case, tally: Tally, tmp_path: Path) -> None:
    received = odd_events()
    assert len(received) == COUNT
    lane = Lane(tmp_path, case.at_its_best())
    lane.take(received)
    lane.run()
    assert lane.close()
    large = [event.id for event in received[:LARGE]]
    assert set(lane.dead) <= set(large), Counter(letter.cause for letter in lane.letters).most_common(3)
    differing = case.differing(received)
    if case.cuts:
        assert all(case.is_marked_as_cut(one) for one in received[:LARGE] if one.id in differing)
        differing = [one for one in differing if one not in large]
    assert differing == [], [one for one in received if one.id in differing[:3]]
    row = tally.account(case, "10,000 odd payloads", received, lane)
    assert row.repeated == 0
