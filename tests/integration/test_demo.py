"""The demo as a user starts it: events arrive by themselves, and Ctrl-C ends it clean."""

from __future__ import annotations

import signal

from tests.integration.evidence import ids_in_files
from tests.integration.job import World


def test_the_demo_delivers_by_itself_and_drains_at_ctrl_c(around: World) -> None:
    ages = [f"--{name}_max_age=0.5" for name in ("bigquery", "s3", "files")]
    with around.start(["--demo=true", f"--files_dir={around.out}", *ages]) as job:
        job.wait_until(lambda: ids_in_files(around.out), "its first file is there")
        for name in ("bigquery", "s3", "datadog", "splunk", "kafka"):
            job.wait_until(
                lambda name=name: job.metric("grantex_events_delivered_total", name) > 0,  # type: ignore[misc]
                f"{name} had events",
            )
        assert job.metric("grantex_retries_total", "s3") == 0, "a request that the practice S3 refused"
        assert job.get("/readyz")[0] == 200
        job.signal(signal.SIGINT)
        assert job.wait() == 0
        assert "drained: every event received is delivered or a dead letter" in job.log
    assert around.feed.requests == [], "it brings its own"
