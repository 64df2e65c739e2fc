"""The outbox: freeze, attempt, settle, and when to try next. No thread, no clock, no Beam."""

from __future__ import annotations

import random

import pytest

from transforms.event import Batch, Event
from transforms.retry import Backoff
from transforms.secret import remember
from transforms.write.contract import Outcome
from transforms.write.delivery.outbox import Outbox
from transforms.write.delivery.refusals import DeadLetterLimit
from transforms.write.delivery.settling import Settled


def longest(low: float, high: float) -> float:
    return high


def batch(first: int = 0, count: int = 4) -> Batch:
    events = [Event(f"evt_{n:05d}", "t", "", b"{}") for n in range(first, first + count)]
    return Batch(events, list(range(first, first + count)), seal=first + 1)


def outbox(concurrency: int = 1, limit: int | None = None) -> Outbox:
    return Outbox(
        "splunk",
        concurrency=concurrency,
        backoff=Backoff(base=1.0, cap=8.0),
        uniform=longest,
        dead_letter_limit=DeadLetterLimit(limit),
    )


def later(count: int = 4, cause: str = "503: busy") -> Outcome:
    return Outcome(later=range(count), cause=cause)


def attempt(box: Outbox, outcome: Outcome | None, now: float) -> Settled:
    taken = box.take_batch(now)
    assert taken is not None
    settled = box.settle(taken, outcome, now)
    box.recorded(settled)
    return settled


def proven(box: Outbox) -> Outbox:
    """It has taken an event, so that one that is refused alone is believed to be to blame."""
    box.put(batch(1000, 1))
    attempt(box, None, 0.0)
    return box


def test_none_means_all_delivered() -> None:
    box = outbox()
    box.put(batch())
    settled = attempt(box, None, 0.0)
    assert settled.offsets(settled.delivered) == [0, 1, 2, 3]
    assert len(box) == 0
    assert box.events == box.size == 0
    assert box.due() is None


@pytest.mark.parametrize("before", [[], [later()], [later()] * 5, [Outcome(later=[1], cause="429")]])
def test_none_is_an_outcome_that_names_nothing(before: list[Outcome]) -> None:
    def told(outcome: Outcome | None) -> object:
        box = outbox(limit=10)
        box.put(batch())
        box.put(batch(10))
        for number, each in enumerate(before, 1):
            attempt(box, each, 100.0 * number)
        settled = attempt(box, outcome, 1000.0)
        circuit = (box.circuit.is_open, box.circuit.failures, box.circuit.why)
        counts = (box.counts.attempts, box.counts.retries, box.counts.unknown, box.counts.delivered)
        left = (box.events, box.size, len(box), box.due(), box.last_error)
        return list(settled.delivered), settled.again, settled.error, circuit, counts, left

    assert told(None) == told(Outcome())


def test_what_is_later_is_tried_again_as_the_same_batch_without_the_rest() -> None:
    box = outbox()
    first = batch()
    box.put(first)
    taken = box.take_batch(0.0)
    assert taken is first
    taken.memo = b"key"
    settled = box.settle(taken, Outcome(rejected={1: "bad_time: no date"}, later=[2, 3]), 0.0)
    assert (settled.offsets(settled.delivered), settled.rejected) == ([0], [(1, "bad_time: no date")])
    box.recorded(settled)
    again = box.take_batch(0.0)
    assert again is not None
    assert (again.id, again.seal, again.memo, again.attempts) == (first.id, first.seal, b"key", 2)
    assert again.offsets == [2, 3]
    assert box.counts.dead_lettered.counts == {"bad_time": 1}


def test_nothing_is_tried_again_before_its_outcome_is_recorded() -> None:
    box = outbox()
    box.put(batch())
    taken = box.take_batch(0.0)
    assert taken is not None
    settled = box.settle(taken, later(), 0.0)
    assert box.take_batch(1e9) is None
    assert box.due() is None
    box.recorded(settled)
    assert box.due() == 1.0


def test_full_jitter_doubles_up_to_its_cap() -> None:
    box = outbox()
    box.put(batch())
    now, waits = 0.0, []
    for _ in range(6):
        attempt(box, later(), now)
        due = box.due()
        assert due is not None
        assert box.take_batch(due - 0.01) is None
        waits.append(due - now)
        now = due
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_retry_after_wins_and_holds_for_the_whole_destination() -> None:
    box = outbox(concurrency=2)
    box.put(batch(0))
    box.put(batch(10))
    attempt(box, Outcome(later=range(4), cause="429", retry_after=20.0), 0.0)
    assert box.take_batch(19.9) is None
    assert box.due() == 20.0
    assert box.take_batch(20.0) is not None


