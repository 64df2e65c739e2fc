"""What a delivery promises, whoever drives it: each test runs on ticks and threads, and on keyed state."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.transforms.write.drivers import Driver, OnTicks, OnTimers, events
from tests.transforms.write.service import FOUR
from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.contract import Outcome

KINDS: dict[str, Callable[..., Driver]] = {"ticks": OnTicks, "timers": OnTimers}


@pytest.fixture(params=KINDS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = KINDS[request.param]()
    yield driver
    assert driver.close()


def limited(driver: Driver, policy: BatchPolicy = FOUR, limit: int | None = None) -> Driver:
    """Another one of the same kind."""
    made: Driver = type(driver)(policy, limit)  # type: ignore[call-arg]
    return made


def names(first: int, stop: int) -> tuple[str, ...]:
    return tuple(f"evt_{n:05d}" for n in range(first, stop))


def delivered(driver: Driver) -> list[str]:
    return sorted(event_id for receipt in driver.receipts for event_id in receipt.event_ids)


def all_later(batch: Batch) -> range:
    return range(len(batch.events))


def test_a_full_batch_goes_at_once_and_its_receipt_names_its_events(driver: Driver) -> None:
    driver.add(events(0, 3))
    assert driver.service.writes == []
    driver.add(events(3, 3))
    assert driver.service.ids() == [names(0, 4)]
    (receipt,) = driver.receipts
    assert (tuple(receipt.event_ids), receipt.destination, receipt.attempts) == (names(0, 4), "fake", 1)
    assert receipt.batch_id == driver.service.writes[0].id
    assert driver.pending() == 2


def test_one_chunk_may_fill_many_batches(driver: Driver) -> None:
    driver.add(events(0, 18))
    assert driver.service.ids() == [names(0, 4), names(4, 8), names(8, 12), names(12, 16)]
    assert driver.pending() == 2


def test_max_bytes_closes_a_batch_and_an_event_above_it_goes_alone(driver: Driver) -> None:
    driver.add(events(0, 3, size=4000))
    driver.add(events(3, 1, size=20_000))
    driver.add(events(4, 1))
    assert driver.service.ids() == [names(0, 2), names(2, 3), names(3, 4)]


def test_max_age_counts_from_a_batchs_first_event(driver: Driver) -> None:
    driver.add(events(0, 1))
    driver.wait(3.0)
    driver.add(events(1, 1))
    driver.wait(1.9)
    assert driver.service.writes == []
    driver.wait(0.2)
    assert driver.service.ids() == [names(0, 2)]
    assert driver.pending() == 0


def test_partitions_never_mix_and_each_has_its_own_age(driver: Driver) -> None:
    driver.add([*events(0, 2, partition="a"), *events(2, 1, partition="b"), *events(3, 1, partition="a")])
    driver.wait(2.0)
    driver.add(events(4, 3, partition="b"))
    driver.add(events(7, 1, partition="c"))
    assert driver.service.ids() == [names(2, 3) + names(4, 7)]
    driver.wait(3.1)
    assert driver.service.ids()[1:] == [names(0, 2) + names(3, 4)]
    driver.wait(2.0)
    assert driver.service.ids()[2:] == [names(7, 8)]
    assert [write.batch.partition for write in driver.service.writes] == ["b", "a", "c"]


def test_windows_never_mix_and_a_windows_end_closes_its_batches(driver: Driver) -> None:
    now = driver.clock.now()
    driver.add(events(0, 2), window_end=now + 3.0)
    driver.wait(2.9)
    assert driver.service.writes == []
    driver.wait(0.2)
    assert driver.service.ids() == [names(0, 2)]
    driver.add(events(2, 2), window_end=now + 300.0)
    driver.add(events(4, 2), window_end=now + 600.0)  # says that the window before is over
    assert driver.service.ids()[1:] == [names(2, 4)]
    assert [write.batch.window_end for write in driver.service.writes] == [now + 3.0, now + 300.0]


def test_catching_up_a_window_that_is_over_does_not_cut_batches(driver: Driver) -> None:
    driver.add(events(0, 2), window_end=driver.clock.now() - 300.0)
    driver.wait(1.0)
    driver.add(events(2, 2), window_end=driver.clock.now() - 301.0)
    assert driver.service.ids() == [names(0, 4)]


def test_a_rejected_event_is_a_dead_letter_and_never_sent_again(driver: Driver) -> None:
    driver.service.script = lambda batch: Outcome(rejected={1: "bad_field: x"})
    driver.add(events(0, 4))
    (letter,) = driver.letters
    assert (letter.event_id, letter.destination, letter.stage) == ("evt_00001", "fake", "write")
    assert (letter.cause, letter.raw, letter.attempts) == ("bad_field: x", b"xx", 1)
    assert letter.at == driver.clock.now()
    assert delivered(driver) == ["evt_00000", "evt_00002", "evt_00003"]
    driver.wait(60.0)
    assert len(driver.service.writes) == 1
    assert driver.pending() == 0


def test_only_what_is_later_is_sent_again_under_the_same_identity_and_memo(driver: Driver) -> None:
    def script(batch: Batch) -> Outcome | None:
        if batch.memo is None:
            batch.remember(b"key")
            return Outcome(later=[1, 3], cause="throttled")
        return None

    driver.service.script = script
    driver.add(events(0, 4))
    assert delivered(driver) == ["evt_00000", "evt_00002"]
    assert driver.pending() == 2
    driver.wait(0.5)
    assert driver.service.ids()[1:] == [("evt_00001", "evt_00003")]
    first, second = driver.service.writes
    assert first.id == second.id
    assert (second.memo, second.attempts) == (b"key", 2)
    assert delivered(driver) == list(names(0, 4))
    assert driver.pending() == 0


def test_too_large_is_sent_in_halves_and_a_single_event_is_a_dead_letter(driver: Driver) -> None:
    def script(batch: Batch) -> Outcome | None:
        large = len(batch.events) > 2 or any(event.id == "evt_00002" for event in batch.events)
        return Outcome(later=all_later(batch), too_large=True, cause="413") if large else None

    driver.service.script = script
    driver.add(events(0, 4))
    assert driver.service.ids() == [names(0, 4), names(0, 2), names(2, 4), names(2, 3), names(3, 4)]
    assert delivered(driver) == ["evt_00000", "evt_00001", "evt_00003"]
    (letter,) = driver.letters
    assert (letter.event_id, letter.cause) == ("evt_00002", "too_large: 413")
    assert driver.pending() == 0


def test_a_network_error_is_later_and_waits_for_its_time(driver: Driver) -> None:
    driver.service.refuse = httpx.ConnectError("refused")
    driver.add(events(0, 4))
    assert driver.pending() == 4
    driver.service.refuse = None
    driver.wait(0.4)
    assert driver.service.writes == []
    driver.wait(0.2)
    assert driver.service.ids() == [names(0, 4)]
    assert driver.receipts[0].attempts == 2
    assert not driver.is_open()


def test_in_an_outage_one_batch_probes_and_afterwards_all_arrives_once_in_order(driver: Driver) -> None:
    driver.service.script = lambda batch: Outcome(later=all_later(batch), cause="503")
    driver.add(events(0, 4))
    for _ in range(4):
        driver.wait(4.0)
    assert driver.is_open()
    before = len(driver.service.writes)
    driver.add(events(4, 40))
    assert len(driver.service.writes) == before  # what arrives meanwhile asks nobody
    for _ in range(10):
        driver.wait(30.0)
    assert {write.ids for write in driver.service.writes} == {names(0, 4)}
    assert before < len(driver.service.writes) <= before + 10
    assert driver.pending() == 44
    driver.service.script = lambda batch: None
    before = len(driver.service.writes)
    driver.wait(30.0)
    assert driver.service.ids()[before:] == [names(n, n + 4) for n in range(0, 44, 4)]
    assert delivered(driver) == list(names(0, 44))
    assert not driver.is_open()
    assert driver.pending() == 0


def test_retry_after_is_honoured_for_all_batches(driver: Driver) -> None:
    outcomes = iter([Outcome(later=[0, 1, 2, 3], retry_after=100.0, cause="429")])
    driver.service.script = lambda batch: next(outcomes, None)
    driver.add(events(0, 4))
    driver.add(events(4, 4))
    driver.wait(99.0)
    assert len(driver.service.writes) == 1
    driver.wait(1.1)
    assert driver.service.ids()[1:] == [names(0, 4), names(4, 8)]


def test_what_only_a_person_can_mend_opens_the_circuit_at_once(driver: Driver) -> None:
    driver.service.script = lambda batch: Outcome(later=all_later(batch), blocked=True, cause="bad token")
    driver.add(events(0, 8))
    assert driver.is_open()
    assert len(driver.service.writes) == 1
    driver.service.script = lambda batch: None
    driver.wait(0.6)
    assert delivered(driver) == list(names(0, 8))


def test_what_only_a_person_can_put_right_needs_you_and_what_is_away_does_not(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    """On one machine and on a cluster, where another worker may go on with the key."""
    driver.service.script = lambda batch: Outcome(later=all_later(batch), cause="503")
    driver.add(events(0, 4))
    for _ in range(4):
        driver.wait(10.0)
    assert driver.is_open()
    assert not driver.needs_you()
    driver.service.script = lambda batch: Outcome(later=all_later(batch), blocked=True, cause="bad token")
    driver.wait(700.0)
    assert driver.needs_you()
    driver.move()
    driver.wait(700.0)
    assert driver.needs_you()
    driver.service.script = lambda batch: None
    driver.wait(700.0)
    assert not driver.needs_you()
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said[0] == "fake is left alone for now and only probed with one batch: 503"
    assert said[1].endswith(" minutes: bad token (needs you: it does not heal by itself)")
    assert said[-1] == "fake takes events again"


def test_beyond_the_dead_letter_limit_events_are_kept(driver: Driver) -> None:
    driver = limited(driver, limit=2)
    driver.service.script = lambda batch: Outcome(rejected=dict.fromkeys([1, 2, 3], "bad: all but one"))
    driver.add(events(0, 4))
    assert [letter.event_id for letter in driver.letters] == list(names(1, 3))
    assert driver.pending() == 1
    assert driver.is_open()
    driver.service.script = lambda batch: None
    driver.wait(60.0)
    assert delivered(driver) == [*names(0, 1), *names(3, 4)]
    assert driver.close()


def test_a_poisoned_batch_that_gets_no_answer_does_not_hold_up_the_others(driver: Driver) -> None:
    def script(batch: Batch) -> Outcome | None:
        if batch.events[0].id == "evt_00000":
            raise httpx.ReadTimeout("no answer")
        return None

    driver.service.script = script
    for first in range(0, 40, 4):
        driver.add(events(first, 4))
        driver.wait(0.1)
    assert delivered(driver) == list(names(4, 40))
    assert driver.pending() == 4


def test_a_bug_in_a_writer_is_raised(driver: Driver) -> None:
    def script(batch: Batch) -> Outcome | None:
        raise KeyError("a bug")

    driver.service.script = script
    with pytest.raises(KeyError, match="a bug"):
        driver.add(events(0, 4))
    assert driver.pending() == 4


def test_a_contradictory_outcome_is_a_bug(driver: Driver) -> None:
    driver.service.script = lambda batch: Outcome(rejected={7: "x"})
    with pytest.raises(ValueError, match="fake: the writer's outcome names event 7"):
        driver.add(events(0, 4))


def test_the_end_of_the_input_sends_everything(driver: Driver) -> None:
    outcomes = iter([httpx.ConnectError("refused")])

    def script(batch: Batch) -> Outcome | None:
        error = next(outcomes, None)
        if error is not None:
            raise error
        return None

    driver.service.script = script
    driver.add(events(0, 4))  # waits for its second attempt
    driver.add([*events(4, 1, partition="a"), *events(5, 2, partition="b")])
    driver.end()
    assert delivered(driver) == list(names(0, 7))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_each_event_arrives_once_or_is_a_dead_letter(driver: Driver, seed: int) -> None:
    dice = random.Random(seed)
    driver = limited(
        driver, BatchPolicy(dice.randint(1, 9), dice.randint(20, 200), dice.choice([0.0, 1.0, 5.0]))
    )
    arrived: Counter[str] = Counter()

    def script(batch: Batch) -> Outcome | None:
        kind = dice.random()
        if kind < 0.1:
            raise httpx.ConnectError("refused")
        if kind < 0.15:
            return Outcome(later=all_later(batch), too_large=True)
        if kind < 0.2:
            return Outcome(later=all_later(batch), retry_after=dice.uniform(0, 5))
        fates = [dice.choice("dddddlr") for _ in batch.events] if kind < 0.5 else ["d"] * len(batch.events)
        arrived.update(event.id for event, fate in zip(batch.events, fates, strict=True) if fate == "d")
        return Outcome(
            rejected={i: "bad: luck" for i, fate in enumerate(fates) if fate == "r"},
            later=[i for i, fate in enumerate(fates) if fate == "l"],
        )

    driver.service.script = script
    first = 0
    while first < 400:
        count = dice.randint(1, 30)
        new = events(first, count, size=dice.randint(0, 30), partition=dice.choice(["a", "b", ""]))
        driver.add(new, window_end=driver.clock.now() // 20 * 20 + 20)
        first += count
        driver.wait(dice.choice([0.0, 0.1, 1.0, 8.0]))
    for _ in range(100):
        driver.wait(31.0)
    assert driver.pending() == 0
    dead = [letter.event_id for letter in driver.letters]
    assert sorted([*arrived.elements(), *dead]) == list(names(0, first))
    assert delivered(driver) == sorted(arrived)
    for write in driver.service.writes:
        assert len({event.type for event in write.batch.events}) == 1
    assert driver.close()


def test_an_outage_is_logged_when_it_begins_every_five_minutes_and_when_it_ends(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.service.script = lambda batch: Outcome(later=all_later(batch), cause="503")
    driver.add(events(0, 4))
    for _ in range(3600 // 30):
        driver.wait(30.0)
    driver.service.script = lambda batch: None
    driver.wait(30.0)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "fake is left alone for now and only probed with one batch: 503"
    assert lines[1] == "fake has taken no events for 5 minutes: 503"
    assert lines[-1] == "fake takes events again"
    assert 12 <= len(lines) <= 14
    assert delivered(driver) == list(names(0, 4))
