"""Splunk is away for some seconds under load: files does not notice, and everything arrives afterwards."""

from __future__ import annotations

from tests.integration.job import World
from tests.integration.outage import FILES_MAX_AGE, run


def test_an_outage_of_one_destination_is_nothing_to_the_other(around: World) -> None:
    outage = run(around, ["down", "hang"], seconds=2.5, rate=1000.0, warm_up=0.5)
    print(outage)
    assert not any(outage.lost.values())
    assert outage.repeated["files"] == 0
    for spell in outage.during.values():
        assert max(spell.pending) > 1000, "events for splunk were held meanwhile"
        # a file waits for FILES_MAX_AGE; what comes on top is a machine with better things to do
        assert max(spell.lags) < FILES_MAX_AGE + 2.0
    assert max(outage.during["down"].circuit) == 1
