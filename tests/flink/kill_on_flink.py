"""The task manager is killed, and a job stopped with a savepoint: what was in a checkpoint is delivered, and
what was lost between two processes lies in a gap on record."""

from __future__ import annotations

import time

import pytest

from tests.flink.world import World, made_at
from tests.servers import flink
from tests.servers.flink import wait_for

pytestmark = pytest.mark.own_network(needs=flink.install, limit=900)

RATE = 500.0  # events a second
KILLS = 3
# From an event's being made to its being claimed by a bundle, which is when a checkpoint has it.
CLAIMED = 3.0


def test_killed_three_times_under_load_it_loses_nothing_that_a_checkpoint_had(around: World) -> None:
    job = around.start()
    checkpointed = []
    with around.feed.publishing(RATE):
        for number in range(KILLS):
            completed = around.flink.checkpoints(job)
            wait_for(lambda: around.flink.checkpoints(job) >= completed + 3, "no checkpoints", 120.0)  # noqa: B023
            streams, counts = len(around.feed.streams), arrived(around)
            checkpointed.append(last_checkpoint(around, job))
            around.flink.kill_task_manager()
            killed = time.time()
            around.flink.start_task_manager()
            around.feed.wait_for(lambda: len(around.feed.streams) > streams, 180.0)  # noqa: B023
            wait_for(lambda: grown(around, counts), "nothing arrives any more", 180.0)  # noqa: B023
            print(f"kill {number + 1}: events arrive again after {time.time() - killed:.1f} s")
        time.sleep(6.0)
    around.wait_for_quiet()
    assert around.flink.jobs()[job] == "RUNNING"
    explain(around, checkpointed)
    assert len(around.gaps()) >= KILLS


def test_stopped_with_a_savepoint_it_goes_on_from_there_and_the_gap_is_on_record(around: World) -> None:
    first = around.start()
    with around.feed.publishing(RATE):
        wait_for(lambda: around.flink.checkpoints(first) >= 2, "no checkpoints")
        around.datadog.down()  # what waits for it goes through the savepoint
        wait_for(lambda: len(around.missing()["datadog"]) > 4 * RATE, "the job is slow")
        stopped = time.time()
        savepoint = around.flink.stop_with_savepoint(first)
        wait_for(lambda: around.flink.jobs()[first] == "FINISHED", "the job does not end")
        assert around.driver is not None
        around.driver.wait(60)
        around.datadog.up()
        counts = arrived(around)
        around.start(f"--savepoint_path={savepoint}")
        wait_for(lambda: grown(around, counts), "nothing arrives after the savepoint", 120.0)
        time.sleep(6.0)
    around.wait_for_quiet()
    explain(around, [stopped])
    assert sorted(reason[:12] for _, _, reason in around.gaps()) == ["connection 1", "connection 2"]


def arrived(around: World) -> list[int]:
    return [server.count for server in around.destinations.values()]


def grown(around: World, counts: list[int]) -> bool:
    return all(now > then for now, then in zip(arrived(around), counts, strict=True))


def last_checkpoint(around: World, job: str) -> float:
    """When the newest that completed began, epoch seconds."""
    latest = around.flink.ask(f"/jobs/{job}/checkpoints")["latest"]["completed"]
    return float(latest["trigger_timestamp"]) / 1000


def explain(around: World, checkpointed: list[float]) -> None:
    """Every event that was sent is at each destination, or was made in a gap on record, which began after the
    checkpoint that the job went back to."""
    gaps, missing = around.gaps(), around.missing()
    print(f"{len(around.sent())} sent; missing { {name: len(ids) for name, ids in missing.items()} }")
    print(f"repeats {around.repeats()}")
    for since, until, reason in gaps:
        print(f"gap of {until - since:.1f} s: {reason}")
    if unexplained := sorted(map(made_at, around.unexplained())):
        pytest.fail(
            f"{len(unexplained)} made from {unexplained[0]} to {unexplained[-1]} are not, gaps: {gaps}"
        )
    for since, until, _ in gaps:
        assert any(since >= at - CLAIMED and at <= until for at in checkpointed), (since, checkpointed)
