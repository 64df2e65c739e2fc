"""A ledger of a million rows reconciled against files: time at an unlimited budget, requests, memory.

The service and the program are processes of their own.

    python -m tests.benchmarks.reconcile --rows=1000000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.ledger import Entry, Ledger
from transforms import ulid
from transforms.event import Batch, Event
from transforms.event_types import KNOWN
from transforms.parse import parse_frames
from transforms.write.archive import NO_HOUR
from transforms.write.files.destination import Files

A_SECOND = 500
PER_FILE = 10_000
LOST = 7  # of a file's events


def published(rows: int) -> Iterator[list[Event]]:
    """Events of the last while, a file's at a time, the same in each process."""
    begin = float(os.environ["BEGIN"])
    for start in range(0, rows, PER_FILE):
        some: list[Event] = []
        for second in range(start // A_SECOND, (start + PER_FILE) // A_SECOND):
            some += parse_frames(islice(generate(second, now=begin + second), A_SECOND), 0.0)[0]
        yield some


def serve(rows: int) -> None:
    """The service, until its input ends."""
    ledger = Ledger()
    webhook = ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN))
    webhook.created_at = float(os.environ["BEGIN"]) - 1
    for some in published(rows):
        webhook.rows += [Entry(each.id, each.type, ulid.seconds(ulid.pack(each.id) or b"")) for each in some]
    with PracticeFeed(ledger=ledger, keep_ids=False) as feed:
        print(json.dumps({"url": feed.url}), flush=True)
        sys.stdin.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.rows)
        return 0
    os.environ["BEGIN"] = str(int(time.time()) - given.rows // A_SECOND - 3600)
    service = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.reconcile", "--serve", f"--rows={given.rows}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert service.stdout is not None
    with tempfile.TemporaryDirectory() as directory:
        writer = Files(f"{directory}/out").open()
        for some in published(given.rows):
            writer.write(Batch(some[LOST:], partition=NO_HOUR))
        url = json.loads(service.stdout.readline())["url"]
        return measure(url, Path(directory), given.rows, service)


def measure(url: str, directory: Path, rows: int, service: subprocess.Popen[str]) -> int:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    command = [sys.executable, "-m", "pipelines.reconcile", f"--feed_url={url}"]
    command += [f"--feed_api_key={PRACTICE_KEY}", "--against=files", f"--files_dir={directory}/out"]
    command += ["--json=true", f"--missing={directory}/missing"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    expected = rows // PER_FILE * LOST
    named = len((directory / "missing").read_text().splitlines())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{found['ledger']:,} rows in {found['requests']:,} requests: {took:.0f} s, {cpu:.0f} s of CPU, "
        f"{after.ru_maxrss / 1024:.0f} MB at most; {found['missing']} missing of {expected}, {named} named"
    )
    service.communicate()
    return 0 if found["missing"] == named == expected and found["ledger"] == rows else 1


if __name__ == "__main__":
    sys.exit(main())
