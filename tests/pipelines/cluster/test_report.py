"""What the process that watches a job says of destinations, by the gauges: as one machine's page does."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cluster.report import Report, state_of
from pipelines.local.verdict import State, of_destination
from tests.pipelines.local.looks import delivery, destination
from transforms.write.delivery.status import CircuitStatus

BLOCKED = {"splunk_circuit_open_000": 0, "splunk_circuit_open_001": 1, "splunk_needs_you_001": 1}
AWAY = {"splunk_circuit_open_000": 1, "splunk_needs_you_000": 0, "splunk_needs_you_001": 0}


class Shown:
    """A job that runs, with these gauges."""

    def __init__(self, **gauges: int) -> None:
        self.gauges: dict[str, int] | None = gauges

    def metrics(self) -> Any:
        if self.gauges is None:
            raise NotImplementedError
        found = [
            SimpleNamespace(
                key=SimpleNamespace(metric=SimpleNamespace(namespace="grantex", name=name)),
                result=SimpleNamespace(value=value),
            )
            for name, value in self.gauges.items()
        ]
        return SimpleNamespace(query=lambda: {"gauges": found})


@pytest.mark.parametrize(("gauges", "needs_you"), [(BLOCKED, True), (AWAY, False)])
def test_a_state_is_the_one_that_one_machine_would_show(gauges: dict[str, int], needs_you: bool) -> None:
    circuit = CircuitStatus(open=True, needs_you=needs_you)
    there = of_destination(destination("splunk", delivery=delivery("splunk", circuit=circuit)))
    assert state_of("splunk", gauges) == there
    assert there.state is (State.NEEDS_YOU if needs_you else State.DOWN)
    assert state_of("splunk_eu", gauges) is None


def test_what_changes_is_said_once_and_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "grantex.run")
    job = Shown(**BLOCKED, kafka_circuit_open_000=0)
    report = Report(job, ["kafka", "splunk"])
    report.look()
    report.look()
    job.gauges = None  # the runner does not answer for a while
    report.look()
    job.gauges = AWAY
    report.look()
    job.gauges = {}
    report.look()
    report.look()
    assert caplog.messages == [
        "splunk needs you; its events are kept, the others go on. The workers' log says why.",
        "splunk is down; its events are kept, the others go on. The workers' log says why.",
        "splunk takes events again",
    ]
