"""Prism itself does what a cluster's drivers rely on, as seen by a pipeline of two stages."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer

from tests.servers import prism

pytestmark = pytest.mark.own_network(needs=prism.program)

seen: list[tuple[int, float]] = []
fired = threading.Event()


COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())
TIMER = TimerSpec("timer", TimeDomain.REAL_TIME)
_COUNT = beam.DoFn.StateParam(COUNT)
_TIMER = beam.DoFn.TimerParam(TIMER)


class CountUntilTimer(beam.DoFn):
    """Counts in state; a processing-time timer, armed by the first element, notes the count."""

    def process(self, element: Any, count: Any = _COUNT, timer: Any = _TIMER) -> None:
        if count.read() is None:
            timer.set(time.time() + 0.5)
        count.write((count.read() or 0) + 1)

    @on_timer(TIMER)  # type: ignore[untyped-decorator]
    def fire(self, count: Any = _COUNT) -> Iterator[None]:
        seen.append((count.read(), time.time()))
        fired.set()
        return iter(())


def count(pipeline: beam.Pipeline) -> None:
    now = time.time()
    ticks = pipeline | PeriodicImpulse(now, now + 3600, fire_interval=0.05)
    _ = ticks | beam.Map(lambda tick: ("one", 1)) | beam.ParDo(CountUntilTimer())


def test_state_and_a_processing_time_timer_work_while_the_source_goes_on() -> None:
    with prism.running(count) as result:
        assert fired.wait(30), "no timer fired"
        assert result.state == "RUNNING"
    assert seen[0][0] > 1
    assert result.state == "CANCELLED"


def test_nothing_outside_this_test_can_reach_what_it_starts() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.socket() as probe, pytest.raises(OSError, match="unreachable"):
        probe.connect(("192.0.2.1", 80))
