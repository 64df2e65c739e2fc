"""Splunk is away for some seconds under load: files does not notice, and everything arrives afterwards."""

from __future__ import annotations

import pytest

from tests.integration.job import World
from tests.integration.outage import Away, run
from tests.servers import landing


@pytest.mark.alone
def test_an_outage_of_one_destination_is_nothing_to_the_other(around: World) -> None:
    landings = landing.files(around.out), landing.splunk(around.splunk)
    aways = [Away("refuse", "splunk"), Away("hang", "splunk")]
    ages = {"files": 1.0, "splunk": 0.2}
    outages = run(around, landings, aways, seconds=2.5, rate=1000.0, warm_up=0.5, ages=ages)
    print(outages)
    assert not any(outages.lost.values())
    assert not outages.broken
    refused, hung = outages.during
    for spell in (refused, hung):
        assert max(spell.pending) > 1000, "events for splunk were held meanwhile"
        # what comes on top of max_age is a machine with better things to do
        assert spell.worst < 2.0
    assert max(refused.circuit) == 1
