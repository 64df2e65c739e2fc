"""`make test-image`: the image of templates/Dockerfile.machine is built, and started as a container would be.

Its root is read-only, its user is nobody in particular, and it delivers to six destinations what the practice
service publishes. Shown are its size and what it is made of, how long it takes to the first delivery, its
memory, and how it ends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.job import ROOT, Job, World, free_port, world
from tests.integration.outage import MAX_AGES
from tests.servers.buildah import Image, built
from tests.servers.landing import Landing
from tests.servers.six import real_servers, six

FILE = ROOT / "templates" / "Dockerfile.machine"
ARCHIVE = "archive"  # in its volume
LARGEST = 10
MB = 1_000_000


def parts(root: Path) -> Iterator[tuple[int, str]]:
    """MB on disk of the largest packages, largest first."""
    [packages] = root.glob("opt/grantex-beam/lib/python3*/site-packages")
    command = ["du", "--block-size=1MB", "--summarize", *map(str, packages.iterdir())]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    sizes = sorted(
        ((int(line.split("\t")[0]), Path(line.split("\t")[1]).name) for line in listed), reverse=True
    )
    yield from sizes[:LARGEST]
    yield sum(size for size, _ in sizes[LARGEST:]), f"{len(sizes) - LARGEST} others"


def start(image: Image, around: World, landings: Sequence[Landing], state: Path) -> Job:
    """Its entry point with the flags and secrets of a test."""
    port = free_port()
    flags = around.flags(
        files_dir=ARCHIVE, state_dir=None, status_port=port, feed_connections=2,
        **{f"{one.name}_max_age": MAX_AGES[one.name] for one in landings},
    )  # fmt: skip
    environment = {**around.environment, "GRANTEX_STATUS_PORT": str(port)}
    log = around.place / "container.log"
    with log.open("wb") as file:
        command = image.command(state, environment, flags)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    return Job(process, log, port, 0)


def seen_from_outside(job: Job) -> Iterator[str]:
    """What is not as a container should be, of the process itself."""
    process = Path(f"/proc/{job.process.pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    [root] = [each for each in mounts if each[4] == "/"]
    if status["Uid"].split() != ["10001"] * 4 or status["Gid"].split() != ["10001"] * 4:
        yield f"it runs as {status['Uid']}"
    if int(status["CapEff"], 16) or status["NoNewPrivs"] != "1":
        yield "it has capabilities, or may get some"
    if "ro" not in root[5].split(","):
        yield f"its root is mounted {root[5]}"


def run(image: Image, around: World, landings: Sequence[Landing], seconds: float, rate: float) -> list[str]:
    """Start it, let it deliver for so long, end it, count. What is wrong."""
    around.deliver_to(landings)
    state = around.place / "volume"
    state.mkdir(mode=0o700)
    subprocess.run(["chown", "10001:10001", str(state)], check=True)
    names = [one.name for one in landings]
    with around.feed.publishing(rate):
        began = time.monotonic()
        job = start(image, around, landings, state)
        try:
            job.wait_until(lambda: around.splunk.events, "a first delivery", timeout=60.0)
            print(f"start to first delivery: {time.monotonic() - began:.1f} s")
            wrong = list(seen_from_outside(job))
            time.sleep(seconds)
            print(f"resident with six destinations: {job.memory():.0f} MB")
            wrong += [] if _healthy(image, job) else ["its health check fails while it delivers"]
        except BaseException:
            print(job.log)
            job.kill()
            raise
    job.wait_until_settled(*names)
    ended = time.monotonic()
    code = job.drain()
    print(f"SIGTERM to exit {code}: {time.monotonic() - ended:.1f} s")
    if code:
        wrong.append(f"it ended with {code}:\n{job.log[-3000:]}")
    if _healthy(image, job):
        wrong.append("its health check passes although it has ended")
    published = around.feed.sent_ids
    return wrong + [line for one in landings for line in _count(one, published)]


def _count(one: Landing, published: set[str]) -> Iterator[str]:
    held = Counter(event_id for event_id, _ in one.read())
    print(f"{one.name:10} {len(held):>8,} of {len(published):,}, {held.total() - len(held)} more than once")
    if held.keys() != published:
        yield f"{one.name}: {len(published - held.keys())} lost, {len(held.keys() - published)} invented"
    if one.once and held.total() > len(held):
        yield f"{one.name}: some are there twice"


def _healthy(image: Image, job: Job) -> bool:
    return image.is_healthy({"GRANTEX_STATUS_PORT": str(job.port)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="tests.integration.image_test", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    given = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="grantex-image-") as directory,
        built(ROOT, FILE) as image,
        world(Path(directory)) as around,
        real_servers(around.place) as servers,
        six(servers, around.splunk, around.place / "volume" / ARCHIVE, "contained") as landings,
    ):
        own = image.size - image.base_size
        print(f"image: {image.size / MB:.0f} MB, of which {own / MB:.0f} MB are not Debian and Python")
        for size, name in parts(image.root):
            print(f"{size:>6} MB {name}")
        wrong = run(image, around, landings, given.seconds, given.rate)
    print("\n".join(f"WRONG: {each}" for each in wrong) or "it does as a container what it does elsewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as error:
        sys.exit(f"it cannot be tried here ({error.msg})")
