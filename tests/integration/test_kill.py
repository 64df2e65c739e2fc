"""kill -9 under 1,500 events a second, with what needs no server; test_six.py has the other destinations."""

from __future__ import annotations

import random

import pytest

from tests.integration.job import World
from tests.integration.kill_test import run
from tests.servers import landing


@pytest.mark.parametrize(("transport", "kills"), [("sse", 3), ("websocket", 1), ("both", 2)])
def test_nothing_accepted_is_lost_and_files_hold_nothing_twice(
    around: World, transport: str, kills: int
) -> None:
    landings = landing.files(around.out), landing.splunk(around.splunk)
    tally = run(around, landings, kills=kills, rate=1500.0, dice=random.Random(7), transport=transport)
    print(tally.table())
    assert tally.sound, tally.table()
    assert tally.accepted > 500
    assert tally.gaps >= 1
