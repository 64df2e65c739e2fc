"""`make standby-test`: two processes on one state directory stand by for each other under load.

They are restarted one after the other, each time with the other of two copies of the code, as in an upgrade;
then the one that delivers is ended by kill -9, again and again. In the end every event is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.gap_test import Published
from tests.integration.job import ROOT, Job, World, world
from tests.integration.kill_test import paced
from tests.servers import bigquery, landing, seaweedfs
from tests.servers.landing import DATASET, Landing
from transforms.feed.journal import Journal
from transforms.feed.journal.gaps import HEARD_EVERY

READY = 60.0  # seconds for a start, on a busy machine
END = 60.0
PORTS = 5  # tried
OTHER_VERSION = "0.0.1-upgraded"


@dataclass
class Tally:
    """seconds: for each end of the process that delivered, until the other one did. repeated, missing: by
    destination. taken: the most stream slots that were counted at once."""

    published: int
    once: frozenset[str]
    restarts: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    gaps: int = 0
    slots: int = 0

    @property
    def sound(self) -> bool:
        """Nothing is missing, nothing twice where each id is once, no gap, and not too many streams."""
        repeats = sum(self.repeated[name] for name in self.once)
        return self.published > 0 and not (self.missing.total() or repeats or self.gaps or self.slots > 5)

    def table(self) -> str:
        """For a person."""
        lines = [
            f"{self.published:,} published, {self.missing.total()} missing, {self.gaps} gaps on record, at "
            f"most {self.slots} streams at once"
        ]
        for what, seconds in (("restarts", self.restarts), ("kills", self.kills)):
            if seconds:
                middle = sorted(seconds)[len(seconds) // 2]
                lines.append(
                    f"{len(seconds)} {what}: the other delivers after {min(seconds):.2f} to "
                    f"{max(seconds):.2f} s, in the middle {middle:.2f} s"
                )
        for name in sorted(self.missing.keys() | self.repeated.keys() | self.once):
            note = "   each id once" if name in self.once else ""
            lines.append(
                f"{name:10} missing {self.missing[name]:>6,} repeated {self.repeated[name]:>6,}{note}"
            )
        return "\n".join(lines)


class Pair:
    """The process that delivers and the one that stands by for it. Ended, both, at the end of the block."""

    def __init__(self, around: World, flags: Sequence[str], codes: Sequence[Path]) -> None:
        self.around = around
        self._flags = list(flags)
        self._codes = codes
        self._number = 0
        self._jobs: list[Job] = []
        self.slots = 0

    def __enter__(self) -> Pair:
        try:
            self.active = self._start("ready")
            self.standby = self.start_standby()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for job in self._jobs:
            if job.process.poll() is None:
                job.kill()

    def start_standby(self) -> Job:
        """A process of the other version of the code, once it is ready."""
        job = self._start("standing by")
        self.slots = max(self.slots, self.around.feed.slots.taken("dev_practice"))
        return job

    def restart_standby(self) -> None:
        """As the first half of an upgrade."""
        assert self.standby.drain(END) == 0, self.standby.log
        self.standby = self.start_standby()

    def restart_active(self) -> float:
        """As the second half; returns after how many seconds the other one delivered."""
        old, self.active = self.active, self.standby
        before = delivered(old)
        began = time.monotonic()
        old.signal()
        seconds = self._until_it_delivers(before, began)
        assert old.wait(END) == 0, old.log
        self.standby = self.start_standby()
        return seconds

    def kill_active(self) -> float:
        """kill -9; returns after how many seconds the other one delivered."""
        old, self.active = self.active, self.standby
        before = delivered(old)
        began = time.monotonic()
        old.kill()
        seconds = self._until_it_delivers(before, began)
        self.standby = self.start_standby()
        return seconds

    def check_versions(self) -> None:
        """Raises AssertionError unless the two run different code."""
        jobs = self.active, self.standby
        versions = {json.loads(job.get("/status.json")[1])["version"] for job in jobs}
        assert len(versions) == 2, versions
        assert OTHER_VERSION in versions, versions

    def end(self, destinations: Sequence[str]) -> None:
        """Both drain, the one that delivers last."""
        assert self.standby.drain(END) == 0, self.standby.log
        self.active.wait_until_settled(*destinations, timeout=END)
        assert self.active.drain(END) == 0, self.active.log

    def _start(self, word: str) -> Job:
        """A process of the other version, once it says that it is `word`."""
        self._number += 1
        code = self._codes[self._number % len(self._codes)]
        for _ in range(PORTS):
            job = self.around.popen(self._flags, log=f"{self._number}.log", code=code)
            self._jobs.append(job)
            if self._is_ready(job, word):
                return job
            job.kill()
        raise AssertionError("every port that was free was taken by another program before the job had it")

    def _is_ready(self, job: Job, word: str) -> bool:
        """False when another program was faster to take its port."""
        ready = 200, f"{word}\n"
        taken = f"port {job.port} is taken"
        job.wait_until(lambda: job.get("/readyz") == ready or taken in job.log, f"it was {word}", READY)
        return taken not in job.log

    def wait_until_it_reaches_back(self) -> None:
        """What the journal says of when the feed was last heard may be five seconds old after kill -9."""

        def reaches() -> float:
            status = json.loads(self.standby.get("/status.json")[1] or "{}")
            since = (status.get("standby") or {}).get("reaches_back_to")
            return 0.0 if since is None else float(status["at"]) - float(since)

        self.standby.wait_until(lambda: reaches() > HEARD_EVERY + 1.0, "its ring reached back", READY)

    def _until_it_delivers(self, before: int, began: float) -> float:
        """`before`: how much was delivered to the quickest destination."""
        self.active.wait_until(lambda: delivered(self.active) > before, "it delivered", READY)
        return time.monotonic() - began


def delivered(job: Job) -> int:
    """To files, Splunk and so on, by the journal's books, over all processes; 0 for a standby."""
    metrics = job.metrics()
    return int(sum(value for (name, _), value in metrics.items() if name == "grantex_events_delivered_total"))


