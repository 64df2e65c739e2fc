"""The captured stream of the real service, end to end: every event arrives byte for byte, in its shape."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from tests.integration.evidence import lines_in_files
from tests.integration.job import World

CAPTURE = Path(__file__).parents[1] / "transforms" / "feed" / "data" / "stream.sse"


def test_the_capture_arrives_in_files_and_splunk(around: World) -> None:
    capture = CAPTURE.read_bytes()
    raws = [line.removeprefix(b"data: ") for line in capture.splitlines() if line.startswith(b"data: ")]
    assert len(raws) > 30
    with around.live_job() as job:
        around.feed.publish_raw(capture, chunk_bytes=700)  # chunks that end inside events
        assert around.splunk.wait_for(len(raws), timeout=30)
        job.wait_until_settled("files", "splunk")
        metrics = job.metrics()
        assert job.get("/healthz") == (200, "ok\n")
        assert job.get("/readyz") == (200, "ready\n")
        assert job.drain() == 0
        assert "drained: every event received is delivered or a dead letter" in job.log

    assert sorted(lines_in_files(around.out)) == sorted(raws)
    assert [bytes(one.event) for one in around.splunk.events] == raws
    for one in around.splunk.events:
        event = json.loads(bytes(one.event))
        assert one.event_id == event["id"]
        assert (one.source, one.sourcetype, one.index) == ("grantex", "_json", "main")
        # to the millisecond
        assert one.time == datetime.fromisoformat(event["createdAt"].replace("Z", "+00:00")).timestamp()
    request = around.splunk.requests[0]
    assert (request.path, request.headers["content-encoding"]) == ("/services/collector/event", "gzip")

    for name in ("files", "splunk"):
        assert metrics["grantex_events_delivered_total", name] == len(raws)
        assert metrics["grantex_events_dead_lettered_total", name] == 0
    assert metrics["grantex_events_received_total", ""] == len(raws)
    assert metrics["grantex_feed_connections", ""] == 1
