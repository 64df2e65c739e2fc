"""Sinks on a cluster runner: latency, a destination that hangs and refuses beside a healthy one, drain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.cluster.report import Report
from tests.integration.intake import Intake, Server, ToIntake
from tests.integration.steady_source import Pace, steady
from tests.servers import prism
from transforms.window import Window
from transforms.write.dead_letters.directory import WriteDeadLetters, read_dead_letters
from transforms.write.keyed import firing
from transforms.write.keyed.attempts import DrainTime
from transforms.write.keyed.delivery import KeyedDelivery
from transforms.write.write_to import WriteTo

pytestmark = pytest.mark.own_network(needs=prism.program)

PATIENCE = 60.0


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(["healthy", "ill"])
    yield made
    made.close()


def job(pace: Pace, server: Server, names: list[str], letters: Path) -> Callable[[beam.Pipeline], Any]:
    def build(pipeline: beam.Pipeline) -> None:
        chunks = steady(pipeline, names[0], pace) | "Window" >> Window(2.0)
        for name in names:
            written = chunks | f"To{name}" >> WriteTo(ToIntake(server.url, name), drain=DrainTime(idle=2.0))
            written.dead_letters | f"Letters{name}" >> WriteDeadLetters(letters)

    return build


def wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def counted(result: Any, name: str) -> int:
    found = prism.metrics(result)["counters"]
    return sum(one.committed for one in found if one.key.metric.name == name)


def standing(result: Any, name: str) -> int:
    """A gauge of the two keys together, now."""
    found = prism.metrics(result)["gauges"]
    return sum(one.result.value or 0 for one in found if one.key.metric.name.startswith(f"{name}_0"))


def complete(intake: Intake, sent: int) -> bool:
    return len(intake.arrived) == sent


@pytest.mark.alone
def test_each_event_arrives_soon_and_a_drain_flushes_the_rest(server: Server, tmp_path: Path) -> None:
    pace, healthy = Pace(300.0), server.intakes["healthy"]
    with prism.running(job(pace, server, ["healthy"], tmp_path)) as result:
        wait_for(lambda: pace.sent > 1500, "the source is slow")
        pace.stopped.set()
        assert result.wait_until_finish(duration=int(PATIENCE * 1000)) == "DONE"
    assert complete(healthy, pace.sent)
    assert healthy.repeats == 0
    lags = sorted(one.lag for one in healthy.arrived.values())
    assert lags[len(lags) // 2] < 1.0, lags[len(lags) // 2]
    assert counted(result, "healthy_events_received") == pace.sent
    assert counted(result, "healthy_events_delivered") == pace.sent
    assert standing(result, "healthy_events_pending") == 0


@pytest.mark.alone
def test_a_destination_that_hangs_and_refuses_slows_no_other_and_gets_all_later(
    server: Server, tmp_path: Path
) -> None:
    pace, healthy, ill = Pace(1000.0), server.intakes["healthy"], server.intakes["ill"]
    with prism.running(job(pace, server, ["healthy", "ill"], tmp_path)) as result:
        wait_for(lambda: len(ill.arrived) > 2000, "the job does not start")
        before = healthy.worst_lag(time.time() - 1.5, time.time())
        started = time.time()
        ill.turn("hang")
        wait_for(lambda: standing(result, "ill_batches_in_flight") > 0, "no flight is shown")
        time.sleep(max(0.0, started + 6.0 - time.time()))
        ill.turn("refuse")
        refused = time.time()
        wait_for(lambda: standing(result, "ill_circuit_open") > 0, "no open circuit is shown")
        assert standing(result, "ill_events_pending") > 0
        assert standing(result, "ill_bytes_pending") > 0
        time.sleep(max(0.0, refused + 4.0 - time.time()))
        missing = pace.sent - len(ill.arrived)
        during = healthy.worst_lag(started + 1.0, time.time())
        ill.turn("take")
        wait_for(lambda: pace.sent - len(ill.arrived) < 2500, "the backlog does not arrive")
        pace.stopped.set()
        assert result.wait_until_finish(duration=int(PATIENCE * 1000)) == "DONE"
    assert missing > 8000
    assert during - before < 1.0, (before, during)
    assert complete(healthy, pace.sent)
    assert complete(ill, pace.sent)
    assert healthy.repeats == 0


def test_drained_while_a_destination_is_down_its_events_are_dead_letters(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And what only a person can put right is said by who watches the job, as on one machine."""
    pace, healthy, ill = Pace(500.0), server.intakes["healthy"], server.intakes["ill"]
    ill.turn("refuse")
    with prism.running(job(pace, server, ["healthy", "ill"], tmp_path)) as result:
        wait_for(lambda: pace.sent > 2000, "the source is slow")
        wait_for(lambda: standing(result, "ill_circuit_open") > 0, "no open circuit is shown")
        report = Report(result, ["healthy", "ill"])
        report.look()
        ill.turn("forbid")
        wait_for(lambda: standing(result, "ill_needs_you") > 0, "nobody is said to be needed")
        report.look()
        pace.stopped.set()
        assert result.wait_until_finish(duration=int(PATIENCE * 1000)) == "DONE"
    says = [record.getMessage() for record in caplog.records if record.name == "grantex.run"]
    assert [line.partition(";")[0] for line in says] == ["ill is down", "ill needs you"]
    assert complete(healthy, pace.sent)
    letters = list(read_dead_letters(tmp_path))
    assert len({letter.event_id for letter in letters}) == pace.sent
    assert {letter.destination for letter in letters} == {"ill"}
    assert all(letter.cause.startswith("not_delivered: ") for letter in letters)
    assert counted(result, "ill_events_dead_lettered") == pace.sent


def test_the_end_of_the_input_comes_again_until_nothing_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle gives out some MB, here some KB; the timer for the end is set once more in its callback."""
    monkeypatch.setattr(firing, "BUNDLE_BYTES", 100_000)
    ends: list[str] = []
    end = KeyedDelivery.end

    def counting(delivery: KeyedDelivery, key: str, *rest: Any) -> Iterator[Any]:
        ends.append(key)
        yield from end(delivery, key, *rest)

    monkeypatch.setattr(KeyedDelivery, "end", counting)
    pace, ill = Pace(500.0), server.intakes["ill"]
    ill.turn("refuse")
    with prism.running(job(pace, server, ["ill"], tmp_path)) as result:
        wait_for(lambda: pace.sent > 2000, "the source is slow")
        pace.stopped.set()
        assert result.wait_until_finish(duration=int(PATIENCE * 1000)) == "DONE"
    letters = [letter.event_id for letter in read_dead_letters(tmp_path)]
    assert len(letters) == len(set(letters)) == pace.sent
    assert len(ends) > 2 * len(set(ends))