def run(
    around: World,
    landings: Sequence[Landing],
    rounds: int,
    kills: int,
    rate: float,
    *,
    in_haste: bool = False,
    seconds: float = math.inf,
) -> Tally:
    """`rounds` upgrades of both and `kills` ends of the one that delivers, at `rate` events a second.

    in_haste: only the one that delivers is upgraded each time, and it is killed before the other's ring
    reaches back beyond what the journal says for certain: then there are gaps on record, and nothing missing.
    seconds: no further round after so long.
    """
    around.deliver_to(landings)
    published = Published()
    tally = Tally(0, frozenset(one.name for one in landings if one.once))
    with Pair(around, _flags(around, landings), [ROOT, other_version(around.place)]) as pair:
        with around.feed.publishing(rate, published.events()):
            pair.active.wait_until(lambda: delivered(pair.active) > 0, "something was delivered", READY)
            until = time.monotonic() + seconds
            for number in range(rounds):
                if time.monotonic() > until:
                    break
                if not in_haste:
                    pair.restart_standby()
                tally.restarts.append(pair.restart_active())
                print(f"upgrade {number + 1}: {tally.restarts[-1]:.2f} s", flush=True)
            pair.check_versions()
            for number in range(kills):
                if time.monotonic() > until:
                    break
                if not in_haste:
                    pair.wait_until_it_reaches_back()
                tally.kills.append(pair.kill_active())
                print(f"kill {number + 1}: {tally.kills[-1]:.2f} s", flush=True)
        pair.end([one.name for one in landings])
    tally.published, tally.slots = len(published.ids), pair.slots
    for one in landings:
        held = Counter(event_id for event_id, _ in one.read())
        tally.missing[one.name] = len(set(published.ids) - held.keys())
        tally.repeated[one.name] = held.total() - len(held)
    journal = Journal(around.state, feed_url=around.feed.url)
    gaps = [] if in_haste else journal.gaps()
    for gap in gaps:
        print(f"{gap.reason}: {gap}")
    tally.gaps = len(gaps)
    journal.close()
    return tally


def other_version(place: Path) -> Path:
    """A copy of the code that says it is another version."""
    copy = place / "upgraded"
    for package in ("pipelines", "transforms"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    told = copy / "pipelines" / "local" / "status_json.py"
    text = told.read_text().replace("VERSION = _version()", f"VERSION = {OTHER_VERSION!r}")
    assert OTHER_VERSION in text
    told.write_text(text)
    return copy


def _flags(around: World, landings: Sequence[Landing]) -> list[str]:
    return around.flags(standby="true", feed_connections=2, **paced(landings))


@contextlib.contextmanager
def places(around: World, local: bool) -> Iterator[Sequence[Landing]]:
    """Files and Splunk, and unless `local` real S3 and BigQuery."""
    here = (landing.files(around.out), landing.splunk(around.splunk))
    if local:
        yield here
        return
    directory = around.place / "s3"
    directory.mkdir()
    with seaweedfs.running(directory) as s3, bigquery.running(around.place / "bqemulator.log") as emulator:
        emulator.create_dataset(DATASET)
        yield (*here, landing.s3(s3, "pair"), landing.bigquery(emulator, "pair"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 after anything missing, a repeat where each id is once, or a gap."""
    parser = argparse.ArgumentParser(prog="tests.integration.standby_test", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="upgrades of both processes")
    parser.add_argument("--kills", type=int, help="as many as rounds, unless given")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no further round after so long")
    parser.add_argument("--local", action="store_true", help="files and Splunk only: no server is fetched")
    given = parser.parse_args(arguments)
    kills = given.rounds if given.kills is None else given.kills
    with (
        tempfile.TemporaryDirectory(prefix="grantex-standby-test-") as directory,
        world(Path(directory)) as around,
        places(around, given.local) as landings,
    ):
        names = ", ".join(one.name for one in landings)
        print(
            f"{given.rounds} upgrades and {kills} x kill -9 at {given.rate:,.0f} events/s to {names}",
            flush=True,
        )
        tally = run(around, landings, given.rounds, kills, given.rate, seconds=given.seconds)
    print(tally.table())
    print("nothing missing, nothing twice where each id is once" if tally.sound else "FAILED")
    return 0 if tally.sound else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as error:
        sys.exit(f"a server cannot be had here ({error.msg}); --local needs none")
