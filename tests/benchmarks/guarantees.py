"""What each guarantee costs: the job with one of them at a time, under the same steady load.

Receipts, the second connection, the continuous proof and the standby, each beside the job with none of them.
Its service is a process of its own; events go to files, which cost the least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.ledger import Ledger
from tests.benchmarks.measure import BenchmarkError
from tests.benchmarks.processes import ROOT, Side, running
from tests.integration.job import free_port, get
from transforms.event_types import KNOWN

RATE = 4_000  # events a second
GIVE_UP = 180.0  # seconds
POLL, IDLE = 0.5, 10.0  # seconds
NOTHING = {"receipt_retention": "0", "feed_connections": "1"}
PAIR = {"standby": "true"}
PROVEN = {"ledger_webhook": "auto"}
CASES = {
    "none of them": NOTHING,
    "receipts": {**NOTHING, "receipt_retention": "86400"},
    "second connection": {**NOTHING, "feed_connections": "2"},
    "continuous proof": {**NOTHING, **PROVEN},
    "standby": {**NOTHING, **PAIR},
    "all of them": {**PROVEN, **PAIR},
}


@dataclass(frozen=True)
class Cost:
    """CPU seconds a million events and MB at most of the job and, with one, of its standby; bytes an event of
    all that is left in the state directory."""

    cpu: float
    memory: float
    disk: float
    standby: float = 0.0
    standby_memory: float = 0.0


def costs(arguments: argparse.Namespace) -> None:
    """Every case in turn, `arguments.runs` times."""
    if arguments.subject != "ours":
        return
    runs: dict[str, list[Cost]] = {name: [] for name in CASES}
    for _ in range(arguments.runs):
        for name, flags in CASES.items():
            runs[name].append(cost(flags, _events(arguments, flags)))
    title = f"{_events(arguments, NOTHING)} events at {RATE} a second to files, median of {arguments.runs}"
    print(f"\nWhat each guarantee costs: {title}")
    print("  disk: bytes an event that are left in the state directory; CPU: seconds a million events;")
    print(f"  the proof asks politely, for 100 a request, so {_events(arguments, PROVEN)} events with it")
    print(f"  {'':18}{'CPU':>8}{'beyond':>8}{'MB':>6}{'disk':>7}{'  standby: CPU':>16}{'MB':>6}")
    least = _median(runs["none of them"]).cpu
    for name, each in runs.items():
        one = _median(each)
        beside = f"{one.standby:16.1f}{one.standby_memory:6.0f}" if one.standby_memory else ""
        print(
            f"  {name:18}{one.cpu:8.1f}{one.cpu - least:+8.1f}{one.memory:6.0f}{one.disk:7.1f}{beside}",
            flush=True,
        )


def _events(arguments: argparse.Namespace, flags: dict[str, str]) -> int:
    events: int = arguments.events
    return max(events // 20, 10_000) if "ledger_webhook" in flags else events // 2


def _median(runs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(figures) for figures in zip(*map(astuple, runs), strict=True)))


def cost(flags: dict[str, str], events: int) -> Cost:
    """One run."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(_service(events))
        url = json.loads(_line(service))["url"]
        port = free_port()
        job = _start(stack, url, place, port, flags)
        beside = _start(stack, url, place, free_port(), flags) if "standby" in flags else None
        sides = [side for side in (job, beside) if side]
        before, began = [side.cpu() for side in sides], time.monotonic()
        assert service.stdin is not None
        service.stdin.write("publish\n")
        service.stdin.flush()
        last = float(_line(service))
        _wait(job, lambda: _is_done(port, events, last, proof="ledger_webhook" in flags), "It has not all")
        took, spent = time.monotonic() - began, [side.cpu() for side in sides]
        idle = _idle(sides, port)
        cpu, *others = (
            (used - was - each * took) / events * 1e6
            for used, was, each in zip(spent, before, idle, strict=True)
        )
        return Cost(
            cpu,
            job.memory("VmHWM"),
            sum(each.stat().st_size for each in (place / "state").rglob("*") if each.is_file()) / events,
            *others,
            *([beside.memory("VmHWM")] if beside else []),
        )


def _idle(sides: Sequence[Side], port: int) -> list[float]:
    """Share of a core that each takes when nothing happens but our looking, which a run is not charged."""
    before = [side.cpu() for side in sides]
    for _ in range(int(IDLE / POLL)):
        get(port, "/status.json")
        time.sleep(POLL)
    return [(side.cpu() - was) / IDLE for side, was in zip(sides, before, strict=True)]


def _start(stack: contextlib.ExitStack, url: str, place: Path, port: int, flags: dict[str, str]) -> Side:
    command = [
        *(sys.executable, "-m", "pipelines.stream", f"--feed_url={url}", "--feed_api_key=env:KEY"),
        *(f"--state_dir={place}/state", f"--files_dir={place}/out", f"--status_port={port}"),
        *("--log_level=WARNING", "--files_max_events=1000", "--files_max_age=1"),
        *(f"--{name}={value}" for name, value in flags.items()),
    ]
    side = stack.enter_context(running(command, {"KEY": PRACTICE_KEY}))
    _wait(side, lambda: get(port, "/readyz")[0] == 200, "It was not ready")
    return side


def _wait(side: Side, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + GIVE_UP
    while not condition():
        if not side.running or time.monotonic() > deadline:
            raise BenchmarkError(side.failure(what))
        time.sleep(POLL)


def _is_done(port: int, events: int, last: float, *, proof: bool) -> bool:
    """Everything is delivered and, with a proof, accounted for up to the last event."""
    status: dict[str, Any] = json.loads(get(port, "/status.json")[1])
    (files,) = status["destinations"]
    if files["books"]["delivered"] < events:
        return False
    return not proof or (status["proof"]["until"] or 0.0) >= last


@contextlib.contextmanager
def _service(events: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.benchmarks.guarantees", str(events)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(service: subprocess.Popen[str]) -> str:
    assert service.stdout is not None
    return service.stdout.readline()


def serve(events: int) -> None:
    """The service: says its URL, publishes when it is told to, and says when the last event was published."""
    ledger = Ledger()
    ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN))
    with PracticeFeed(ledger=ledger, keep_ids=False) as feed:
        print(json.dumps({"url": feed.url}), flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        source = generate()
        for number in range(0, events, RATE // 20):
            feed.publish_many(islice(source, RATE // 20))
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        print(time.time(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