def test_concurrency_is_the_most_in_flight() -> None:
    box = outbox(concurrency=2)
    for first in (0, 10, 20):
        box.put(batch(first))
    assert box.take_batch(0.0) is not None
    taken = box.take_batch(0.0)
    assert taken is not None
    assert box.take_batch(0.0) is None
    box.settle(taken, None, 0.0)
    assert box.take_batch(0.0) is not None


def test_a_batch_that_waits_does_not_hold_up_the_others_while_the_circuit_is_closed() -> None:
    box = outbox()
    box.put(batch(0))
    box.put(batch(10))
    attempt(box, later(), 0.0)
    taken = box.take_batch(0.0)
    assert taken is not None
    assert taken.offsets[0] == 10


def test_three_failures_in_a_row_open_the_circuit_and_only_the_oldest_batch_probes() -> None:
    box = outbox(concurrency=4)
    for first in (0, 10, 20, 30):
        box.put(batch(first))
    for _ in range(3):
        attempt(box, later(), 0.0)
    assert box.circuit.is_open
    assert box.circuit.why == "503: busy"
    assert box.due() == 4.0
    assert box.take_batch(3.9) is None
    probe = box.take_batch(4.0)
    assert probe is not None
    assert probe.offsets[0] == 0
    assert box.take_batch(100.0) is None
    assert box.due() is None
    box.recorded(box.settle(probe, None, 4.0))
    assert not box.circuit.is_open
    assert [box.take_batch(4.0) is not None for _ in range(4)] == [True, True, True, False]


def test_the_probe_is_the_oldest_batch_even_while_its_outcome_waits_to_be_recorded() -> None:
    box = outbox()
    box.put(batch(0))
    box.put(batch(10))
    taken = box.take_batch(0.0)
    assert taken is not None
    settled = box.settle(taken, Outcome(later=range(4), blocked=True), 0.0)
    assert box.take_batch(100.0) is None
    assert box.due() is None
    box.recorded(settled)
    probe = box.take_batch(100.0)
    assert probe is not None
    assert probe.offsets[0] == 0


def test_attempts_under_way_when_the_circuit_opens_do_not_lengthen_the_wait() -> None:
    box = outbox(concurrency=8)
    for first in range(0, 80, 10):
        box.put(batch(first))
    taken = [box.take_batch(0.0) for _ in range(8)]
    for one in taken:
        assert one is not None
        box.recorded(box.settle(one, later(), 0.0))
    assert box.circuit.failures <= 4


def test_blocked_opens_the_circuit_at_once() -> None:
    box = outbox()
    box.put(batch())
    attempt(box, Outcome(later=range(4), cause="401: the token is wrong", blocked=True), 0.0)
    assert box.circuit.is_open
    assert box.circuit.why == "401: the token is wrong"


@pytest.mark.parametrize(
    "progress",
    [Outcome(later=[1, 2, 3]), Outcome(rejected={0: "x"}, later=[1, 2, 3])],
    ids=["delivered", "rejected by name"],
)
def test_any_progress_closes_the_circuit(progress: Outcome) -> None:
    box = proven(outbox())
    box.put(batch())
    attempt(box, Outcome(later=range(4), blocked=True), 0.0)
    attempt(box, progress, 100.0)
    assert not box.circuit.is_open
    assert box.circuit.failures == 0


def test_events_stopped_by_a_rejected_neighbour_go_again_at_once() -> None:
    box = outbox()
    box.put(batch())
    attempt(box, Outcome(rejected={0: "invalid_format"}, later=[1, 2, 3]), 5.0)
    assert box.due() == 5.0


def test_too_large_is_cut_in_two_halves_at_the_same_place_in_line() -> None:
    box = outbox()
    whole = batch(0, 5)
    box.put(whole)
    box.put(batch(10))
    taken = box.take_batch(0.0)
    assert taken is not None
    settled = box.settle(taken, Outcome(later=range(5), too_large=True, cause="413"), 0.0)
    assert settled.left is whole
    assert [half.offsets for half in settled.halves] == [[0, 1], [2, 3, 4]]
    assert len({whole.id, *(half.id for half in settled.halves)}) == 3
    assert [half.seal for half in settled.halves] == [0, 0]
    box.recorded(settled)
    order = [attempt(box, None, 0.0).batch for _ in range(3)]
    assert [one.offsets[0] for one in order] == [0, 2, 10]
    assert order[0].attempts == 2


