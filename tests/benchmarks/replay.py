"""Archived events replayed into a practice Splunk and a real S3, killed once on the way: rate and repeats."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from pipelines.practice.events import generate
from pipelines.practice.splunk import PracticeSplunk
from tests.benchmarks.processes import running
from tests.servers import landing, seaweedfs

A_FILE = 10_000
NOON = 1_772_366_400.0


def fill(place: Path, number: int) -> None:
    """An archive of so many events, of one hour after another."""
    events = generate(1, NOON)
    for first in range(0, number, A_FILE):
        hour = place / f"dt=2026-03-01/hour={first // A_FILE % 24:02}"
        hour.mkdir(parents=True, exist_ok=True)
        lines = b"\n".join([*islice(events, min(A_FILE, number - first)), b""])
        (hour / f"{first:09}.ndjson.gz").write_bytes(gzip.compress(lines, 1))


def replayed(
    command: list[str], environment: dict[str, str], kill_when: Callable[[], bool] | None = None
) -> float:
    """Seconds that one run took; ended by kill -9 once `kill_when` holds."""
    began = time.monotonic()
    peak = 0.0
    with running(command, environment) as side:
        while side.running:
            with contextlib.suppress(ProcessLookupError):
                peak = max(peak, side.memory("VmRSS"))
            if kill_when is not None and kill_when():
                side.process.kill()
            time.sleep(0.05)
        code = side.process.wait()
        if code != (-9 if kill_when else 0):
            raise SystemExit(side.failure(f"it ended with {code}"))
        seconds = time.monotonic() - began
        cpu = os.times()
        spent = cpu.children_user + cpu.children_system
        print(f"  {seconds:.1f} s, {peak:.0f} MB at most, {spent:.1f} s of CPU so far", flush=True)
    return seconds


def count(name: str, ids: Iterable[str], number: int) -> str:
    """How many are there, and how many of them more than once."""
    held = Counter(ids)
    return f"{name}: {len(held):,} of {number:,}, {held.total() - len(held):,} repeats"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    number = parser.parse_args().events
    with tempfile.TemporaryDirectory() as directory, PracticeSplunk(keep_events=False) as splunk:
        root = Path(directory)
        (root / "s3").mkdir()
        fill(root / "archive", number)
        with seaweedfs.running(root / "s3") as server:
            for name, killed in (("whole", False), ("killed", True)):
                splunk.ids.clear()
                places = [landing.splunk(splunk), landing.s3(server, name)]
                flags = {key: value for each in places for key, value in each.flags.items()}
                environment = {key: value for each in places for key, value in each.environment.items()}
                command = [sys.executable, "-m", "pipelines.replay", f"--from=files:{root / 'archive'}"]
                command += [f"--{key}={value}" for key, value in flags.items()]
                command += [f"--state_dir={root / name}", "--log_format=text"]
                print(f"{number:,} events, {name}:")
                if killed:
                    replayed(command, environment, lambda: len(splunk.ids) > number // 2)
                seconds = replayed(command, environment)
                print(f"  {number / seconds:,.0f} events/s to each" if not killed else "  started again")
                in_s3 = (event_id for event_id, _ in places[1].read())
                print(f"  {count('splunk', splunk.ids, number)}; {count('s3', in_s3, number)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
