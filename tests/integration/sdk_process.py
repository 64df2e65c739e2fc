"""An SDK process in small: takes ranges of the feed as a runner keeps them, and runs a bundle of each.

No local runner of Beam's moves a range between processes, so the test is the runner: what passes between
the processes are the bytes of the range's coder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from tests.transforms.feed.worker.support import TrackerView, Watermark
from transforms.dead_letter import DeadLetter
from transforms.feed.request import FeedSettings
from transforms.feed.worker.range import FeedRange, FeedRangeCoder
from transforms.feed.worker.read import read_bundle
from transforms.feed.worker.sessions import PROCESS, WorkerFeed
from transforms.secret import EnvSecret

KEY = "FEED_KEY"


@dataclass
class Done:
    """What a bundle gave; `left` is None when the range was read to its end."""

    ids: list[str]
    causes: list[str]
    left: FeedRange | None
    delay: float


class SdkProcess:
    """A context manager; ends with SIGKILL."""

    def __init__(self, url: str, key: str) -> None:
        command = [sys.executable, "-m", "tests.integration.sdk_process", url]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, KEY: key}
        )

    def bundle(self, wanted: FeedRange) -> Done:
        """Have it run one bundle."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(FeedRangeCoder().encode(wanted).hex() + "\n")
        self._process.stdin.flush()
        done = json.loads(self._process.stdout.readline())
        left = FeedRangeCoder().decode(bytes.fromhex(done["left"])) if done["left"] else None
        return Done(done["ids"], done["causes"], left, done["delay"])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> SdkProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def run_bundle(feed: WorkerFeed, wanted: FeedRange) -> dict[str, object]:
    tracker, watermark = TrackerView(wanted), Watermark()
    outputs = list(read_bundle(PROCESS, feed, tracker, watermark))
    tracker.tracker.check_done()
    letters = [one for one in outputs if isinstance(one, DeadLetter)]
    ids = [event.id for one in outputs if not isinstance(one, DeadLetter) for event in one.events]
    left = FeedRangeCoder().encode(tracker.residual).hex() if tracker.residual else ""
    return {"ids": ids, "causes": [letter.cause for letter in letters], "left": left, "delay": tracker.delay}


def main() -> None:
    feed = WorkerFeed(FeedSettings(sys.argv[1], EnvSecret(KEY)), "reader", seek_seconds=1.0, idle_seconds=0.1)
    for line in sys.stdin:
        wanted = FeedRangeCoder().decode(bytes.fromhex(line.strip()))
        print(json.dumps(run_bundle(feed, wanted)), flush=True)


if __name__ == "__main__":
    main()
