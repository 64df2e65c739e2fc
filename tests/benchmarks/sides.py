"""How each side is started: the same feed, destinations, batch size and age for all."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """What a side is asked to do: every event to the HEC behind each port. `max_age` in seconds."""

    feed_port: int
    hec_ports: Sequence[int]
    state_dir: str
    max_events: int
    max_age: float = 0.2
    compression: str = "none"
    transport: str = "sse"


Command = Callable[[Task], list[str]]


def by_hand(task: Task) -> list[str]:
    """The yardstick's command line."""
    return [sys.executable, "-m", "tests.benchmarks.by_hand", *_in_order(task)]


def by_hand_shared(task: Task) -> list[str]:
    """The second yardstick's command line."""
    return [sys.executable, "-m", "tests.benchmarks.by_hand_shared", *_in_order(task)]


def node_package(directory: Path) -> Command | None:
    """The command line of the service's own `@grantex/destinations`, built in `directory`; None without Node
    or the package."""
    node, package = shutil.which("node"), directory / "dist" / "index.js"
    if node is None or not package.exists():
        return None
    return functools.partial(_node, node, package)


def _node(node: str, package: Path, task: Task) -> list[str]:
    return [
        node,
        str(Path(__file__).with_name("node_package.mjs")),
        str(package.absolute()),
        *_in_order(task),
    ]


def _in_order(task: Task) -> list[str]:
    """The feed's URL, events of a batch, seconds that they wait, the HECs' URLs."""
    feed, *hecs = (f"http://127.0.0.1:{port}" for port in (task.feed_port, *task.hec_ports))
    return [feed, str(task.max_events), str(task.max_age), *hecs]


def ours(task: Task) -> list[str]:
    """The job's command line. Destinations after the first are of the same class under other names, each
    with its lane and cursor: both sides send the same requests to the same servers."""
    first, *others = task.hec_ports
    return [
        *job(task.feed_port, task.state_dir),
        f"--splunk_hec_url=http://127.0.0.1:{first}",
        "--splunk_hec_token=env:BENCH_HEC_TOKEN",
        f"--splunk_max_events={task.max_events}",
        f"--splunk_max_age={task.max_age}",
        f"--http_compression={task.compression}",
        f"--feed_transport={task.transport}",
        *(another(task, number, port) for number, port in enumerate(others, 2)),
        "--status_port=0",
    ]


def job(feed_port: int, state_dir: str) -> list[str]:
    """What every command line of the job begins with."""
    return [
        sys.executable,
        "-m",
        "pipelines.stream",
        f"--feed_url=http://127.0.0.1:{feed_port}",
        "--feed_api_key=env:BENCH_FEED_KEY",
        "--feed_connections=1",  # as many as the other sides have
        f"--state_dir={state_dir}",
        "--log_level=WARNING",
    ]


def another(task: Task, number: int, port: int) -> str:
    """The flag for one more HEC."""
    options = {
        "name": f"splunk_{number}",
        "url": f"http://127.0.0.1:{port}",
        "token": "env:BENCH_HEC_TOKEN",
        "max_events": task.max_events,
        "max_age": task.max_age,
        "compression": task.compression,
    }
    query = "&".join(f"{key}={value}" for key, value in options.items())
    return f"--custom_destination=transforms.write.splunk.destination:Splunk?{query}"
