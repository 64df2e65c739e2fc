"""Splunk down or hanging under load, from outside: `python -m tests.integration.outage --seconds 60`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.integration.evidence import ids_in_files
from tests.integration.job import Job, World, world

SAMPLE_EVERY = 0.25  # seconds
FILES_MAX_AGE = 1.0
How = Literal["down", "hang"]


@dataclass
class Spell:
    """A part of the run: seconds of lag of `files`, MB resident, events pending for `splunk`."""

    lags: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    circuit: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        lags = sorted(self.lags)
        return (
            f"lag of files median {lags[len(lags) // 2]:.2f} s, worst {lags[-1]:.2f} s; "
            f"resident {' '.join(f'{mb:.0f}' for mb in self.memory[:: max(1, len(self.memory) // 6)])} MB; "
            f"pending for splunk at most {max(self.pending):,.0f}"
        )


@dataclass
class Outage:
    """What was seen, and what was found at the end."""

    before: Spell
    during: dict[How, Spell]
    after: Spell
    noticed: float  # seconds from the service's return until it took events again
    recovery: float  # seconds from then until it was up to date
    published: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"before: {self.before}\n"
            + "".join(f"{how}:   {spell}\n" for how, spell in self.during.items())
            + f"after:  {self.after}\n"
            f"events went through {self.noticed:.1f} s after the return, up to date {self.recovery:.1f} s "
            f"later; {self.published:,} events published, lost {self.lost}, repeated {self.repeated}"
        )


def run(around: World, hows: Sequence[How], seconds: float, rate: float, warm_up: float) -> Outage:
    """Publish `rate` events a second throughout; Splunk is away for `seconds` in each of these ways."""
    with around.live_job(files_max_age=FILES_MAX_AGE) as job:
        with around.feed.publishing(rate):
            job.wait_until(lambda: ids_in_files(around.out), "the first file")
            outage = Outage(watch(job, warm_up), {}, Spell(), 0.0, 0.0)
            for how in hows:
                outage.during[how] = _away(around, job, how, seconds)
                _return(around, job, outage, rate)
            outage.after = watch(job, warm_up)
        job.wait_until_settled("files", "splunk", timeout=60)
        code = job.drain()
        assert code == 0, f"exit code {code}"
    published = {event_id for stream in around.feed.streams for event_id in stream.sent_ids}
    outage.published = len(published)
    for name, ids in (("files", Counter(ids_in_files(around.out))), ("splunk", Counter(around.splunk.ids))):
        outage.lost[name] = len(published - ids.keys())
        outage.repeated[name] = ids.total() - len(ids)
    return outage


def _away(around: World, job: Job, how: How, seconds: float) -> Spell:
    around.splunk.down() if how == "down" else around.splunk.hang()
    spell = watch(job, seconds)
    around.splunk.up() if how == "down" else around.splunk.release()
    return spell


def _return(around: World, job: Job, outage: Outage, rate: float) -> None:
    """Wait until Splunk is up to date: it has all but the newest second."""
    back, count = time.monotonic(), around.splunk.count
    job.wait_until(lambda: around.splunk.count > count, "events go through again", 60)
    first = time.monotonic()
    job.wait_until(lambda: job.metric("grantex_events_pending", "splunk") < rate, "it is up to date", 120)
    outage.noticed, outage.recovery = first - back, time.monotonic() - first


def watch(job: Job, seconds: float) -> Spell:
    """Look at the job every quarter of a second."""
    spell, pause, until = Spell(), threading.Event(), time.monotonic() + seconds
    while time.monotonic() < until:
        metrics = job.metrics()
        spell.lags.append(metrics["grantex_delivery_lag_seconds", "files"])
        spell.pending.append(metrics["grantex_events_pending", "splunk"])
        spell.circuit.append(metrics["grantex_circuit_open", "splunk"])
        spell.memory.append(job.memory())
        pause.wait(SAMPLE_EVERY)
    return spell


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when anything was lost, or twice in files."""
    parser = argparse.ArgumentParser(prog="tests.integration.outage", description=__doc__)
    parser.add_argument("--how", choices=("down", "hang"), default="down")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1500.0, help="events a second")
    given = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="grantex-outage-") as directory,
        world(Path(directory), keep_events=False) as around,
    ):
        outage = run(around, [given.how], given.seconds, given.rate, warm_up=15.0)
    print(f"splunk {given.how} for {given.seconds:.0f} s at {given.rate:,.0f} events/s\n{outage}")
    return 1 if any(outage.lost.values()) or outage.repeated["files"] else 0


if __name__ == "__main__":
    sys.exit(main())
