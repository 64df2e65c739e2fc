"""The service drops events silently while streams stay open: the continuous proof names each, and no other.

Time is simulated; the ledger is read over HTTP from the practice service, a journal on disk takes the events.

    python -m tests.integration.silent_drops --minutes=60 --rate=50 --drops=300
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipelines.local.proof import LOOK_EVERY, ContinuousProof
from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.feed_stream import prepare
from pipelines.practice.ledger import Ledger
from tests.transforms.write.manual_clock import PassingClock
from transforms.event_types import KNOWN
from transforms.feed.journal import Journal
from transforms.feed.request import FeedSettings
from transforms.parse import parse_frames
from transforms.secret import LiteralSecret

LATEST = 50  # seconds that an event is on its way at most


@dataclass
class Result:
    """What was dropped and what was named: ids with the simulated time of either."""

    dropped: dict[str, float] = field(default_factory=dict)
    named: dict[str, float] = field(default_factory=dict)
    times_named: Counter[str] = field(default_factory=Counter)
    events: int = 0
    requests: int = 0
    walks: int = 0
    missing_total: int = 0
    went_back: bool = False  # the proof's end, ever

    @property
    def slowest(self) -> float:
        """Seconds from an event's publication until it was named, at most."""
        return max(
            (self.named[each] - at for each, at in self.dropped.items() if each in self.named), default=0.0
        )

    @property
    def is_right(self) -> bool:
        """Whether exactly the dropped ones were named, each once and within two minutes."""
        return (
            self.dropped.keys() == self.named.keys()
            and set(self.times_named.values()) <= {1}
            and self.missing_total == len(self.dropped)
            and self.slowest <= 120.0
            and not self.went_back
        )


class Simulation:
    """`seconds` of `rate` events, of which `drops` reach no stream, alone and in bursts; the process ends and
    begins again `restarts` times; an event in a hundred is late by up to LATEST seconds."""

    def __init__(
        self, directory: Path, seconds: int, rate: int, drops: int, restarts: int = 3, seed: int = 1
    ) -> None:
        self.seconds, self.rate, self.directory, self.seed = seconds, rate, directory, seed
        self.clock, self.dice, self.result = PassingClock(), random.Random(seed), Result()
        self.drops_at: Counter[int] = Counter()
        while drops:
            burst = min(drops, self.dice.choice((1, 1, 1, 5, 20)))
            self.drops_at[self.dice.randrange(60, max(61, seconds - 130))] += burst
            drops -= burst
        self.restarts_at = set(self.dice.sample(range(60, seconds), restarts))
        self.late: defaultdict[int, list[bytes]] = defaultdict(list)
        self.proven = 0.0

    def run(self) -> Result:
        feed = PracticeFeed(ledger=Ledger(clock=self.clock), keep_ids=False)
        with feed, contextlib.ExitStack() as process:
            feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", sorted(KNOWN))
            journal, proof = self._start(process, feed)
            next_walk = LOOK_EVERY
            for second in range(self.seconds):
                if second in self.restarts_at:
                    process.close()
                    journal, proof = self._start(process, feed)
                    next_walk = second + LOOK_EVERY
                self._publish(feed, journal, second)
                self.clock.advance(1.0)
                if second + 1 >= next_walk:
                    proof.walk()
                    self._look(journal)
                    next_walk = second + 1 + LOOK_EVERY
            self.result.missing_total = journal.proof.missing
        self.result.requests = feed.request_count
        return self.result

    def _start(self, process: contextlib.ExitStack, feed: PracticeFeed) -> tuple[Journal, ContinuousProof]:
        journal = Journal(self.directory, feed_url="https://feed.test", clock=self.clock)
        process.enter_context(contextlib.closing(journal))
        settings = FeedSettings(feed.url, LiteralSecret(PRACTICE_KEY))
        return journal, ContinuousProof(settings, "auto", journal, self.clock.now, self.clock)

    def _publish(self, feed: PracticeFeed, journal: Journal, second: int) -> None:
        now = self.clock.now()
        events = list(islice(generate(self.seed * 1_000_000 + second, now=now), self.rate))
        feed.ledger.drop(self.drops_at[second])
        sent = feed.ledger.published(prepare(events))
        for event_id in feed.ledger.dropped[len(self.result.dropped) :]:
            self.result.dropped[event_id] = now
        self.result.events += len(events)
        for raw in sent.events:
            is_late = self.dice.random() < 0.01
            self.late[second + self.dice.randrange(LATEST) if is_late else second].append(raw)
        taken, _ = parse_frames(self.late.pop(second, ()), now)
        journal.append(taken, [])

    def _look(self, journal: Journal) -> None:
        self.result.walks += 1
        self.result.went_back |= journal.proof.until < self.proven
        self.proven = journal.proof.until
        while letters := journal.dead_letters():
            for _, letter in letters:
                if letter.cause.startswith("missing"):
                    self.result.named.setdefault(letter.event_id, self.clock.now())
                    self.result.times_named[letter.event_id] += 1
                    assert json.loads(letter.raw)["event_id"] == letter.event_id
            journal.drop_dead_letters(letters[-1][0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=int, default=50, help="events a second")
    parser.add_argument("--drops", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("grantex").setLevel(logging.CRITICAL)
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as directory:
        result = Simulation(
            Path(directory), given.minutes * 60, given.rate, given.drops, seed=given.seed
        ).run()
    false = result.named.keys() - result.dropped.keys()
    print(
        f"{result.events:,} events in {given.minutes} minutes, {len(result.dropped)} dropped silently; "
        f"{len(result.named)} named, {len(false)} of them falsely, after {result.slowest:.0f} s at most; "
        f"{result.walks} walks, {result.requests:,} requests; took {time.monotonic() - began:.0f} s, "
        f"{time.process_time() - cpu:.0f} s of CPU"
    )
    return 0 if result.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
