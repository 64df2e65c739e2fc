"""kill -9 at random moments under load, then every event counted: `python -m tests.integration.kill_test`."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.evidence import WITNESS, accepted, call_witness, lines_in_files
from tests.integration.job import Job, World, world
from transforms.dead_letter import read_dead_letters

DESTINATIONS = ("files", "splunk")
# Small batches, so that a kill meets many of them in every state.
PACE = {"files_max_events": 400, "files_max_age": 0.5, "splunk_max_events": 200, "splunk_max_age": 0.2}
LONGEST_LIFE = 3.0  # seconds from a start's open stream to its kill
KILLED_WHILE_STARTING = 0.15  # share of the kills
DRAIN = 60.0


@dataclass
class Tally:
    """What was found after the last drain. `holes`: events missing between others of the same stream."""

    kills: int
    published: int
    accepted: int = 0
    gaps: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    invented: dict[str, int] = field(default_factory=dict)
    holes: int = 0
    drain_seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing twice in files, nothing made up."""
        wrong = [*self.lost.values(), *self.invented.values(), self.repeated["files"], self.holes]
        return self.accepted > 0 and not any(wrong)

    def table(self) -> str:
        """For a person."""
        lines = [
            f"{self.kills} x kill -9; {self.published:,} events published, {self.accepted:,} accepted by the "
            f"journal, {self.gaps} gaps on record, last drain {self.drain_seconds:.1f} s",
            f"{'':10}{'delivered':>12}{'repeated':>12}{'lost':>8}{'invented':>10}",
        ]
        for name in DESTINATIONS:
            numbers = self.delivered[name], self.repeated[name], self.lost[name], self.invented[name]
            lines.append("{:10}{:>12,}{:>12,}{:>8,}{:>10,}".format(name, *numbers))
        lines.append(f"holes in what was taken of each stream: {self.holes}")
        return "\n".join(lines)


def run(around: World, kills: int, rate: float, dice: random.Random) -> Tally:
    """Kill the job `kills` times while `rate` events a second are published, let the last start drain, and
    count. Raises AssertionError when it does not start, or does not drain cleanly."""
    call_witness(around.state, around.feed.url)
    with around.feed.publishing(rate):
        for _ in range(kills):
            _live_and_die(around, dice)
        last = around.popen(around.flags(**PACE))
        try:
            _wait_for_stream(around, last)
            time.sleep(1.0)  # it works on while the drain of what was left is under way
        except BaseException:
            _end(last)
            raise
    since = time.monotonic()
    try:
        last.wait_until_settled(*DESTINATIONS, timeout=DRAIN)
        code = last.drain()
        assert code == 0, f"exit code {code} instead of 0; its log:\n{last.log}"
    finally:
        _end(last)
    tally = count(around, kills)
    tally.drain_seconds = time.monotonic() - since
    return tally


def count(around: World, kills: int) -> Tally:
    """Compare what the journal accepted with what arrived where."""
    taken = {event.id: event.raw for event in accepted(around.state, around.feed.url)}
    published = {event_id for stream in around.feed.streams for event_id in stream.sent_ids}
    tally = Tally(kills, len(published), len(taken))
    tally.gaps = sum(1 for one in read_dead_letters(around.dead_letters) if one.cause.startswith("feed_gap"))
    arrived = {
        "files": Counter(lines_in_files(around.out)),
        "splunk": Counter(bytes(one.event) for one in around.splunk.events),
    }
    raws = set(taken.values())
    for name, lines in arrived.items():
        tally.delivered[name] = len(lines)
        tally.repeated[name] = lines.total() - len(lines)
        tally.lost[name] = len(raws - lines.keys())
        tally.invented[name] = len(lines.keys() - raws)
    for stream in around.feed.streams:
        kept = [event_id in taken for event_id in stream.sent_ids]
        tally.holes += len(kept[: sum(kept)]) - sum(kept[: sum(kept)])
    return tally


def _live_and_die(around: World, dice: random.Random) -> None:
    job = around.popen(around.flags(**PACE))
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
    """Returns 1 after any loss, any repeat in files, any event that nobody sent."""
    parser = argparse.ArgumentParser(prog="tests.integration.kill_test", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1500.0, help="events a second")
    parser.add_argument("--seed", type=int, help="the same moments again")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    print(
        f"kill -9 of {DESTINATIONS} at {given.rate:,.0f} events/s, --seed={seed}, {WITNESS} keeps the proof"
    )
    with (
        tempfile.TemporaryDirectory(prefix="grantex-kill-test-") as directory,
        world(Path(directory)) as around,
    ):
        tally = run(around, given.kills, given.rate, random.Random(seed))
    print(tally.table())
    print("nothing lost, nothing twice in files" if tally.sound else "FAILED")
    return 0 if tally.sound else 1


if __name__ == "__main__":
    sys.exit(main())
