"""What became of every id that was published, at the feed, the ledger, each destination and in `where`.

For torture.py. Read after the job has ended, through clients that know nothing of the job's.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.local import proof
from pipelines.local.proof import ContinuousProof
from pipelines.practice.feed import PracticeFeed
from tests.integration.evidence import WITNESS, accepted
from tests.integration.gap_test import Published, within
from tests.integration.job import ROOT, World
from tests.servers.landing import Landing
from transforms.clock import SystemClock
from transforms.dead_letter import DeadLetter
from transforms.feed.intake import Gap, iso
from transforms.feed.journal import Journal
from transforms.feed.journal.proven import Proof
from transforms.feed.journal.receipts import SKEW, Receipts
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret
from transforms.write.dead_letters.directory import read_dead_letters

DAY = 86_400.0
ASKED = 1000  # ids that `where` is asked for
SHOWN = 10  # ids of each fault
MILLISECOND = 0.001  # to which an event's own time is cut

Lies = Callable[[str, str], bool]  # whether an id lies at a place


@dataclass
class Reckoning:
    """`wrong` has, by fault, the ids or the words that prove it; nothing is wrong when it is empty."""

    lines: list[str] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.wrong

    def blame(self, what: str, ids: Iterable[str]) -> None:
        """Nothing, when there are none."""
        if found := list(ids):
            self.wrong.setdefault(what, []).extend(found)

    def table(self) -> str:
        """For a person."""
        faults = [
            f"WRONG: {what}: {len(found)}: {', '.join(found[:SHOWN])}{' …' if len(found) > SHOWN else ''}"
            for what, found in self.wrong.items()
        ]
        return "\n".join([*self.lines, *faults])


def journal_at(state: Path, feed_url: str) -> Journal:
    """The job's own, with what it keeps."""
    return Journal(state, feed_url=feed_url, dedupe_horizon=DAY, receipt_retention=DAY)


def begin(state: Path, feed_url: str, webhook: str, *, witness: bool) -> None:
    """Make the journal before the first start: with a witness, for whom all is kept, and a proof that has
    begun, as otherwise nothing of the first minute could be proven."""
    with contextlib.closing(journal_at(state, feed_url)) as journal:
        if witness:
            journal.cursor(WITNESS)
        now = journal.clock.now() + 2 * proof.CLOCKS
        journal.keep_proof(Proof(webhook, now, now), (), ())


def prove_now(state: Path, feed_url: str, feed: PracticeFeed) -> None:
    """Walk the ledger as the job does, without the minute that an event may be in flight: all has ended."""
    in_flight, proof.IN_FLIGHT = proof.IN_FLIGHT, 0.0
    try:
        with contextlib.closing(journal_at(state, feed_url)) as journal:
            settings = FeedSettings(feed.url, LiteralSecret(feed.api_key))
            heard = journal.clock.now()
            walker = ContinuousProof(settings, "auto", journal, lambda: heard, SystemClock())
            walker.walk()
            walker.stop(0.0)
    finally:
        proof.IN_FLIGHT = in_flight


def reckon(
    around: World,
    feed_url: str,
    landings: Sequence[Landing],
    published: Published,
    dice: random.Random,
    gone_until: float = 0.0,
    *,
    witness: bool = True,
) -> Reckoning:
    """Compare everything with what was published.

    gone_until: receipts from before (epoch seconds) may have gone: then the disk was last full, or they were
    old enough. witness: as in `begin`.
    """
    found = Reckoning()
    feed, sender = around.feed, around.feed.webhook_sender
    with contextlib.closing(journal_at(around.state, feed_url)) as journal:
        gaps, proven = journal.gaps(), journal.proof
        letters = [*read_dead_letters(around.dead_letters), *_waiting(journal)]
    with contextlib.closing(Receipts(around.state)) as receipts:
        kept_since = receipts.kept_since()
    if kept_since > gone_until:
        found.blame("receipts that went before their time", [iso(kept_since)])
    answers = _asked(around.state, _chosen(published, letters, dice))
    named = {letter.event_id for letter in letters if letter.cause.startswith("missing")}
    try:
        taken = (
            {event.id: event.raw for event in accepted(around.state, feed_url)}
            if witness
            else _must_be_there(around.state, feed_url, landings[0], published, gaps, named)
        )
    except AssertionError as error:
        found.blame("the books", [str(error)])
        return found
    _feed(found, published, taken, gaps, named, feed.ledger.dropped)
    found.blame("named as missing, and never taken back", sorted(named & taken.keys())[proven.found :])
    kept = [each.event_id for each in sender.outgoing if each.status == "delivered"] if sender else []
    found.lines.append(f"webhooks: {len(kept):,} answered with 200")
    found.blame("answered with 200 and not kept", set(kept) - taken.keys())
    _letters(found, letters)
    for one in landings:
        _destination(found, one, taken)
    lies = {one.name: _lies_at(one.stored) for one in landings}
    gone: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for each in answers:
        expired = _is_not_kept(each) and published.at[each["id"]] <= kept_since + SKEW
        (gone if expired else told).append(each)
    wrong = [each for each in told if not _is_right(each, taken, published, gaps, lies)]
    found.lines.append(f"where: {len(told) - len(wrong):,} of {len(told):,} answers right")
    if gone:
        found.lines.append(f"       {len(gone):,} not known any more: their receipts had gone")
    found.blame("where", [json.dumps(each) for each in wrong])
    return found


