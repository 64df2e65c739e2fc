"""An event becomes a dead letter only when it is refused while others are not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection

import pytest

from tests.transforms.write.drivers import Driver, OnTicks, OnTimers
from tests.transforms.write.service import events
from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.contract import Outcome
from transforms.write.delivery.refusals import DeadLetterLimit

Script = Callable[[Batch], "Outcome | None"]
TWENTY = BatchPolicy(max_events=20, max_bytes=100_000, max_age=1.0)


def at_once(bad: Collection[str]) -> Script:
    """Names every bad event of a batch, and takes the others."""
    return lambda batch: Outcome(
        rejected={i: "bad: event" for i, one in enumerate(batch.events) if one.id in bad}
    )


def all_or_nothing(bad: Collection[str]) -> Script:
    """Takes nothing of a batch in which one is bad, and names them (BigQuery's append)."""

    def script(batch: Batch) -> Outcome | None:
        rejected = {i: "bad: row" for i, one in enumerate(batch.events) if one.id in bad}
        later = [i for i in range(len(batch.events)) if i not in rejected]
        return Outcome(rejected=rejected, later=later) if rejected else None

    return script


def one_by_one(bad: Collection[str]) -> Script:
    """Takes what stands before the first bad one (HEC)."""

    def script(batch: Batch) -> Outcome | None:
        for index, one in enumerate(batch.events):
            if one.id in bad:
                rest = range(index + 1, len(batch.events))
                return Outcome(rejected={index: "bad: object"}, later=rest, retry_after=0.0)
        return None

    return script


def unnamed(bad: Collection[str]) -> Script:
    """Says that something is bad, not what (Datadog's 400)."""

    def script(batch: Batch) -> Outcome | None:
        if not any(one.id in bad for one in batch.events):
            return None
        if len(batch.events) == 1:
            return Outcome(rejected={0: "bad: request"}, cause="refused")
        return Outcome(later=range(len(batch.events)), too_large=True, cause="refused")

    return script


class Everything(frozenset[str]):
    """Every event is bad."""

    def __contains__(self, _: object) -> bool:
        return True


SERVICES = [at_once, all_or_nothing, one_by_one, unnamed]


@pytest.fixture(params=[OnTicks, OnTimers], ids=["ticks", "timers"])
def make(request: pytest.FixtureRequest) -> Callable[[], Driver]:
    return lambda: request.param(TWENTY)


def ids(driver: Driver) -> list[str]:
    return sorted(letter.event_id for letter in driver.letters)


def delivered(driver: Driver) -> list[str]:
    return sorted(event_id for receipt in driver.receipts for event_id in receipt.event_ids)


def pass_time(driver: Driver, until: Callable[[], bool], steps: int = 400) -> None:
    for _ in range(steps):
        if until():
            return
        driver.wait(31.0)


@pytest.mark.parametrize("service", SERVICES)
def test_a_refusal_of_everything_is_an_outage_and_no_event_is_lost_to_it(
    make: Callable[[], Driver], service: Callable[[Collection[str]], Script]
) -> None:
    driver = make()
    driver.service.script = service(Everything())
    driver.add(events(0, 100))
    for _ in range(50):
        driver.wait(31.0)
    assert driver.letters == []
    assert driver.pending() == 100
    assert driver.is_open()
    attempts = len(driver.service.writes)
    driver.wait(31.0)
    assert len(driver.service.writes) <= attempts + 8  # a probe, which may be cut in halves
    driver.service.script = lambda batch: None
    pass_time(driver, lambda: driver.pending() == 0)
    assert delivered(driver) == [one.id for one in events(0, 100)]
    assert driver.letters == []
    assert driver.close()


@pytest.mark.parametrize("service", SERVICES)
def test_one_that_begins_to_refuse_everything_makes_one_dead_letter_at_most(
    make: Callable[[], Driver], service: Callable[[Collection[str]], Script]
) -> None:
    driver = make()
    driver.add(events(0, 20))
    assert len(delivered(driver)) == 20
    driver.service.script = service(Everything())
    driver.add(events(20, 100))
    for _ in range(50):
        driver.wait(31.0)
    assert len(driver.letters) <= 1
    assert driver.is_open()
    driver.service.script = lambda batch: None
    pass_time(driver, lambda: driver.pending() == 0)
    assert len(delivered(driver)) + len(driver.letters) == 120
    assert driver.close()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("bad", [[0], [7], [19], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [*range(7), *range(8, 20)]])
def test_what_is_refused_beside_others_is_dead_and_all_else_arrives(
    make: Callable[[], Driver], service: Callable[[Collection[str]], Script], bad: list[int]
) -> None:
    driver = make()
    names = [one.id for one in events(0, 20)]
    poison = {names[index] for index in bad}
    driver.service.script = service(poison)
    driver.add(events(0, 20))
    pass_time(driver, lambda: driver.pending() == 0)
    assert ids(driver) == sorted(poison)
    assert delivered(driver) == [name for name in names if name not in poison]
    assert not driver.is_open()
    assert driver.close()


@pytest.mark.parametrize("service", SERVICES)
def test_one_that_is_refused_alone_waits_for_the_next_that_is_taken(
    make: Callable[[], Driver], service: Callable[[Collection[str]], Script]
) -> None:
    driver = make()
    (poison,) = events(0, 1)
    driver.service.script = service({poison.id})
    driver.add([poison])
    for _ in range(20):
        driver.wait(31.0)
    assert driver.letters == []
    assert driver.pending() == 1
    driver.add(events(1, 1))
    pass_time(driver, lambda: driver.pending() == 0, steps=4)
    assert ids(driver) == [poison.id]
    assert delivered(driver) == [events(1, 1)[0].id]
    assert not driver.is_open()
    assert driver.close()


def test_in_a_quiet_feed_one_that_is_refused_after_others_were_taken_is_dead_at_once(
    make: Callable[[], Driver],
) -> None:
    driver = make()
    driver.add(events(0, 20))
    driver.service.script = one_by_one(Everything())
    driver.add(events(20, 1))
    driver.wait(2.0)
    assert len(driver.letters) == 1
    assert driver.pending() == 0
    assert driver.close()


def test_a_destination_that_refuses_everything_says_what_it_says_and_that_nothing_is_lost() -> None:
    driver = OnTicks(TWENTY)
    driver.service.script = one_by_one(Everything())
    driver.add(events(0, 5))
    for _ in range(10):
        driver.wait(31.0)
    status = driver._delivery.status()
    assert status.circuit.needs_you
    assert not status.dead_letters_go_on
    why = status.circuit.why
    assert "fake refuses every event that it is sent" in why
    assert "bad: object" in why
    assert "events are kept" in why
    assert driver.close()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_refused_only_what_is_bad_is_dead_and_all_of_it(
    make: Callable[[], Driver], seed: int
) -> None:
    """Services with moods: outages, refusals of everything, and between them the truth about each event."""
    dice = random.Random(seed)
    driver = make()
    service = dice.choice(SERVICES)
    total = dice.randint(1, 150)
    everyone = events(0, total)
    bad = {one.id for one in everyone if dice.random() < dice.choice([0.0, 0.05, 0.5])}
    first = 0
    while first < total:
        mood = dice.choice(["true", "refuses all", "down"])
        if mood == "true":
            driver.service.script = service(bad)
        elif mood == "refuses all":
            driver.service.script = dice.choice(SERVICES)(Everything())
        else:
            driver.service.script = lambda batch: Outcome(later=range(len(batch.events)), cause="busy")
        count = dice.randint(1, 30)
        driver.add(everyone[first : first + count])
        first += count
        for _ in range(dice.randint(0, 5)):
            driver.wait(dice.choice([0.0, 2.0, 31.0]))
    driver.service.script = service(bad)
    driver.add(events(total, 1))  # there always is a next one
    pass_time(driver, lambda: driver.pending() == 0)
    assert driver.pending() == 0
    dead, arrived = ids(driver), delivered(driver)
    assert sorted([*dead, *arrived]) == sorted([*(one.id for one in everyone), events(total, 1)[0].id])
    assert not bad & set(arrived)
    assert driver.close()


def test_what_the_writer_itself_finds_unfit_needs_no_evidence(make: Callable[[], Driver]) -> None:
    driver = make()

    def script(batch: Batch) -> Outcome:
        every = range(len(batch.events))
        return Outcome(rejected=dict.fromkeys(every, "too_old: x"), unsent=every)

    driver.service.script = script
    driver.add(events(0, 20))
    assert len(driver.letters) == 20
    assert driver.close()


def test_dead_letters_are_logged_when_they_begin_and_once_a_minute(
    make: Callable[[], Driver], caplog: pytest.LogCaptureFixture
) -> None:
    driver = make()
    bad = {one.id for number in range(0, 200, 20) for one in events(number, 2)}
    driver.service.script = at_once(bad)
    for number in range(0, 200, 20):
        driver.add(events(number, 20))
        assert not isinstance(driver, OnTicks) or driver._delivery.status().dead_letters_go_on
        driver.wait(20.0)
    lines = [record.getMessage() for record in caplog.records if "dead letters" in record.getMessage()]
    assert lines == [
        "fake refused 2 events, which are dead letters now; the last one: bad: event",
        *["fake refused 6 events, which are dead letters now; the last one: bad: event"] * 3,
    ]
    driver.wait(60.0)
    assert not isinstance(driver, OnTicks) or not driver._delivery.status().dead_letters_go_on
    assert driver.close()


# The rule by itself


def test_a_single_refusal_after_a_delivery_is_believed_and_the_next_one_is_not() -> None:
    rule = DeadLetterLimit(None)
    assert rule.believes(["a"]) == set()
    rule.delivered(())
    assert rule.believes(["a"]) == {"a"}  # it was refused before, and others were taken since
    assert rule.believes(["b"]) == {"b"}
    assert rule.believes(["c"]) == set()
    assert rule.believes(["c"]) == set()
    assert rule.suspects("c")
    rule.delivered(())
    assert rule.believes(["d", "e"]) == set()
    assert rule.believes(["c"]) == {"c"}


def test_one_that_is_believed_and_beyond_the_limit_stays_believed() -> None:
    rule = DeadLetterLimit(1)
    rule.delivered(())
    assert rule.allow("a", 0.0)
    assert not rule.allow("b", 1.0)
    assert rule.believes(["b"]) == {"b"}
    assert rule.allow("b", 3600.0)


def test_what_is_left_of_a_batch_that_was_taken_in_part_is_to_blame_until_something_fails() -> None:
    rule = DeadLetterLimit(None)
    rule.delivered(["a"], left=["b", "c", "d", "e"])
    assert rule.believes(["b", "c"]) == {"b", "c"}
    rule.failed()
    assert rule.believes(["d", "e"]) == set()


def test_what_was_cut_from_one_batch_proves_for_all_of_it() -> None:
    rule = DeadLetterLimit(None)
    rule.cut(["a", "b", "c", "d"])
    rule.cut(["a", "b"])
    assert rule.believes(["c", "d"]) == set()
    rule.delivered(["a"])
    assert rule.believes(["b", "c", "d"]) == {"b", "c", "d"}


def test_suspicion_is_bounded() -> None:
    rule = DeadLetterLimit(None)
    rule.believes([str(number) for number in range(100_010)])
    assert not rule.suspects("0")
    assert rule.suspects("100009")


def test_a_bounded_bundle_may_believe_any_number_after_a_delivery() -> None:
    rule = DeadLetterLimit(None, believed=math.inf)
    assert rule.believes(["a"]) == set()
    rule.delivered(())
    assert rule.believes([str(number) for number in range(100)]) == {str(number) for number in range(100)}
