"""The demo as a user starts it: events arrive by themselves, and Ctrl-C ends it clean."""

from __future__ import annotations

import signal

from tests.integration.evidence import ids_in_files
from tests.integration.job import World


def test_the_demo_delivers_by_itself_and_drains_at_ctrl_c(around: World) -> None:
    with around.start(["--demo=true", f"--files_dir={around.out}", "--files_max_age=0.5"]) as job:
        job.wait_until(lambda: ids_in_files(around.out), "its first file is there")
        job.wait_until(
            lambda: job.metric("grantex_events_delivered_total", "splunk") > 0, "splunk had events"
        )
        assert job.get("/readyz")[0] == 200
        job.signal(signal.SIGINT)
        assert job.wait() == 0
        assert "drained: every event received is delivered or a dead letter" in job.log
    assert around.feed.requests == [], "it brings its own"
