"""How each side is started: the same feed, destination, batch size and age for both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What a side is asked to do. `max_age` in seconds."""

    feed_port: int
    hec_port: int
    state_dir: str
    max_events: int
    max_age: float = 0.2
    compression: str = "none"


Command = Callable[[Task], list[str]]


def by_hand(task: Task) -> list[str]:
    """The yardstick's command line."""
    urls = [f"http://127.0.0.1:{port}" for port in (task.feed_port, task.hec_port)]
    figures = [str(task.max_events), str(task.max_age)]
    return [sys.executable, "-m", "tests.benchmarks.by_hand", urls[0], *figures, urls[1]]


def ours(task: Task) -> list[str]:
    """The job's command line."""
    return [
        sys.executable,
        "-m",
        "pipelines.stream",
        f"--feed_url=http://127.0.0.1:{task.feed_port}",
        "--feed_api_key=env:BENCH_FEED_KEY",
        f"--splunk_hec_url=http://127.0.0.1:{task.hec_port}",
        "--splunk_hec_token=env:BENCH_HEC_TOKEN",
        f"--splunk_max_events={task.max_events}",
        f"--splunk_max_age={task.max_age}",
        f"--http_compression={task.compression}",
        f"--state_dir={task.state_dir}",
        "--status_port=0",
        "--log_level=WARNING",
    ]
