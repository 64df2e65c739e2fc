"""No secret is anywhere: log, pages, journal, dead letters and files are searched for their values."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Finish
from tests.integration.job import SECRETS, World


def where(values: list[bytes], place: Path) -> list[str]:
    """Files below `place` that hold one of `values`."""
    files = [path for path in place.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(value in path.read_bytes() for value in values)]


def test_no_secret_is_anywhere_with_faults_and_debug_logging(around: World) -> None:
    given = {
        "log_level": "DEBUG",
        "feed_api_key": around.feed.api_key,  # a literal
        "splunk_hec_token": "env:PRACTICE_HEC_TOKEN",
    }
    around.forks = False  # so that /proc has its environment
    with around.live_job(**given) as job:
        around.feed.publish_many(islice(generate(), 30))
        assert around.splunk.wait_for(30, timeout=30)
        # faults that name what was sent: refused token, cut answer, reset, and the feed's own
        around.splunk.rotate("another-token-altogether")
        streams = len(around.feed.streams)
        around.feed.answer_streams(401, "UNAUTHORIZED", f"Invalid API key {around.feed.api_key}")
        around.feed.finish_streams(Finish.CUT)
        around.feed.publish_many(islice(generate(), 5))
        job.wait_until(lambda: len(around.feed.streams) > streams, "its stream is open again")
        around.feed.publish_many([*islice(generate(), 30), b"no JSON"])
        job.wait_until(lambda: job.metric("grantex_circuit_open", "splunk") == 1, "its circuit opened")
        around.splunk.rotate(SECRETS["PRACTICE_HEC_TOKEN"])
        around.splunk.reset("after")
        around.splunk.cut_answer()
        assert around.splunk.wait_for(60, timeout=30)
        job.wait_until_settled("splunk", "files")
        pages = [job.get(path)[1] for path in ("/metrics", "/healthz", "/readyz", "/")]
        environment = Path(f"/proc/{job.process.pid}/environ").read_bytes()
        assert job.drain() == 0
        assert "Invalid API key [secret]" in job.log
    values = [value.encode() for value in SECRETS.values()]
    assert values[1] in environment, "the search can find what is there"
    assert where(values, around.place) == []
    assert not [page for page in pages if any(value in page.encode() for value in values)]
