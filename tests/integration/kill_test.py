"""`make kill-test`: kill -9 at random moments under load, then every event counted at every destination."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.evidence import WITNESS, accepted, call_witness
from tests.integration.job import Job, World, world
from tests.servers import landing
from tests.servers.landing import Landing
from tests.servers.six import real_servers, six
from transforms.write.dead_letters.directory import read_dead_letters

# Small batches, so that a kill meets many of them in every state: events, seconds.
PACE: Mapping[str, tuple[int, float]] = {
    "files": (400, 0.5),
    "s3": (400, 0.5),
    "bigquery": (200, 0.5),
    "splunk": (200, 0.2),
    "datadog": (200, 0.2),
    "kafka": (200, 0.2),
}
LONGEST_LIFE = 3.0  # seconds from a start's open stream to its kill
KILLED_WHILE_STARTING = 0.15  # share of the kills
DRAIN = 60.0


def paced(landings: Sequence[Landing]) -> dict[str, object]:
    """The flags that give each of them its pace."""
    return {
        **{f"{one.name}_max_events": PACE[one.name][0] for one in landings},
        **{f"{one.name}_max_age": PACE[one.name][1] for one in landings},
    }


@dataclass
class Found:
    """What one destination holds. lost: accepted by the journal and not there; invented: there, and not one
    of those, or not byte for byte; once: it must hold nothing twice."""

    once: bool
    delivered: int = 0
    repeated: int = 0
    lost: int = 0
    invented: int = 0

    @property
    def sound(self) -> bool:
        return not (self.lost or self.invented or (self.once and self.repeated))


@dataclass
class Tally:
    """What was found after the last drain. `holes`: events missing between others of the same stream."""

    kills: int
    published: int
    accepted: int = 0
    gaps: int = 0
    found: dict[str, Found] = field(default_factory=dict)
    holes: int = 0
    drain_seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing twice where each id must be once, nothing made up."""
        return self.accepted > 0 and not self.holes and all(one.sound for one in self.found.values())

    def table(self) -> str:
        """For a person."""
        lines = [
            f"{self.kills} x kill -9; {self.published:,} events published, {self.accepted:,} accepted by the "
            f"journal, {self.gaps} gaps on record, last drain {self.drain_seconds:.1f} s",
            f"{'':10}{'delivered':>12}{'repeated':>12}{'lost':>8}{'invented':>10}",
        ]
        for name, one in self.found.items():
            numbers = f"{one.delivered:>12,}{one.repeated:>12,}{one.lost:>8,}{one.invented:>10,}"
            lines.append(f"{name:10}{numbers}{'   each id once' if one.once else ''}")
        lines.append(f"holes in what was taken of each stream: {self.holes}")
        return "\n".join(lines)


def run(
    around: World,
    landings: Sequence[Landing],
    kills: int,
    rate: float,
    dice: random.Random,
    transports: Sequence[str] = ("sse",),
) -> Tally:
    """Kill the job `kills` times while `rate` events a second are published, let the last start drain, and
    count. Each start reads by the next of `transports`.

    Raises AssertionError when it does not start, or does not drain cleanly.
    """
    around.deliver_to(landings)
    call_witness(around.state, around.feed.url)
    ways = itertools.cycle(_flags(around, landings, transport) for transport in transports)
    with around.feed.publishing(rate):
        for _ in range(kills):
            _live_and_die(around, next(ways), dice)
        last = around.popen(next(ways))
        try:
            _wait_for_stream(around, last)
            time.sleep(1.0)  # it works on while the drain of what was left is under way
        except BaseException:
            _end(last)
            raise
    since = time.monotonic()
    try:
        last.wait_until_settled(*(one.name for one in landings), timeout=DRAIN)
        code = last.drain()
        assert code == 0, f"exit code {code} instead of 0; its log:\n{last.log}"
    finally:
        _end(last)
    drained = time.monotonic() - since
    tally = count(around, landings, kills)
    tally.drain_seconds = drained
    return tally


def _flags(around: World, landings: Sequence[Landing], transport: str) -> list[str]:
    connections = 2 if transport == "both" else 1
    return around.flags(feed_transport=transport, feed_connections=connections, **paced(landings))


def count(around: World, landings: Sequence[Landing], kills: int) -> Tally:
    """Compare what the journal accepted with what arrived where."""
    taken = {event.id: event.raw for event in accepted(around.state, around.feed.url)}
    published = around.feed.sent_ids
    tally = Tally(kills, len(published), len(taken))
    tally.gaps = sum(1 for one in read_dead_letters(around.dead_letters) if one.cause.startswith("feed_gap"))
    for one in landings:
        tally.found[one.name] = compare(one, taken)
    for stream in around.feed.streams:
        kept = [event_id in taken for event_id in stream.sent_ids]
        tally.holes += len(kept[: sum(kept)]) - sum(kept[: sum(kept)])
    return tally


def compare(one: Landing, taken: Mapping[str, bytes]) -> Found:
    """What a destination holds, against the bytes of each id that was accepted."""
    held: Counter[str] = Counter()
    found = Found(one.once)
    for event_id, raw in one.read():
        held[event_id] += 1
        found.invented += event_id not in taken or raw not in (None, taken[event_id])
    found.delivered = len(held)
    found.repeated = held.total() - len(held)
    found.lost = len(taken.keys() - held.keys())
    return found


def _live_and_die(around: World, flags: list[str], dice: random.Random) -> None:
    job = around.popen(flags)
    try:
        if dice.random() < KILLED_WHILE_STARTING:
            time.sleep(dice.uniform(0.2, 3.0))
        else:
            _wait_for_stream(around, job)
            time.sleep(dice.uniform(0.0, LONGEST_LIFE))
        assert job.process.poll() is None, f"it ended by itself:\n{job.log}"
    finally:
        _end(job)


def _wait_for_stream(around: World, job: Job) -> None:
    before = len(around.feed.streams)
    job.wait_until(lambda: len(around.feed.streams) > before, "it opened a stream")


def _end(job: Job) -> None:
    if job.process.poll() is None:
        job.process.send_signal(signal.SIGKILL)
    job.process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 after any loss, any repeat where each id must be once, any event that nobody sent."""
    parser = argparse.ArgumentParser(prog="tests.integration.kill_test", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1500.0, help="events a second")
    parser.add_argument("--seed", type=int, help="the same moments again")
    parser.add_argument("--transport", choices=("sse", "websocket", "both"), default="sse")
    parser.add_argument("--local", action="store_true", help="files and Splunk only: no server is fetched")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    with (
        tempfile.TemporaryDirectory(prefix="grantex-kill-test-") as directory,
        world(Path(directory)) as around,
        contextlib.ExitStack() as stack,
    ):
        landings: Sequence[Landing] = landing.files(around.out), landing.splunk(around.splunk)
        if not given.local:
            servers = stack.enter_context(real_servers(around.place))
            landings = stack.enter_context(six(servers, around.splunk, around.out, "killed"))
        names = ", ".join(one.name for one in landings)
        print(f"kill -9 at {given.rate:,.0f} events/s to {names}; --seed={seed}, {WITNESS} keeps the proof")
        tally = run(around, landings, given.kills, given.rate, random.Random(seed), [given.transport])
    print(tally.table())
    print("nothing lost, nothing twice where each id is once" if tally.sound else "FAILED")
    return 0 if tally.sound else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as error:
        sys.exit(f"a server cannot be had here ({error.msg}); --local needs none")