def test_a_single_event_that_is_too_large_becomes_a_dead_letter() -> None:
    box = proven(outbox())
    box.put(batch(0, 1))
    settled = attempt(box, Outcome(later=[0], too_large=True, cause="413 from splunk"), 0.0)
    assert settled.rejected == [(0, "too_large: 413 from splunk")]
    assert settled.delivered == []
    assert len(box) == 0


def test_the_dead_letter_limit_keeps_events_and_opens_the_circuit() -> None:
    box = outbox(limit=3)
    box.put(batch(0, 5))
    settled = attempt(box, Outcome(rejected=dict.fromkeys(range(1, 5), "bad_field: nope")), 0.0)
    assert [index for index, _ in settled.rejected] == [1, 2, 3]
    assert settled.delivered == [0]
    assert box.circuit.is_open
    assert "dead letter limit of 3 an hour reached" in box.circuit.why
    assert "--dead_letter_limit" in box.last_error
    settled = attempt(box, Outcome(rejected={0: "bad_field: nope"}), 1800.0)
    assert settled.rejected == []
    assert box.events == 1
    settled = attempt(box, Outcome(rejected={0: "bad_field: nope"}), 3600.0)
    assert len(settled.rejected) == 1
    assert not box.circuit.is_open


def test_the_dead_letter_limit_counts_what_is_too_large() -> None:
    box = proven(outbox(limit=0))
    box.put(batch(0, 1))
    settled = attempt(box, Outcome(later=[0], too_large=True), 0.0)
    assert settled.rejected == []
    assert settled.halves == ()
    assert box.events == 1
    assert box.circuit.is_open


def test_drain_makes_what_waits_due_now_once() -> None:
    box = outbox()
    box.put(batch())
    attempt(box, Outcome(later=range(4), retry_after=500.0, blocked=True), 0.0)
    assert box.take_batch(1.0) is None
    box.drain()
    attempt(box, later(), 1.0)
    assert box.take_batch(1.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        Outcome(rejected={4: "x"}),
        Outcome(later=[-1]),
        Outcome(rejected={1: "x"}, later=[1]),
        Outcome(too_large=True),
        Outcome(unknown=True),
        Outcome(blocked=True),
    ],
    ids=["beyond the end", "negative", "both", "too_large of nothing", "unknown nothing", "blocked nothing"],
)
def test_an_outcome_that_contradicts_itself_names_the_destination(wrong: Outcome) -> None:
    box = outbox()
    box.put(batch())
    taken = box.take_batch(0.0)
    assert taken is not None
    with pytest.raises(ValueError, match="splunk"):
        box.settle(taken, wrong, 0.0)


def test_a_writers_words_are_bounded_and_printable_whoever_wrote_it() -> None:
    remember("hush-hush-hush")
    ugly = "503 \x1b[2J\u009b\n" + "x" * 1900 + "hush-hush-hush" * 100_000
    box = proven(outbox())
    box.put(batch())
    settled = attempt(box, Outcome(later=range(1, 4), rejected={0: ugly}, cause=ugly), 0.0)
    for words in (settled.rejected[0][1], box.last_error):
        assert words.isprintable()
        assert len(words) <= 2100
        assert "hush" not in words
    attempt(box, Outcome(later=range(3), cause=ugly, blocked=True), 1e6)
    assert box.circuit.why.isprintable()
    assert len(box.circuit.why) <= 2100


def test_a_short_word_of_a_writers_has_no_secret_either() -> None:
    """What the journal keeps of it, and a dead letter says, is read by nobody before."""
    remember("hush-hush-hush")
    box = proven(outbox())
    box.put(batch())
    said = "invalid: refused Bearer hush-hush-hush"
    settled = attempt(box, Outcome(later=range(1, 4), rejected={0: said}, cause=said), 0.0)
    assert settled.rejected[0][1] == "invalid: refused Bearer [secret]"
    assert settled.error == box.last_error == "invalid: refused Bearer [secret]"


def test_counts_for_people_and_metrics() -> None:
    box = outbox()
    box.put(batch())
    attempt(box, Outcome(later=range(4), unknown=True, cause="no answer"), 0.0)
    attempt(box, Outcome(rejected={0: "Not a word"}), 100.0)
    counts = box.counts
    assert (counts.attempts, counts.retries, counts.unknown, counts.delivered) == (2, 1, 4, 3)
    assert counts.dead_lettered.counts == {"rejected": 1}
    assert box.last_error == "rejected: Not a word"


