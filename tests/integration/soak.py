"""`make soak`: hours of steady events, six destinations, small outages at random; does anything grow?

The pair of processes, the outages and the reckoning are torture.py's. What is drawn: memory, descriptors,
threads, the write-ahead log, receipts, lag; the time in which ids and receipts fill up is left out of the
verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.flags.rules import LEDGER_NEEDS
from tests.integration.crew import Life
from tests.integration.job import World, world
from tests.integration.outage import MAX_AGES
from tests.integration.picture import Panel, svg
from tests.integration.reckoning import Reckoning
from tests.integration.torture import Torment, at_random, run
from tests.integration.trend import HOUR, Trend, trend
from tests.servers.landing import Landing
from tests.servers.six import real_servers, six

WEIGHTS = {"destination away": 5, "cut a stream": 1}
PAUSE = (10.0, 60.0)  # seconds between two of them
SAMPLE_EVERY = 5.0  # seconds
KEPT = 1 / 6  # of the run: for so long ids and receipts are kept, so that they stop growing within it
WARM_UP = 1 / 3  # of the run; at least until the first of them are let go
MB = 1024 * 1024
DELIVERS, STANDS_BY, WORST = "delivers", "stands by", "worst"


@dataclass(frozen=True)
class Measured:
    """What a panel shows. least: a rise within the run that is less than this is called level."""

    title: str
    unit: str
    least: float


MEASURED = {
    "memory": Measured("Resident memory", "MB", 4.0),
    "descriptors": Measured("Open descriptors", "", 2.0),
    "threads": Measured("Threads", "", 2.0),
    "wal": Measured("Write-ahead log", "MB", 1.0),
    "receipts": Measured("Receipts kept", "MB", 0.3),
    "lag": Measured("Lag of the slowest destination", "s", 1.0),
}


@dataclass
class Samples:
    """What was seen: `lines` by measure and by whose it is; `away`: from when to when a destination was.

    Times are seconds since the first sample.
    """

    state: Path
    seconds: float
    every: float = SAMPLE_EVERY
    lines: dict[str, dict[str, list[tuple[float, float]]]] = field(
        default_factory=lambda: {name: {} for name in MEASURED}
    )
    away: list[tuple[float, float]] = field(default_factory=list)
    _began: float | None = None
    _next: float = 0.0
    _is_away: bool = False

    def look(self, torment: Torment) -> None:
        """To be called again and again; looks when it is time."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        at = now - self._began
        # One that does not come back stays in `away`; its thread has ended.
        self._note_outages(at, any(thread.is_alive() for thread in list(torment.away.values())))
        if at < self._next:
            return
        self._next = at + self.every
        active, standby = torment.crew.active, torment.crew.standby
        for whose, life in ((DELIVERS, active), (STANDS_BY, standby)):
            if life is not None:
                for name, value in of_process(life).items():
                    self.add(name, whose, at, value)
        if active is None:
            return
        metrics = active.job.metrics()
        lags = [value for (name, _), value in metrics.items() if name == "grantex_delivery_lag_seconds"]
        if lags:
            self.add("lag", WORST, at, max(lags))
        for name, value in of_journal(self.state).items():
            self.add(name, DELIVERS, at, value)

    def add(self, name: str, whose: str, at: float, value: float) -> None:
        self.lines[name].setdefault(whose, []).append((at, value))

    def _note_outages(self, at: float, is_away: bool) -> None:
        if is_away:
            since = self.away.pop()[0] if self._is_away else at
            self.away.append((since, at))
        self._is_away = is_away

    @property
    def kept(self) -> float:
        """Seconds for which ids and receipts are kept."""
        return max(LEDGER_NEEDS, self.seconds * KEPT)

    @property
    def warm(self) -> float:
        """When the warm-up is over."""
        return max(self.seconds * WARM_UP, 1.2 * self.kept)

    def trends(self) -> dict[tuple[str, str], Trend]:
        """Of every line, by measure and whose it is, from the end of the warm-up on."""
        found = {}
        for name, lines in self.lines.items():
            for whose, points in lines.items():
                rest = [each for each in points if each[0] >= self.warm]
                with contextlib.suppress(ValueError):
                    found[name, whose] = trend(
                        [at for at, _ in rest], [value for _, value in rest], MEASURED[name].least
                    )
        return found


