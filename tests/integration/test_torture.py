"""A short `make torture`: each thing once, and then every id is accounted for."""

from __future__ import annotations

import random

import pytest

from pipelines.practice.datadog import PracticeDatadog
from tests.integration.job import World
from tests.integration.torture import BOTH_UP, run
from tests.servers import landing

DEEDS = (
    (1.0, "cut a stream"),
    (1.0, "freeze a stream"),
    (1.0, "drop events"),
    (0.5, "destination away"),
    (1.0, "kill the active"),
    (0.0, BOTH_UP),
    (0.0, "drop events"),
    (0.5, "end the active"),
    (4.0, "cut a stream"),
)


@pytest.mark.timeout(600)
def test_every_id_is_accounted_for(around: World) -> None:
    with PracticeDatadog() as datadog:
        landings = [landing.files(around.out), landing.splunk(around.splunk), landing.datadog(datadog)]
        found = run(around, landings, iter(DEEDS), 200.0, random.Random(12), wait_for_proof=False)
    print(found.table())
    assert found.sound, found.table()
