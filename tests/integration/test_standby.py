"""Two processes that stand by for each other, in short; standby_test.py has more, and S3 and BigQuery."""

from __future__ import annotations

import pytest

from tests.integration.job import World
from tests.integration.standby_test import places, run


@pytest.mark.alone
@pytest.mark.timeout(600)  # six starts of the job, on a machine that may be busy
def test_restarted_upgraded_and_killed_nothing_is_missing_and_nothing_comes_twice(around: World) -> None:
    with places(around, local=True) as landings:
        tally = run(around, landings, rounds=2, kills=2, rate=500.0, in_haste=True)
    print(tally.table())
    assert tally.sound, tally.table()
