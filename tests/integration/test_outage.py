"""Splunk is away for some seconds under load: files does not notice, and everything arrives afterwards."""

from __future__ import annotations

import pytest

from tests.integration.job import World
from tests.integration.outage import FILES_MAX_AGE, How, run


@pytest.mark.parametrize("how", ["down", "hang"])
def test_an_outage_of_one_destination_is_nothing_to_the_other(around: World, how: How) -> None:
    outage = run(around, how, seconds=3.0, rate=1000.0, warm_up=0.5)
    print(outage)
    assert not any(outage.lost.values())
    assert outage.repeated["files"] == 0
    assert max(outage.during.pending) > 1500, "events for splunk were held meanwhile"
    if how == "down":
        assert max(outage.during.circuit) == 1
    # a file waits for FILES_MAX_AGE; twice that is a machine with better things to do
    assert max(outage.during.lags) < FILES_MAX_AGE + 2.0