def of_process(life: Life) -> Mapping[str, float]:
    """Of the operating system, which knows it better than the process; nothing when that has just ended."""
    process = Path(f"/proc/{life.job.process.pid}")
    with contextlib.suppress(OSError, AssertionError):
        threads = len(list((process / "task").iterdir()))
        descriptors = len(list((process / "fd").iterdir()))
        return {"memory": life.job.memory(), "descriptors": descriptors, "threads": threads}
    return {}


def of_journal(state: Path) -> Mapping[str, float]:
    """MB of the write-ahead log's file, and of receipts as the job itself counts them."""
    path = state / "journal.sqlite3"
    found = {}
    with contextlib.suppress(OSError):
        found["wal"] = path.with_name(path.name + "-wal").stat().st_size / MB
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        found["receipts"] = database.execute("SELECT total(size) FROM received").fetchone()[0] / MB
    return found


def soak(
    around: World,
    landings: Sequence[Landing],
    samples: Samples,
    rate: float,
    seed: int,
    *,
    pause: tuple[float, float] = PAUSE,
    wait_for_proof: bool = True,
) -> Reckoning:
    """Fills `samples`. Raises AssertionError when something never comes to pass."""
    return run(
        around,
        landings,
        at_random(samples.seconds, random.Random(seed), WEIGHTS, pause),
        rate,
        random.Random(seed + 1),
        wait_for_proof=wait_for_proof,
        watch=samples.look,
        retention=samples.kept,
        more={
            **{f"{one.name}_max_age": MAX_AGES[one.name] for one in landings},
            **{f"{one.name}_max_events": None for one in landings},
        },
    )


def verdict(name: str, trends: Mapping[tuple[str, str], Trend]) -> str:
    """In words, for a panel and the terminal."""
    unit = MEASURED[name].unit
    return "; ".join(
        f"{whose}: {found.level:.3g} {unit}".rstrip()
        + f", {'GROWS' if found.grows else 'level'} ({found.per_hour:+.2g} {unit}".rstrip()
        + f" an hour, p {found.doubt:.2g})"
        for (measure, whose), found in trends.items()
        if measure == name
    )


def growing(trends: Mapping[tuple[str, str], Trend]) -> Iterator[str]:
    """Names of what grows."""
    return (f"{MEASURED[name].title} ({whose})" for (name, whose), found in trends.items() if found.grows)


def summary(samples: Samples, found: Reckoning | None) -> str:
    """The verdict on all of it, one line."""
    trends = samples.trends()
    grows = list(growing(trends))
    words = f"grows: {', '.join(grows)}" if grows else "nothing grows"
    if not trends:
        words = "too short to tell whether anything grows"
    if found is None:
        return f"{words}; it did not come to its end"
    return f"{words}; {'every id is accounted for' if found.sound else 'NOT every id is accounted for'}"


def picture(samples: Samples, found: Reckoning | None, title: str) -> str:
    """All of it as an SVG; of what there is, when it did not come to its end."""
    trends = samples.trends()
    panels = [
        Panel(f"{of.title}{f', {of.unit}' if of.unit else ''}", samples.lines[name], verdict(name, trends))
        for name, of in MEASURED.items()
    ]
    below = [
        f"Verdict: {summary(samples, found)}. Slopes are those after {samples.warm / 60:.0f} minutes.",
        *(line for line in (found.lines if found else []) if line.startswith("feed:")),
        "Shaded: a destination hangs or refuses.",
    ]
    return svg(title, below, panels, samples.away)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when anything grows, or is not accounted for."""
    parser = argparse.ArgumentParser(prog="tests.integration.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--seed", type=int, help="the same outages again")
    parser.add_argument("--picture", type=Path, default=Path("soak.svg"))
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    with (
        tempfile.TemporaryDirectory(prefix="grantex-soak-") as directory,
        world(Path(directory)) as around,
        real_servers(around.place) as servers,
        six(servers, around.splunk, around.out, "soaked") as landings,
    ):
        print(f"--seed={seed} --hours={given.hours:g} --rate={given.rate:g}", flush=True)
        samples, found = Samples(around.state, given.hours * HOUR), None
        try:
            found = soak(around, landings, samples, given.rate, seed)
        finally:
            title = f"{given.hours:g} h at {given.rate:g} events/s to six destinations"
            given.picture.write_text(picture(samples, found, title))
    trends = samples.trends()
    for name, of in MEASURED.items():
        print(f"{of.title}: {verdict(name, trends)}")
    print(f"{found.table()}\n{summary(samples, found)}; {given.picture}; --seed={seed}")
    return 1 if list(growing(trends)) or not found.sound else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as error:
        sys.exit(f"a server cannot be had here ({error.msg})")
