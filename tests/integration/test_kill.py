"""kill -9 under 1,500 events a second, with what needs no server; test_six.py has the other destinations."""

from __future__ import annotations

import random

from tests.integration.job import World
from tests.integration.kill_test import run
from tests.servers import landing

TRANSPORTS = ("both", "websocket", "sse")


def test_nothing_accepted_is_lost_and_files_hold_nothing_twice(around: World) -> None:
    """Each life reads in another way into the same journal."""
    around.forks = False  # killed while it imports, too
    landings = landing.files(around.out), landing.splunk(around.splunk)
    tally = run(around, landings, kills=3, rate=1500.0, dice=random.Random(7), transports=TRANSPORTS)
    print(tally.table())
    assert tally.sound, tally.table()
    assert tally.accepted > 1000
    assert tally.gaps >= 1
