"""Gaps that are true, in short: gap_test.py has more of the same, and the job itself."""

from __future__ import annotations

import random
from pathlib import Path

from tests.integration.gap_test import LONGER, torment_job, torment_streams
from tests.integration.job import World


def test_two_connections_killed_frozen_and_cut(tmp_path: Path) -> None:
    found = torment_streams(tmp_path, 4, random.Random(11))
    print(found)
    assert found.missing
    assert found.outside == 0
    assert found.recorded <= found.true * LONGER, str(found)


def test_the_job_stalled_and_then_ended(around: World) -> None:
    found = torment_job(around, 4, random.Random(12))
    print(found)
    assert found.missing
    assert (found.outside, found.late) == (0, 0), str(found)
