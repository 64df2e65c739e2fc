"""A key against a model: whatever fails, moves or goes back, each event arrives once or is a dead letter."""

from __future__ import annotations

import contextlib
import copy
import random

import httpx
import pytest

from tests.transforms.write.drivers import OnTimers
from tests.transforms.write.keyed.cluster import KEY, FakeBag, let_time_pass
from tests.transforms.write.service import events
from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.contract import Outcome
from transforms.write.keyed import backlog, firing, inbox, known
from transforms.write.keyed.backlog import Backlog, Opened
from transforms.write.keyed.firing import Budget
from transforms.write.keyed.state import PackedBatch, unpack

# Small enough that everything is full, cut, moved and forgotten now and then.
SIZES = {
    (backlog, "SMALL_BLOCK_BYTES"): (300, 1000, 4000),
    (backlog, "BLOCK_BYTES"): (1000, 4000, 32_000),
    (backlog, "ELEMENT_BYTES"): (100, 400, 16_000),
    (backlog, "SMALL_BLOCKS"): (0, 2, 24),
    (backlog, "CELLS"): (3, 5, backlog.CELLS),
    (backlog, "KEPT_BYTES"): (0, 200, 1000, 1_000_000),
    (inbox, "INBOX_BYTES"): (200, 2000),
    (inbox, "INBOX_BATCHES"): (2, 10, 100),
    (inbox, "TIDY_BYTES"): (100, 1000),
    (inbox, "MOVED_BYTES"): (300, 3000, 16_000),
    (known, "KNOWN_BYTES"): (500, 20_000, 4_000_000),
    (firing, "JOINED_BYTES"): (300, 1000, 1_000_000),
    (firing, "MOST_TRIED"): (0, 1, 20),
    (firing, "BUNDLE_BYTES"): (500, 5000, 16_000_000),
}


class Model:
    """A key and what was given to it. Each method but `check` is something that may happen to it."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.given = dice, 0
        self.most = dice.choice([4, 20, 100])
        policy = BatchPolicy(max_events=self.most, max_bytes=dice.choice([1500, 1_000_000]), max_age=5.0)
        self.cluster = OnTimers(policy)
        self.cluster.service.script = self._answer
        self.moody = False

    def arrive(self) -> None:
        most = self.most
        count = self.dice.choice([1, most, 2 * most, most // 2 + most, self.dice.randint(1, 3 * most)])
        new = events(self.given, count, size=self.dice.choice([30, 300]))
        if self.dice.random() < 0.2:
            with contextlib.suppress(ZeroDivisionError), self.cluster.bundle() as (delivery, beam_state):
                for element in self.cluster.sharded(new):
                    delivery.receive(KEY, element, beam_state, lambda at: None)
                raise ZeroDivisionError
        self.cluster.arrive(new)
        self.given += count

    def fire(self) -> None:
        self.cluster.clock.advance(self.dice.choice([0.0, 0.1, 3.0, 60.0]))
        if self.cluster.timer is not None and self.cluster.timer <= self.cluster.clock.now():
            self.cluster.fire()

    def fail(self) -> None:
        self.cluster.fail()

    def move(self) -> None:
        self.cluster.new_process()

    def go_away_or_come_back(self) -> None:
        away = self.cluster.service.refuse is None
        self.cluster.service.refuse = httpx.ConnectError("refused") if away else None

    def change_mood(self) -> None:
        self.moody = not self.moody

    def go_back(self) -> None:
        """To a checkpoint, with the process that had gone on."""
        cluster = self.cluster
        before = copy.deepcopy(cluster.store), cluster.timer, list(cluster.receipts), list(cluster.letters)
        given = self.given
        for _ in range(self.dice.randint(1, 4)):
            self.dice.choice([self.arrive, self.fire])()
        cluster.store, cluster.timer, cluster.receipts, cluster.letters = before
        self.given = given

    def end(self) -> None:
        """The input is over; some of its bundles fail."""
        self.cluster.service.refuse = self.dice.choice([None, None, httpx.ConnectError("refused")])
        let_time_pass(self.cluster)
        while self.cluster.store:
            budget = Budget(self.dice.choice([500, 5000, 16_000_000]))
            fails = self.dice.random() < 0.2
            with contextlib.suppress(ZeroDivisionError), self.cluster.bundle() as (delivery, beam_state):
                self.cluster.take(delivery.end(KEY, beam_state, budget=budget))
                if fails:
                    raise ZeroDivisionError

    def check(self) -> None:
        """The books of the key balance, and what is known of its blocks is what they hold."""
        cluster, key_state = self.cluster, self.cluster.key_state()
        done = sum(len(each.event_ids) for each in cluster.receipts) + len(cluster.letters)
        assert key_state.pending() + done == self.given
        for block in key_state.blocks:
            parts = [unpack(PackedBatch, each) for each in cluster.store[str(block.cell)][block.skip :]]
            assert sum(each.count for each in parts) == block.count
            assert sum(each.size for each in parts) == block.packed
        bags = [FakeBag(cluster.store, str(cell), cluster) for cell in range(backlog.CELLS)]
        _, knows = cluster.attempts.known_keys.open(KEY, cluster._beam_state(), key_state)
        for block in key_state.blocks:
            read = Backlog(bags, key_state).load(block)
            if block.cell in knows.known:
                n = len(knows.known[block.cell].batches)
                assert knows.known[block.cell] == Opened(read.batches[:n], read.ends[:n])

    def _answer(self, batch: Batch) -> Outcome | None:
        self.cluster.clock.advance(self.dice.choice([0.0, 0.05, 0.3, 0.6]))
        count, mood = len(batch.events), self.dice.random() if self.moody else 1.0
        some = sorted(self.dice.sample(range(count), self.dice.randint(1, count)))
        if mood < 0.25:
            return Outcome(later=range(count), cause="not now")
        if mood < 0.5:
            return Outcome(later=some, cause="not now")
        if mood < 0.6 and count > 1:
            return Outcome(too_large=True, later=range(count), cause="too large")
        return Outcome(rejected=dict.fromkeys(some, "bad")) if mood < 0.7 else None


@pytest.mark.parametrize("seed", range(20))
def test_each_event_arrives_once_or_is_a_dead_letter(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    for (room, name), sizes in SIZES.items():
        monkeypatch.setattr(room, name, dice.choice(sizes))
    model = Model(dice)
    often, seldom = [model.arrive] * 9 + [model.fire] * 6, [model.fail, model.move, model.go_back]
    for _ in range(dice.randint(20, 80)):
        dice.choice([*often, *seldom, model.go_away_or_come_back, model.change_mood])()
        model.check()
    model.end()
    receipts, letters = model.cluster.receipts, model.cluster.letters
    arrived = [event_id for each in receipts for event_id in each.event_ids]
    assert sorted([*arrived, *(each.event_id for each in letters)]) == [
        each.id for each in events(0, model.given)
    ]
    assert model.cluster.close()
