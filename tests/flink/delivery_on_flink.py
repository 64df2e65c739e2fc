"""The job on a real Flink cluster: everything arrives, an outage stays where it is, a cut is on record."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pipelines.practice.feed_stream import Finish, Stream
from pipelines.practice.feed_websocket import SocketStream
from tests.flink.world import World
from tests.servers import flink, seaweedfs
from tests.servers.flink import wait_for
from tests.servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.own_network(needs=flink.install, limit=600)

RATE = 500.0  # events a second
BOTH = {Stream, SocketStream}  # server-sent events, and a WebSocket
# Each of hanging and refusing; `make test-flink OUTAGE=60` is the long run.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE") or 10.0)


def test_every_event_arrives_also_the_last_ones_before_the_input_ends(around: World) -> None:
    job = around.start()
    with around.feed.publishing(RATE):
        time.sleep(10.0)
    around.feed.end_input()
    around.wait_for_all()
    report(around, "end to end")
    assert len(around.sent()) > 4000
    assert set(around.repeats().values()) == {0}
    # Until the service says that there is no more, there might have been.
    assert all(reason.endswith(": the service closed the stream") for _, _, reason in around.gaps())
    # Beam's runner keeps its first source alive, for its checkpoints: somebody has to end the job.
    around.flink.cancel(job)
    assert around.driver is not None
    assert around.driver.wait(60) == 1
    assert "the job ended" in (around.flink.directory / "driver.log").read_text()


def test_without_checkpoints_the_job_ends_with_the_feed_and_its_books_are_closed(around: World) -> None:
    job = around.start("--checkpointing_interval=-1")
    with around.feed.publishing(RATE):
        time.sleep(3.0)
    around.feed.end_input()
    assert around.driver is not None
    assert around.driver.wait(60) == 0
    assert not any(around.missing().values())
    assert around.flink.jobs() == {job: "FINISHED"}
    said = (around.flink.directory / "driver.log").read_text()
    assert "drained: every event received is delivered or a dead letter" in said


def test_workers_inside_the_driver_deliver_all_and_it_says_that_flink_keeps_the_job(around: World) -> None:
    job = around.start("--environment_type=LOOPBACK", "--environment_config=", "--drain_timeout=15")
    with around.feed.publishing(RATE):
        time.sleep(3.0)
        assert around.driver is not None
        around.driver.send_signal(signal.SIGTERM)
        assert around.driver.wait(30) == 1
    assert around.feed.open_streams == []
    assert not any(around.missing().values())
    assert around.flink.jobs() == {
        job: "RUNNING"
    }  # Beam's job server has been told to cancel it, and said so
    said = (around.flink.directory / "driver.log").read_text()
    assert "a Flink that runs elsewhere keeps the job" in said
    assert "is cancelled" not in said
    around.flink.cancel(job)


def test_a_stop_of_the_driver_leaves_the_job_alone_and_a_cancel_ends_it(around: World) -> None:
    job = around.start("--log_level=WARNING")
    assert around.driver is not None
    around.driver.send_signal(signal.SIGTERM)
    assert around.driver.wait(30) == 0
    assert "the job goes on" in (around.flink.directory / "driver.log").read_text()
    with around.feed.publishing(RATE):
        time.sleep(3.0)
    around.wait_for_all()
    around.flink.cancel(job)
    assert around.flink.jobs() == {job: "CANCELED"}
    wait_for(lambda: not around.feed.open_streams, "the feed is still being read")


def test_a_destination_that_hangs_and_refuses_slows_no_other_and_gets_all_later(around: World) -> None:
    job, ill = around.start(), around.datadog
    with around.feed.publishing(RATE):
        wait_for(lambda: around.splunk.count > 2000, "the job is slow")
        time.sleep(OUTAGE_SECONDS)  # the worst of as long a time, as a busy machine has its moments
        before = lags(around, time.time() - OUTAGE_SECONDS)
        checkpoints, began = around.flink.checkpoints(job), time.time()
        ill.hang()
        time.sleep(OUTAGE_SECONDS)
        ill.down()
        ill.release()
        time.sleep(OUTAGE_SECONDS)
        during, held = lags(around, began), len(around.missing()["datadog"])
        checkpoints = around.flink.checkpoints(job) - checkpoints
        ill.up()
        wait_for(lambda: len(around.missing()["datadog"]) < 3 * RATE, "the backlog does not arrive", 180.0)
        caught_up = time.time() - began - 2 * OUTAGE_SECONDS
    around.wait_for_all()
    print(
        f"lag before {before}, during {during}; {held} held back; {checkpoints} checkpoints; {caught_up:.1f}"
    )
    report(around, "outage")
    assert held > 2 * OUTAGE_SECONDS * RATE * 0.7
    assert all(during[name] - before[name] < 1.0 for name in before), (before, during)
    assert checkpoints >= 2 * OUTAGE_SECONDS / 3 * 0.5  # one each 3 s is asked for
    assert around.repeats()["splunk"] == around.repeats()["s3"] == 0
    assert around.gaps() == []


def flink_and_store() -> None:
    """All that must be had from outside."""
    flink.install()
    seaweedfs.install()


@pytest.mark.own_network(needs=flink_and_store, limit=600)
def test_a_cut_of_the_feed_and_frames_that_are_no_events_lie_in_s3_while_the_job_runs(
    with_store: World, seaweedfs: SeaweedFS
) -> None:
    around = with_store
    job = around.start()
    with around.feed.publishing(RATE):
        around.feed.wait_for(lambda: len(around.feed.open_streams) == 2, 60)
        time.sleep(3.0)
        around.feed.publish_raw(b'data: {"id": "evt_torn\n\n')
        around.feed.publish_raw(b"data: \xff\xfe\n\n")
        cut = time.time()
        around.feed.finish_streams(Finish.CUT)
        around.feed.wait_for(lambda: len(around.feed.streams) == 4, 30)
        # An object is written once a minute.
        wait_for(lambda: bool(around.causes()) and len(around.gaps()) == 2, "no dead letters in S3", 90.0)
        print(f"in S3 after {time.time() - cut:.1f} s")
    around.wait_for_all()
    assert around.flink.jobs()[job] == "RUNNING"
    said = [reason.partition(": ") for _, _, reason in around.gaps()]
    assert {why for _, _, why in said} == {"the stream was cut off"}
    assert len({connection for connection, _, _ in said}) == 2, said  # each is a range, and says so
    for since, until, _ in around.gaps():
        print(f"gap of {until - since:.2f} s")
        assert since <= cut + 0.1
        assert cut <= until < cut + 30.0
    assert set(around.repeats().values()) == {0}
    causes = Counter(cause.partition(":")[0] for cause in around.causes())
    assert causes.keys() == {"not_json", "not_utf8"}
    assert max(causes.values()) <= 2  # both streams brought them
    stored = seaweedfs.objects("flink")
    assert all(re.fullmatch(r"dead_letters/dt=\d{4}-\d\d-\d\d/\d{6}-\w+\.ndjson", key) for key in stored)
    assert len(stored) <= 2  # a second one if midnight came between them


def test_of_both_transports_one_covers_what_the_other_lacks(around: World) -> None:
    around.start("--feed_transport=both")
    feed = around.feed
    with feed.publishing(RATE):
        for transport in (SocketStream, Stream):
            feed.wait_for(lambda: {type(one) for one in feed.open_streams} == BOTH, 60)
            time.sleep(3.0)
            streams = len(feed.streams)
            (cut,) = (one for one in feed.open_streams if type(one) is transport)
            cut.put(Finish.CUT)
            feed.wait_for(lambda: len(feed.streams) > streams, 30)  # noqa: B023
        feed.wait_for(lambda: {type(one) for one in feed.open_streams} == BOTH, 60)
        time.sleep(3.0)
    around.wait_for_all()
    report(around, "a cut of either transport")
    assert len(around.sent()) > 3000
    assert set(around.repeats().values()) == {0}
    assert around.causes() == []
    # Each range says when it was deaf; something could be missing only where both were.
    gaps = sorted(around.gaps())
    assert [why for _, _, why in gaps] == [f"connection {n} of 2: the stream was cut off" for n in (2, 1)]
    assert gaps[0][1] < gaps[1][0]


@pytest.fixture
def paused_pool(around: World) -> Iterator[World]:
    """No worker is ever started."""
    with around.flink.pool.hanging():
        yield around


def test_a_start_that_stalls_is_reported_as_one_with_the_ends_of_all_logs(paused_pool: World) -> None:
    with pytest.raises(AssertionError, match="the job stalls at its start: no stream after") as stalled:
        paused_pool.start(seconds=15.0)
    said = str(stalled.value)
    assert "RUNNING" in said or "INITIALIZING" in said
    assert all(f"== {name}.log" in said for name in ("driver", "jobserver", "pool", "session", "taskmanager"))


def lags(around: World, since: float) -> dict[str, float]:
    """The worst since then of the two that are well."""
    now = time.time()
    return {"splunk": around.splunk.worst_lag(since, now), "s3": around.s3.worst_lag(since, now)}


def report(around: World, what: str) -> None:
    """Figures, shown with pytest -rP."""
    print(f"{what}: {len(around.sent())} sent; repeats {around.repeats()}")
