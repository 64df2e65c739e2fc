"""A full disk under the running job: said loudly, survived, nothing accepted is lost, and it goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pipelines.practice.events import generate
from tests.integration.evidence import WITNESS, accepted, call_witness, ids_in_files
from tests.integration.job import World

MEGABYTES = 64


@pytest.fixture
def small_state(around: World) -> Iterator[Path]:
    """The state directory on a file system of its own, which only root may mount."""
    around.state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(around.state)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        reason = f"a small file system cannot be mounted here: {mounted.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI this test must run")
        pytest.skip(reason)
    try:
        yield around.state
    finally:
        subprocess.run(["umount", str(around.state)], check=True)


def fill(place: Path) -> Path:
    """Somebody else's file takes all that is left."""
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return ballast


def test_a_full_disk_is_survived_and_nothing_accepted_is_lost(around: World, small_state: Path) -> None:
    call_witness(small_state, around.feed.url)
    events = generate()
    with around.live_job() as job:
        around.feed.publish_many(islice(events, 500))
        assert around.splunk.wait_for(500, timeout=30)
        around.splunk.hang()
        around.feed.publish_many(islice(events, 500))
        job.wait_until(lambda: job.metric("grantex_events_received_total") == 1000, "1000 are received")

        ballast = fill(small_state)
        with around.feed.publishing(2000.0):
            job.wait_for_log("the journal is full")
            around.splunk.release()
            # receipts go on: what was received before is delivered
            job.wait_until(lambda: around.splunk.count >= 1000, "what was received is delivered")
        held = job.metric("grantex_events_received_total")
        job.wait_until_settled("splunk", "files")
        assert job.get("/healthz")[0] == 200
        ballast.unlink()
        job.wait_for_log("the journal has room again")
        around.feed.publish_many(islice(events, 500))
        job.wait_until(lambda: job.metric("grantex_events_received_total") >= held + 500, "it receives again")
        job.wait_until_settled("splunk", "files")
        assert job.drain() == 0
    taken = [event.id for event in accepted(small_state, around.feed.url)]
    assert len(set(taken)) == len(taken) >= 1500
    assert sorted(ids_in_files(around.out)) == sorted(taken)
    assert set(around.splunk.ids) == set(taken)
    assert WITNESS in job.log