def _must_be_there(
    state: Path, feed_url: str, one: Landing, published: Published, gaps: Sequence[Gap], named: set[str]
) -> dict[str, bytes]:
    """Without a witness: what lies in no gap, and what one destination has. The books say how many it is.

    Raises AssertionError when they say something else.
    """
    ids = {event_id for event_id, _ in one.read()}
    ids.update(e for e in published.ids if e not in named and not within(published.at[e], gaps, MILLISECOND))
    with contextlib.closing(journal_at(state, feed_url)) as journal:
        for name, books in journal.books().items():
            assert books.balanced, f"the books of {name} do not balance: {books}"
            assert books.received == len(ids), f"{len(ids)} ids, and in the books of {name}: {books}"
    return {event_id: published.raw.get(event_id, b"") for event_id in ids}


def _waiting(journal: Journal) -> Iterator[DeadLetter]:
    """Dead letters of the feed that no file has yet; they are dropped, as there are only some at a time."""
    while letters := journal.dead_letters():
        yield from (letter for _, letter in letters)
        journal.drop_dead_letters(letters[-1][0])


def _feed(
    found: Reckoning,
    published: Published,
    taken: Mapping[str, bytes],
    gaps: Sequence[Gap],
    named: set[str],
    dropped: Sequence[str],
) -> None:
    missing = [each for each in published.ids if each not in taken]
    in_gaps = {each for each in missing if within(published.at[each], gaps, MILLISECOND)}
    found.lines += [
        f"feed: {len(published.ids):,} published, {len(taken):,} received, {len(missing):,} missing: "
        f"{len(in_gaps):,} in gaps, {len(named & set(missing)):,} named by the ledger",
        f"      {len(gaps):,} gaps of {sum(gap.seconds for gap in gaps):.1f} s in all",
        f"      {len(dropped):,} dropped silently, {len(taken.keys() & set(dropped)):,} came by webhook",
    ]
    found.blame(
        "missing, in no gap and not named", [e for e in missing if e not in in_gaps and e not in named]
    )
    found.blame("received, and never published", taken.keys() - set(published.ids))


def _letters(found: Reckoning, letters: Sequence[DeadLetter]) -> None:
    causes = Counter((letter.stage, letter.destination, letter.cause.partition(":")[0]) for letter in letters)
    for (stage, destination, cause), number in sorted(causes.items()):
        found.lines.append(f"dead letters: {number:,} {cause} ({destination or stage})")
    bad = [each for each in letters if each.stage != "feed" or each.cause.startswith("id_conflict")]
    found.blame("dead letters", [f"{each.event_id} ({each.destination}: {each.cause})" for each in bad])


def _destination(found: Reckoning, one: Landing, taken: Mapping[str, bytes]) -> None:
    held: Counter[str] = Counter()
    for event_id, raw in one.read():
        held[event_id] += 1
        if raw not in (None, taken.get(event_id)):
            found.blame(f"{one.name}: other bytes", [event_id])
    twice = [event_id for event_id, times in held.items() if times > 1]
    note = "   each id once" if one.once else ""
    found.lines.append(f"{one.name:10} {len(held):>9,} delivered {len(twice):>7,} more than once{note}")
    found.blame(f"{one.name}: lost", taken.keys() - held.keys())
    found.blame(f"{one.name}: never received", held.keys() - taken.keys())
    if one.once:
        found.blame(f"{one.name}: twice", twice)


# where


def _chosen(published: Published, letters: Sequence[DeadLetter], dice: random.Random) -> list[str]:
    """At random, a few of those that are named as missing among them."""
    named = [each.event_id for each in letters if each.cause.startswith("missing")]
    some = dice.sample(named, min(len(named), ASKED // 10))
    return [*some, *dice.sample(published.ids, min(len(published.ids), ASKED - len(some)))]


def _asked(state: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pipelines.where", f"--state_dir={state}", "--json=true", "-"]
    done = subprocess.run(
        command, input="\n".join(ids), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["id"] for each in answers] == list(ids)
    return answers


def _lies_at(stored: Callable[[str], bytes] | None) -> Lies:
    @cache
    def ids(place: str) -> frozenset[str]:
        assert stored is not None
        return frozenset(json.loads(line)["id"] for line in gzip.decompress(stored(place)).splitlines())

    return lambda event_id, place: stored is None or event_id in ids(place)


def _is_not_kept(answer: Mapping[str, Any]) -> bool:
    """Told as no longer known, and not as never received."""
    states = {each["state"] for each in answer["destinations"].values()}
    return answer["received_at"] is None and answer["gap"] is None and states == {"not_kept"}


def _is_right(
    answer: Mapping[str, Any],
    taken: Mapping[str, bytes],
    published: Published,
    gaps: Sequence[Gap],
    lies: Mapping[str, Lies],
) -> bool:
    event_id, standings, gap = answer["id"], answer["destinations"], answer["gap"]
    if event_id not in taken:
        at = published.at[event_id]
        may, must = within(at, gaps, SKEW + MILLISECOND), within(at, gaps)
        return answer["received_at"] is None and not standings and (may if gap else not must)
    if answer["received_at"] is None or gap:
        return False
    for name, lies_at in lies.items():
        standing = standings.get(name, {})
        if standing.get("state") != "delivered" or not lies_at(event_id, standing["place"]):
            return False
    return True
