"""A lane that delivers at random, and what the journal must know of it after each of its writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.transforms.feed.journal.support import number_of, runs_of, unsealed
from transforms.event import Batch
from transforms.feed.journal import Cursor, Journal
from transforms.feed.journal.ranges import Range, offsets_in
from transforms.write.delivery.ledger import Filtered, Settlement


@dataclass(frozen=True)
class Sealed:
    """A sealed batch as it must come back: `left` are the offsets that are not settled."""

    id: str
    partition: str
    left: tuple[int, ...]
    memo: bytes | None
    attempts: int


@dataclass
class Truth:
    """What is committed for one destination."""

    born: int = 0
    end: int = 0
    delivered: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    sealed: dict[int, Sealed] = field(default_factory=dict)  # open ones, by number
    filtered: set[int] = field(default_factory=set)

    def check(self, journal: Journal, cursor: Cursor) -> None:
        """Compare a journal just opened with it."""
        unsettled = set(range(self.born, self.end)) - self.delivered - self.dead - self.filtered
        batches = cursor.recover()
        found = {b.seal: Sealed(b.id, b.partition, tuple(b.offsets), b.memo, b.attempts) for b in batches}
        assert found == self.sealed
        assert list(found) == sorted(found), "oldest first"
        held = [(o, e) for b in batches for o, e in zip(b.offsets, b.events, strict=True)]
        everything = [*held, *unsealed(cursor, journal)]
        assert runs_of([offset for offset, _ in everything]) == unsettled
        assert all(offset == number_of(taken) for offset, taken in everything)
        assert cursor.position == min(unsettled, default=self.end)
        books = journal.books()[cursor.name]
        assert books.balanced
        told = (books.received, books.delivered, books.dead_lettered, books.filtered, books.lost)
        counts = [len(each) for each in (self.delivered, self.dead, self.filtered)]
        assert told == (self.end - self.born, *counts, 0)


class RandomLane:
    """Seals, attempts and settles at random; `truth` is set before the write that makes it true."""

    def __init__(self, journal: Journal, name: str, rng: random.Random) -> None:
        self.cursor = journal.cursor(name)
        self._journal = journal
        self._rng = rng
        self._read = self.cursor.position
        self._flying: list[Batch] = []
        self.truth = Truth(born=self.cursor.born, end=journal.end)

    def step(self) -> None:
        """One write of one kind."""
        kinds = [self._commit] * 6 + [self._remember, self._resplit]
        self._rng.choice(kinds)()

    def settle_all(self) -> None:
        """Deliver everything there is."""
        self._settle(list(self._flying), self._new_batches(10**6), lucky=True)
        self._settle(list(self._flying), [], lucky=True)

    def _commit(self) -> None:
        rng = self._rng
        done = rng.sample(self._flying, rng.randint(0, min(3, len(self._flying))))  # out of order
        batches = self._new_batches(rng.randint(0, 3)) if len(self._flying) < 12 else []
        self._settle(done, batches, self._not_asked_for() if rng.random() < 0.4 else [])

    def _not_asked_for(self) -> list[Range]:
        """Some of what comes next."""
        if self._read == self._journal.end:
            return []
        chunk = self._journal.read(self._read, 1)[0]
        first, self._read = self._read, min(chunk.end, self._read + self._rng.randint(1, 20))
        return [(first, self._read)]

    def _new_batches(self, most: int) -> list[Batch]:
        batches: list[Batch] = []
        while len(batches) < most and self._read < self._journal.end:
            chunk = self._journal.read(self._read, 1)[0]
            size = self._rng.randint(1, 30)
            taken, offsets = list(chunk.events[:size]), list(range(chunk.first, chunk.end)[:size])
            self._read += len(taken)
            if self._rng.random() < 0.3:  # two partitions: neither batch's offsets are one run
                batches += [
                    Batch(taken[part::2], offsets[part::2], partition=f"hour-{part}")
                    for part in (0, 1)
                    if taken[part::2]
                ]
            else:
                batches.append(Batch(taken, offsets))
        return batches

    def _settle(
        self, done: list[Batch], batches: list[Batch], ranges: Sequence[Range] = (), *, lucky: bool = False
    ) -> None:
        settlements, left = [], []
        for batch in done:
            batch.attempts += 1
            settlement, rest = self._outcome(batch, lucky)
            settlements.append(settlement)
            left += rest
        first = self._next_number()
        for number, batch in enumerate(batches, first):
            self._seal(number, batch)
        self.truth.filtered.update(offsets_in(ranges))
        self.cursor.commit(settlements, batches, Filtered(ranges, 1.0) if ranges else None)
        assert [batch.seal for batch in batches] == list(range(first, first + len(batches)))
        self._flying = [b for b in self._flying if all(b is not d for d in done)] + left + batches

    def _next_number(self) -> int:
        return self.cursor._state.last_number + 1

    def _seal(self, number: int, batch: Batch) -> None:
        self.truth.sealed[number] = Sealed(
            batch.id, batch.partition, tuple(batch.offsets), batch.memo, batch.attempts
        )

    def _outcome(self, batch: Batch, lucky: bool) -> tuple[Settlement, list[Batch]]:
        """All delivered, all later, or some of each and some rejected."""
        draw = 0.0 if lucky else self._rng.random()
        fates = ["delivered" if draw < 0.5 else "later"] * len(batch.offsets)
        if draw > 0.7:
            fates = [self._rng.choice(["delivered", "later", "dead"]) for _ in batch.offsets]
        by_fate = {
            fate: [o for o, f in zip(batch.offsets, fates, strict=True) if f == fate]
            for fate in ("delivered", "later", "dead")
        }
        self.truth.delivered.update(by_fate["delivered"])
        self.truth.dead.update(by_fate["dead"])
        settlement = Settlement(batch, by_fate["delivered"], by_fate["dead"])
        if not by_fate["later"]:
            del self.truth.sealed[batch.seal]
            return settlement, []
        rest = self._part(batch, by_fate["later"])
        self._seal(batch.seal, rest)
        return settlement, [rest]

    def _part(self, batch: Batch, offsets: list[int]) -> Batch:
        chosen = [e for e, o in zip(batch.events, batch.offsets, strict=True) if o in set(offsets)]
        return replace(batch, events=chosen, offsets=offsets)

    def _remember(self) -> None:
        if self._flying:
            batch = self._rng.choice(self._flying)
            memo = self._rng.randbytes(8)
            batch.memo = memo
            self._seal(batch.seal, batch)
            batch.remember(memo)

    def _resplit(self) -> None:
        large = [batch for batch in self._flying if len(batch.offsets) > 1]
        if not large:
            return
        batch = self._rng.choice(large)
        middle = len(batch.offsets) // 2
        parts = [
            Batch(e, o, batch.partition, attempts=batch.attempts)
            for e, o in (
                (batch.events[:middle], batch.offsets[:middle]),
                (batch.events[middle:], batch.offsets[middle:]),
            )
        ]
        del self.truth.sealed[batch.seal]
        for number, part in enumerate(parts, self._next_number()):
            self._seal(number, part)
        self.cursor.resplit(batch, parts)
        self._flying = [b for b in self._flying if b is not batch] + parts
