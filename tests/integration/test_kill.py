"""Three times kill -9 under 1,500 events a second; `make kill-test` does it twenty times."""

from __future__ import annotations

import random

from tests.integration.job import World
from tests.integration.kill_test import run


def test_nothing_accepted_is_lost_and_files_hold_nothing_twice(around: World) -> None:
    tally = run(around, kills=3, rate=1500.0, dice=random.Random(7))
    print(tally.table())
    assert tally.sound, tally.table()
    assert tally.accepted > 1000
    assert tally.gaps >= 1
