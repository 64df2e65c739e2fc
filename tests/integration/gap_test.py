"""`make gap-test`: streams are killed, frozen and cut, the job is stopped in its tracks. Every id that is
missing must lie in a recorded gap, and those must be no longer than what was missed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_KEY, PracticeFeed, Slots
from tests.integration.evidence import WITNESS, accepted, call_witness
from tests.integration.job import Job, World, world
from tests.servers.feed_proxy import FeedProxy, Link
from transforms.clock import SystemClock
from transforms.feed import reconnect
from transforms.feed.intake import Gap
from transforms.feed.journal import Journal
from transforms.feed.reader import FeedReader
from transforms.feed.request import BOTH, SSE, TRANSPORTS, FeedSettings
from transforms.feed.status import State
from transforms.secret import LiteralSecret

RATE = 300.0  # events a second
SILENCE = 3.0  # seconds without a byte after which a stream is given up, in place of 75
FAULTS = ("kill", "freeze", "cut")
LONGER = 1.10  # how much longer recorded gaps may be than the true ones
FILES_ONLY = {"splunk_hec_url": None, "splunk_hec_token": None, "splunk_max_age": None}


@dataclass
class Published:
    """Every event in the order it was published: id, when it was created in epoch seconds, its bytes."""

    ids: list[str] = field(default_factory=list)
    at: dict[str, float] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)

    def events(self) -> Iterator[bytes]:
        """Events without end, each noted as it is taken."""
        for raw in generate():
            head = json.loads(raw)
            self.at[head["id"]] = datetime.fromisoformat(head["createdAt"].replace("Z", "+00:00")).timestamp()
            self.raw[head["id"]] = raw
            self.ids.append(head["id"])
            yield raw


@dataclass(frozen=True)
class Tally:
    """outside: ids that are missing and in no gap. true, recorded: seconds. late: ids that had arrived before
    an orderly stop and were not taken. longest: seconds between two events taken, with missing ones between.
    """

    published: int
    missing: int
    outside: int
    gaps: int
    true: float
    recorded: float
    late: int = 0
    longest: float = 0.0

    @property
    def sound(self) -> bool:
        return not self.outside and not self.late

    def __str__(self) -> str:
        longer = f" ({100 * (self.recorded / self.true - 1):+.1f} %)" if self.true else ""
        return (
            f"{self.published:,} published, {self.missing:,} missing, {self.outside} outside every gap; "
            f"{self.gaps} gaps: {self.recorded:.2f} s recorded, {self.true:.2f} s true{longer}, "
            f"the longest {self.longest:.2f} s; "
            f"{self.late} had arrived before an orderly stop and were lost"
        )


def tally(published: Published, taken: Iterable[str], gaps: Sequence[Gap], late: int = 0) -> Tally:
    """Compare. What was published before the first and after the last event taken is not counted."""
    kept = set(taken)
    known = [number for number, one in enumerate(published.ids) if one in kept]
    ids = published.ids[known[0] : known[-1] + 1]
    missing = [one for one in ids if one not in kept]
    true, longest, last = 0.0, 0.0, published.at[ids[0]]
    lost = False
    for one in ids:
        if one in kept:
            blind = published.at[one] - last if lost else 0.0
            true, longest, last = true + blind, max(longest, blind), published.at[one]
        lost = one not in kept
    outside = [one for one in missing if not within(published.at[one], gaps)]
    recorded = sum((gap.until or gap.since) - gap.since for gap in gaps)
    return Tally(len(ids), len(missing), len(outside), len(gaps), true, recorded, late, longest)


def within(at: float, gaps: Sequence[Gap], slack: float = 0.0) -> bool:
    """Whether a moment lies in one of them, which may begin earlier and end later by `slack` seconds."""
    return any(gap.since - slack <= at and (gap.until is None or at <= gap.until + slack) for gap in gaps)


def torment_streams(place: Path, times: int, dice: random.Random, rate: float = RATE) -> Tally:
    """Two connections, each fault `times` times to either of them, at random moments."""
    faults = [(name, number) for name in FAULTS for number in (0, 1) for _ in range(times)]
    dice.shuffle(faults)
    healthy, reconnect.HEALTHY_AFTER = reconnect.HEALTHY_AFTER, 0.0  # so that both are mostly there
    published = Published()
    try:
        with PracticeFeed(keepalive=1.0) as feed, FeedProxy(feed) as proxy:
            feed.slots = Slots(SystemClock(), limit=10_000)
            journal = Journal(place / "streams", feed_url="https://feed.test")
            journal.cursor(WITNESS)
            settings = FeedSettings(proxy.url, LiteralSecret(PRACTICE_KEY), read_timeout=SILENCE)
            reader = FeedReader(settings, journal, connections=2)
            reader.start()
            with feed.publishing(rate, published.events()):
                _wait_until(lambda: journal.end > 0 and len(proxy.links) >= 2)
                for fault, number in faults:
                    time.sleep(dice.uniform(0.0, 0.5))
                    awake = [link for link in list(proxy.links) if not link.is_frozen]
                    if awake:
                        getattr(awake[min(number, len(awake) - 1)], fault)()
                time.sleep(SILENCE)
                end = journal.end
                _wait_until(lambda: journal.end > end + 10 and not journal.gap_open)
                _wait_until(lambda: all(not link.is_frozen for link in list(proxy.links)))
            reader.stop()
            taken = [event.id for chunk in journal.read(0, sys.maxsize) for event in chunk.events]
            gaps = journal.gaps()
            journal.close()
    finally:
        reconnect.HEALTHY_AFTER = healthy
    return tally(published, taken, gaps)


@dataclass
class Pair:
    """Two connections through a proxy, and what came of it. most_streams: that were open at once."""

    proxy: FeedProxy
    feed: PracticeFeed
    reader: FeedReader
    most_streams: int = 0
    hit: list[Link] = field(default_factory=list)  # whose end may not have been noticed yet

    def is_whole(self) -> bool:
        """Both streams are there and none is in doubt."""
        self.most_streams = max(self.most_streams, len(self.feed.open_streams))
        if any(link in self.proxy.links for link in self.hit):
            return False
        states = [status.state for status in self.reader.statuses]
        awake = [link for link in list(self.proxy.links) if not link.is_frozen]
        live = states == [State.LIVE, State.LIVE] and len(awake) == len(self.proxy.links) == 2
        return live and self._overlap()

    def _overlap(self) -> bool:
        """Each has brought what was published since the other is live: what was before it may still have been
        on its way by the older one."""
        streams = list(self.reader._coverage._streams)
        heard = min((each.heard for each in streams), default=None)
        return heard is not None and heard > max(each.live_from for each in streams)

    def suffer(self, fault: str, dice: random.Random, most_wait: float) -> None:
        """One fault on either of them, once both are there; "both": on one, and within three times the most
        wait, or at once, on the other."""
        time.sleep(dice.uniform(0.0, most_wait))
        _wait_until(self.is_whole)
        links = list(self.proxy.links)
        dice.shuffle(links)
        self.hit = links if fault == "both" else links[:1]
        if fault == "both":
            links[1].freeze()
            time.sleep(dice.choice((0.0, dice.uniform(0.0, 3.0 * most_wait))))
        getattr(links[0], "freeze" if fault == "both" else fault)()


@dataclass(frozen=True)
class PairTally:
    """alone: after faults of one stream at a time; both: after both were frozen within seconds.
    refused: attempts for which there was no slot. limit: most seconds that both may be deaf."""

    alone: Tally
    both: Tally
    most_streams: int
    refused: int
    limit: float

    @property
    def sound(self) -> bool:
        kept = not self.alone.missing and self.both.sound and self.both.longest <= self.limit
        return kept and self.most_streams <= 3 and not self.refused

    def __str__(self) -> str:
        return (
            f"one at a time: {self.alone}\nboth frozen within seconds: {self.both}\n"
            f"at most {self.most_streams} streams at once, {self.refused} refused"
        )


def torment_pair(
    place: Path,
    faults: Sequence[str],
    both: int,
    dice: random.Random,
    *,
    rate: float = 500.0,
    most_wait: float = 1.0,
    limit: float = 5.0,
    transport: str = SSE,
) -> PairTally:
    """Two connections that watch each other. faults: "cut", "kill" and "freeze", one stream at a time; then
    both are frozen within seconds of each other, so many times."""
    with PracticeFeed() as feed, FeedProxy(feed) as proxy:
        journal = Journal(place / "pair", feed_url="https://feed.test")
        journal.cursor(WITNESS)
        settings = FeedSettings(proxy.url, LiteralSecret(PRACTICE_KEY), transport=transport)
        reader = FeedReader(settings, journal, connections=2)
        pair = Pair(proxy, feed, reader)
        reader.start()
        parts = []
        for part in (faults, ["both"] * both):
            published, before = Published(), len(journal.gaps())
            first = journal.end
            with feed.publishing(rate, published.events()):
                # Who falls silent in the same moment is told by a flow that was steady before.
                _wait_until(lambda first=first: journal.end > first + 3 * rate)
                for fault in part:
                    pair.suffer(fault, dice, most_wait)
                _wait_until(pair.is_whole)
            end = len(published.ids)
            taken = [event.id for chunk in journal.read(first, sys.maxsize) for event in chunk.events]
            parts.append(tally(published, taken, journal.gaps()[before:]))
            assert end
        reader.stop()
        refused = sum(request.status == 429 for request in feed.requests)
        journal.close()
    return PairTally(parts[0], parts[1], pair.most_streams, refused, limit)


def torment_job(around: World, rounds: int, dice: random.Random, rate: float = RATE) -> Tally:
    """The job, stalled by SIGSTOP at random and then ended by SIGTERM or kill -9, `rounds` times."""
    call_witness(around.state, around.feed.url)
    published = Published()
    late: set[str] = set()
    with around.feed.publishing(rate, published.events()):
        for number in range(rounds):
            late |= _live_and_end(around, dice, orderly=number % 2 == 0)
        with around.live_job(**FILES_ONLY) as job:
            time.sleep(3.0)
            assert job.drain() == 0, job.log
    taken = {event.id for event in accepted(around.state, around.feed.url)}
    journal = Journal(around.state, feed_url=around.feed.url)
    gaps = journal.gaps()
    journal.close()
    return tally(published, taken, gaps, len(late - taken))


def _live_and_end(around: World, dice: random.Random, orderly: bool) -> set[str]:
    """One life; returns the ids that had been sent to it before it was asked to stop, if it was asked."""
    with around.live_job(**FILES_ONLY) as job:
        stream = around.feed.streams[-1]
        job.wait_until(lambda: len(stream.sent_ids) > 10, "it is sent events")
        time.sleep(dice.uniform(0.0, 1.0))
        for _ in range(dice.randrange(1, 3)):
            job.signal(signal.SIGSTOP)
            time.sleep(dice.uniform(0.1, 0.8))
            if not orderly and dice.random() < 0.3:
                break  # killed while it stands still
            job.signal(signal.SIGCONT)
            time.sleep(dice.choice((0.0, 0.01, 0.1, 0.5)))
        if not orderly:
            job.kill()
            return set()
        sent = set(stream.sent_ids)
        _end_in_order(job)
        return sent


def _end_in_order(job: Job) -> None:
    code = job.drain(60.0)
    assert code == 0, f"exit code {code}:\n{job.log}"


def _wait_until(condition: object, timeout: float = 60.0) -> None:
    until = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "what was waited for never came"
        time.sleep(0.01)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 after anything that is missing and in no gap, or gaps that are too long."""
    parser = argparse.ArgumentParser(prog="tests.integration.gap_test", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="each fault to each of two connections")
    parser.add_argument("--rounds", type=int, default=30, help="lives of the job")
    parser.add_argument("--cuts", type=int, default=100, help="of one of two streams that watch each other")
    parser.add_argument("--freezes", type=int, default=20, help="of one of them, without a word")
    parser.add_argument("--both", type=int, default=10, help="of both of them within seconds")
    parser.add_argument("--transport", choices=(*TRANSPORTS, BOTH), default=SSE, help="of those two")
    parser.add_argument("--seed", type=int, help="the same moments again")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    dice = random.Random(seed)
    print(f"--seed={seed}", flush=True)
    sound = True
    with tempfile.TemporaryDirectory(prefix="grantex-gap-test-") as directory:
        place = Path(directory)
        if given.times:
            found = torment_streams(place, given.times, dice)
            print(f"two connections, each killed, frozen and cut {given.times} times: {found}", flush=True)
            sound = found.sound and found.recorded <= found.true * LONGER
        if given.cuts or given.freezes or given.both:
            faults = [*dice.choices(("cut", "kill"), k=given.cuts), *["freeze"] * given.freezes]
            dice.shuffle(faults)
            pair = torment_pair(place, faults, given.both, dice, transport=given.transport)
            what = f"{given.cuts} cuts and {given.freezes} freezes of either, {given.both} of both"
            print(f"two connections, {what}:\n{pair}", flush=True)
            sound = sound and pair.sound
        if given.rounds:
            with world(place) as around:
                found = torment_job(around, given.rounds, dice)
            print(f"SIGSTOP, then SIGTERM or kill -9, {given.rounds} times: {found}", flush=True)
            sound = sound and found.sound
    print("every missing id lies in a gap" if sound else "FAILED")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
