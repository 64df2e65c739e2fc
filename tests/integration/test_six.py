"""All six destinations behind one job: it is killed, and some of them go away; ids are compared one by one.

`make kill-test` and `make outage-test` do the same for longer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from tests.integration import kill_test, outage
from tests.integration.job import World
from tests.integration.outage import Away
from tests.servers.bigquery import Emulator
from tests.servers.kafka import KafkaServer
from tests.servers.landing import Landing
from tests.servers.seaweedfs import SeaweedFS
from tests.servers.six import RealServers, six


@pytest.fixture
def landings(
    around: World,
    broker: KafkaServer,
    seaweedfs: SeaweedFS,
    emulator: Emulator,
    request: pytest.FixtureRequest,
) -> Iterator[Sequence[Landing]]:
    servers = RealServers(broker, seaweedfs, emulator)
    name = f"six-{request.node.name.split('_')[1]}"
    with six(servers, around.splunk, around.out, name) as made:
        yield made


def test_killed_nothing_accepted_is_lost_and_what_must_be_once_is_once(
    around: World, landings: Sequence[Landing]
) -> None:
    tally = kill_test.run(around, landings, kills=3, rate=1500.0, dice=random.Random(11))
    print(tally.table())
    assert tally.sound, tally.table()
    assert tally.accepted > 1000
    assert tally.found.keys() == kill_test.PACE.keys()


@pytest.mark.alone
def test_outages_of_one_are_nothing_to_the_others(around: World, landings: Sequence[Landing]) -> None:
    ages = dict.fromkeys(outage.MAX_AGES, 0.5)
    aways = [Away("hang", "splunk"), Away("refuse", "datadog"), Away("hang", "s3")]
    seen = outage.run(around, landings, aways, seconds=2.5, rate=500.0, warm_up=0.5, ages=ages)
    print(seen)
    assert not any(seen.lost.values())
    assert not seen.broken
    for spell in seen.during:
        assert max(spell.pending) > 500
        # what comes on top is a machine with better things to do; an outage would cost all of its seconds
        assert spell.worst < 2.0
    assert seen.memory < outage.MEMORY_LIMIT