class _World:
    """A service with moods, a ledger that records late, and time that jumps: the outbox's whole life."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.concurrency = self.dice.randint(1, 4)
        self.box = Outbox("any", concurrency=self.concurrency, uniform=self.dice.uniform)
        self.now = 0.0
        self.placed = 0
        self.sealed: set[str] = set()
        self.unrecorded: list[Settled] = []
        self.in_flight: list[Batch] = []
        self.fate: dict[int, str] = {}

    def put(self) -> None:
        new = batch(self.placed, self.dice.randint(1, 9))
        self.placed += len(new.events)
        self.sealed.add(new.id)
        self.box.put(new)

    def take(self) -> None:
        was_open = self.box.circuit.is_open
        taken = self.box.take_batch(self.now)
        if taken is None:
            due = self.box.due()
            assert due is None or due > self.now
            return
        assert taken.id in self.sealed
        assert taken.id not in {left.id for settled in self.unrecorded if (left := settled.left)}
        assert not self.fate.keys() & set(taken.offsets)
        self.in_flight.append(taken)
        assert len(self.in_flight) <= (1 if was_open else self.concurrency)
        if was_open:
            place = self.place(taken)
            assert all(place <= self.place(other) for other in self.held() if other is not taken)

    def place(self, one: Batch) -> tuple[bool, int]:
        """The oldest first, but for events that were refused while nothing else was taken."""
        suspected = self.box._limit.suspects(one.events[0].id)
        return suspected, 0 if suspected else one.offsets[0]

    def held(self) -> list[Batch]:
        entries = [*self.box._waiting(), *self.box._unrecorded.values()]
        return [entry.batch for entry in entries]

    def outcome(self, count: int) -> Outcome | None:
        mood = self.dice.choice(["fine", "down", "partial", "too_large", "blocked", "throttled"])
        if mood == "fine":
            return None
        if mood == "partial":
            kinds = [self.dice.choice(["delivered", "rejected", "later"]) for _ in range(count)]
            rejected = {i: "bad: event" for i, kind in enumerate(kinds) if kind == "rejected"}
            return Outcome(rejected=rejected, later=[i for i, kind in enumerate(kinds) if kind == "later"])
        return Outcome(
            later=range(count),
            unknown=mood == "down",
            too_large=mood == "too_large",
            blocked=mood == "blocked",
            retry_after=self.dice.uniform(-1, 60) if mood == "throttled" else None,
        )

    def settle(self, *, well: bool = False) -> None:
        if not self.in_flight:
            return
        done = self.in_flight.pop(self.dice.randrange(len(self.in_flight)))
        settled = self.box.settle(done, None if well else self.outcome(len(done.events)), self.now)
        rejected = [index for index, _ in settled.rejected]
        for kind, indexes in (("delivered", settled.delivered), ("dead", rejected)):
            for offset in settled.offsets(indexes):
                assert offset not in self.fate
                self.fate[offset] = kind
        self.unrecorded.append(settled)

    def record(self) -> None:
        if self.unrecorded:
            settled = self.unrecorded.pop(self.dice.randrange(len(self.unrecorded)))
            self.sealed.update(half.id for half in settled.halves)
            self.box.recorded(settled)

    def wait(self) -> None:
        self.now += self.dice.choice([0.0, 0.1, 1.0, 30.0])


@pytest.mark.parametrize("seed", range(60))
def test_every_event_is_delivered_or_a_dead_letter_exactly_once(seed: int) -> None:
    world = _World(seed)
    steps = [
        world.put,
        world.take,
        world.take,
        world.settle,
        world.settle,
        world.record,
        world.record,
        world.wait,
    ]
    for _ in range(400):
        world.dice.choice(steps)()
        assert world.box.events == world.placed - len(world.fate)
    for _ in range(20 * world.placed):
        if not len(world.box):
            break
        world.now += 3600.0
        world.take()
        world.settle(well=True)
        world.record()
    assert sorted(world.fate) == list(range(world.placed))
    assert world.box.size == world.box.events == 0
    assert not world.box.circuit.is_open
    counts = world.box.counts
    assert counts.delivered == sum(kind == "delivered" for kind in world.fate.values())
    assert counts.dead_lettered.counts.total() == sum(kind == "dead" for kind in world.fate.values())
