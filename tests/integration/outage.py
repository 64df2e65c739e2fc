"""`make outage-test`: destinations that hang or refuse under load, and what the others notice of it."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from tests.integration.job import Job, World, world
from tests.servers.landing import How, Landing
from tests.servers.six import real_servers, six

SAMPLE_EVERY = 0.25  # seconds
# Seconds an event may wait for others: the defaults, but for archives, whose five minutes would hide all.
MAX_AGES = {"files": 5.0, "s3": 5.0, "bigquery": 5.0, "splunk": 2.0, "datadog": 2.0, "kafka": 0.2}
DELAY_LIMIT = 1.0  # seconds beyond max_age
MEMORY_LIMIT = 300.0  # MB resident
BACK, UP_TO_DATE, SETTLED = 60.0, 180.0, 120.0  # seconds; waited out only by what fails


@dataclass(frozen=True)
class Away:
    """One outage: "hang:splunk"."""

    how: How
    name: str

    @classmethod
    def parse(cls, text: str) -> Away:
        """Raises ValueError."""
        how, _, name = text.partition(":")
        for known in get_args(How):
            if how == known and name in MAX_AGES:
                return cls(known, name)
        raise ValueError(text)

    def __str__(self) -> str:
        return f"{self.name} {self.how}s"


@dataclass
class Spell:
    """A part of the run.

    delays: by destination, seconds of lag beyond max_age, of those that are not away; memory: MB resident;
    pending, circuit: of the one that is away.
    """

    title: str
    delays: dict[str, list[float]] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    circuit: list[float] = field(default_factory=list)
    noticed: float = 0.0  # seconds from the return until events went through again
    recovery: float = 0.0  # seconds from then until it was up to date

    @property
    def worst(self) -> float:
        return max(max(each) for each in self.delays.values())

    def __str__(self) -> str:
        lags = (
            f"{name} {statistics.median(delays):.2f}/{max(delays):.2f}"
            for name, delays in self.delays.items()
        )
        every = max(1, len(self.memory) // 8)
        lines = [
            f"{self.title}:",
            f"  lag beyond max_age, median/worst s: {', '.join(lags)}",
            f"  MB resident: {' '.join(f'{mb:.0f}' for mb in self.memory[::every])}",
        ]
        if self.pending:
            lines.append(
                f"  {max(self.pending):,.0f} events waited for it; {self.noticed:.1f} s after its return "
                f"they went through, {self.recovery:.1f} s later all had arrived"
            )
        return "\n".join(lines)


@dataclass
class Outages:
    """What was seen, and what was found at the end."""

    spells: list[Spell]
    published: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)  # that each id is there once

    @property
    def during(self) -> list[Spell]:
        return [spell for spell in self.spells if spell.pending]

    @property
    def worst(self) -> float:
        return max(spell.worst for spell in self.spells)

    @property
    def memory(self) -> float:
        return max(max(spell.memory) for spell in self.spells)

    def __str__(self) -> str:
        return "\n".join(map(str, self.spells)) + (
            f"\n{self.published:,} events published; lost {self.lost}; repeated {self.repeated}\n"
            f"worst lag beyond max_age {self.worst:.2f} s, most resident {self.memory:.0f} MB"
        )


def run(
    around: World,
    landings: Sequence[Landing],
    aways: Sequence[Away],
    seconds: float,
    rate: float,
    warm_up: float,
    ages: Mapping[str, float] = MAX_AGES,
) -> Outages:
    """Publish `rate` events a second throughout; each of `aways` in turn takes `seconds`."""
    around.deliver_to(landings)
    names = [one.name for one in landings]
    by_name = {one.name: one for one in landings}
    with around.live_job(**{f"{name}_max_age": ages[name] for name in names}) as job:
        with around.feed.publishing(rate):
            for name in names:
                job.wait_until(lambda: _delivered(job, name) > 0, f"{name} has events")  # noqa: B023
            outages = Outages([watch(job, "before", names, ages, warm_up)])
            for away in aways:
                others = [name for name in names if name != away.name]
                with by_name[away.name].outages[away.how]():
                    spell = watch(job, str(away), others, ages, seconds, away.name)
                _return(job, spell, away.name, rate, ages[away.name])
                outages.spells.append(spell)
            outages.spells.append(watch(job, "after", names, ages, warm_up))
        job.wait_until_settled(*names, timeout=SETTLED)
        assert job.drain() == 0
    _count(around, landings, outages)
    return outages


def watch(
    job: Job, title: str, names: Sequence[str], ages: Mapping[str, float], seconds: float, away: str = ""
) -> Spell:
    """Look at the job every quarter of a second; at `names` and, when it has a name, at what is `away`."""
    spell, pause, until = (
        Spell(title, {name: [] for name in names}),
        threading.Event(),
        time.monotonic() + seconds,
    )
    while time.monotonic() < until:
        metrics = job.metrics()
        for name, delays in spell.delays.items():
            delays.append(max(0.0, metrics["grantex_delivery_lag_seconds", name] - ages[name]))
        if away:
            spell.pending.append(metrics["grantex_events_pending", away])
            spell.circuit.append(metrics["grantex_circuit_open", away])
        spell.memory.append(job.memory())
        pause.wait(SAMPLE_EVERY)
    return spell


def _return(job: Job, spell: Spell, name: str, rate: float, age: float) -> None:
    """Wait until what was away is up to date: it has all but what may wait at this rate, and nothing waits
    for long any more (one request that hung may answer after all the others)."""

    def up_to_date() -> bool:
        metrics = job.metrics()
        few = metrics["grantex_events_pending", name] <= rate * (age + 1)
        return few and metrics["grantex_delivery_lag_seconds", name] <= age + 1

    back, count = time.monotonic(), _delivered(job, name)
    job.wait_until(lambda: _delivered(job, name) > count, "events go through again", BACK)
    first = time.monotonic()
    job.wait_until(up_to_date, "it is up to date", UP_TO_DATE)
    spell.noticed, spell.recovery = first - back, time.monotonic() - first


def _delivered(job: Job, name: str) -> float:
    return job.metric("grantex_events_delivered_total", name)


def _count(around: World, landings: Sequence[Landing], outages: Outages) -> None:
    published = around.feed.sent_ids
    outages.published = len(published)
    for one in landings:
        ids = Counter(event_id for event_id, _ in one.read())
        outages.lost[one.name] = len(published - ids.keys())
        outages.repeated[one.name] = ids.total() - len(ids)
        if one.once and outages.repeated[one.name]:
            outages.broken.append(one.name)


def _faults(outages: Outages) -> Iterator[str]:
    if any(outages.lost.values()):
        yield "events are lost"
    if outages.broken:
        yield f"twice where each id is once: {', '.join(outages.broken)}"
    if outages.worst > DELAY_LIMIT:
        yield f"a lag of more than {DELAY_LIMIT:.0f} s beyond max_age"
    if outages.memory > MEMORY_LIMIT:
        yield f"more than {MEMORY_LIMIT:.0f} MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when anything was lost, twice where it must be once, late at the others, or too big."""
    parser = argparse.ArgumentParser(prog="tests.integration.outage", description=__doc__)
    parser.add_argument(
        "--away",
        type=Away.parse,
        action="append",
        metavar="hang|refuse:NAME",
        help="repeatable (hang:splunk, refuse:datadog)",
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1500.0, help="events a second")
    given = parser.parse_args(arguments)
    aways = given.away or [Away("hang", "splunk"), Away("refuse", "datadog")]
    with (
        tempfile.TemporaryDirectory(prefix="grantex-outage-") as directory,
        world(Path(directory)) as around,
        real_servers(around.place) as servers,
        six(servers, around.splunk, around.out, "outage") as landings,
    ):
        outages = run(around, landings, aways, given.seconds, given.rate, warm_up=15.0)
    print(f"{', '.join(map(str, aways))} for {given.seconds:.0f} s at {given.rate:,.0f} events/s\n{outages}")
    faults = list(_faults(outages))
    print(f"FAILED: {'; '.join(faults)}" if faults else "nothing lost, and the others noticed nothing")
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as error:
        sys.exit(f"a server cannot be had here: {error.msg}")
