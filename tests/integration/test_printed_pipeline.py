"""The documentation's own pipeline, exactly as printed, on Beam's default runner: batches, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.s3 import ACCESS_KEY, SECRET_KEY, PracticeS3
from tests.integration.job import ROOT

PACE = 0.7  # seconds between events: more than a bundle lasts that gathers nothing
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
import transforms
settings = transforms.FeedSettings
transforms.FeedSettings = lambda url, **more: settings(os.environ["PRACTICE_FEED"], **more)
exec(compile(open(sys.argv[1]).read(), "README.md", "exec"), {"__name__": "__main__"})
"""


def printed() -> str:
    """The block of README or docs that reads the feed in somebody's own pipeline."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))]
    blocks = re.findall(r"```python\n(.*?)```", "\n".join(pages), re.DOTALL)
    (found,) = [block for block in blocks if "ReadFromGrantex" in block and "beam.Pipeline()" in block]
    return str(found)


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=0.5) as made:
        yield made


@pytest.fixture
def s3() -> Iterator[PracticeS3]:
    with PracticeS3(bucket="my-archive") as made:
        yield made


@pytest.fixture
def pipeline(feed: PracticeFeed, s3: PracticeS3, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It runs; only where the feed and S3 are is another matter than in the README."""
    (tmp_path / "printed.py").write_text(printed())
    around = {
        "FEED_KEY": feed.api_key,
        "PRACTICE_FEED": feed.url,
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "PYTHONPATH": str(ROOT),
    }
    with open(tmp_path / "said", "wb") as said:
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / "printed.py"],
            cwd=tmp_path,
            env=os.environ | around,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    yield running
    if running.poll() is None:
        running.kill()
        running.wait()


def test_it_batches_as_the_settings_say_and_ctrl_c_delivers_and_ends_it(
    pipeline: subprocess.Popen[bytes], feed: PracticeFeed, s3: PracticeS3, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    feed.wait_for_streams(timeout=60)
    for event in islice(generate(), 5):
        feed.publish(event)
        threading.Event().wait(PACE)
    assert not s3.objects, "max_age is 300 s"
    pipeline.send_signal(signal.SIGINT)
    assert pipeline.wait(60) == 0, said.read_text()
    assert (len(s3.objects), len(set(s3.ids))) == (1, 5)
    assert "Traceback" not in said.read_text()
    assert "stopping: what was received is being delivered" in said.read_text()
