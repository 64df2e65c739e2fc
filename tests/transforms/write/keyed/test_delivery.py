"""What only a cluster does to a delivery: bundles that are repeated, keys that move, requests that hang."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.transforms.write.drivers import OnTimers
from tests.transforms.write.keyed.cluster import KEY, delivered, let_pass, let_time_pass, names
from tests.transforms.write.service import PATIENCE, events
from transforms.event import Batch
from transforms.held import FORGET_SECONDS, Held
from transforms.write.contract import Outcome
from transforms.write.keyed import delivery
from transforms.write.keyed.attempts import LAST_TRY, DrainTime
from transforms.write.keyed.delivery import POLL_LAST
from transforms.write.keyed.firing import Budget


@pytest.fixture
def cluster() -> Iterator[OnTimers]:
    cluster = OnTimers()
    yield cluster
    assert cluster.close()


def refuse(batch: Batch) -> Outcome:
    return Outcome(later=range(len(batch.events)), cause="503")


def test_a_batch_is_sealed_by_one_bundle_and_attempted_by_a_later_one(cluster: OnTimers) -> None:
    cluster.arrive(events(0, 5))
    assert cluster.service.writes == []
    assert [sealed.count for sealed in cluster.key_state().sealed] == [4]
    cluster.clock.advance(5.0)
    cluster.arrive(events(5, 1))
    cluster.fire()
    assert cluster.service.ids() == [names(0, 4)]
    # what the timer closed by age is committed with its bundle, and goes with the next
    assert [sealed.count for sealed in cluster.key_state().sealed] == [2]
    cluster.settle()
    assert cluster.service.ids() == [names(0, 4), names(4, 6)]


def test_what_a_key_holds_is_known_on_its_worker(cluster: OnTimers, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can be warned of, and reading be slowed past a bound."""
    held = Held()
    monkeypatch.setattr(delivery, "HELD", held)
    cluster.service.script = refuse
    cluster.arrive(events(0, 400))
    cluster.settle()
    size = held.size(cluster.clock.monotonic())
    assert size == cluster.key_state().size()
    assert size > sum(len(one.raw) for one in events(0, 400)) / 20
    cluster.arrive(events(400, 400))
    cluster.clock.advance(5.0)
    cluster.settle()
    assert held.size(cluster.clock.monotonic()) > 1.5 * size
    cluster.service.script = lambda batch: None
    for _ in range(10):
        cluster.clock.advance(60.0)
        cluster.settle()
    assert held.size(cluster.clock.monotonic()) == 0


def test_a_key_without_room_is_heard_of_though_nothing_is_due(
    cluster: OnTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the reading, which it has stopped, would go on as if the key had moved to another worker."""
    held = Held()
    monkeypatch.setattr(delivery, "HELD", held)
    monkeypatch.setattr(delivery, "ROOM", 10)
    cluster.service.script = lambda batch: Outcome(
        later=range(len(batch.events)), cause="503", retry_after=3_000.0
    )
    cluster.arrive(events(0, 4))
    cluster.settle()
    attempts = len(cluster.service.writes)
    for _ in range(10):
        cluster.clock.advance(FORGET_SECONDS - 1)
        cluster.settle()
        assert held.size(cluster.clock.monotonic()) > 10
    assert len(cluster.service.writes) == attempts


def test_a_bundle_that_the_runner_repeats_sends_nothing_twice(cluster: OnTimers) -> None:
    cluster.arrive(events(0, 9))
    cluster.fail()
    assert cluster.receipts == []
    assert cluster.pending() == 9
    assert len(cluster.service.writes) == 2
    cluster.settle()
    assert len(cluster.service.writes) == 2
    assert delivered(cluster) == list(names(0, 8))


def test_another_worker_makes_the_same_batches_of_the_same_state(cluster: OnTimers) -> None:
    cluster.arrive(events(0, 9))
    for _ in range(2):
        cluster.fail()
        cluster.new_process()
    cluster.settle()
    writes = cluster.service.writes
    assert [write.ids for write in writes] == [names(0, 4), names(4, 8)] * 3
    assert len({write.id for write in writes}) == 2


def test_no_bundle_waits_for_a_request_that_hangs(cluster: OnTimers) -> None:
    answer, asked = threading.Event(), threading.Event()

    def script(batch: Batch) -> Outcome | None:
        if batch.events[0].id == "evt_00000":
            asked.set()
            answer.wait(PATIENCE)
        return None

    cluster.service.script = script
    cluster.patience = 0.0
    cluster.add(events(0, 4))
    for second in range(30):
        cluster.add(events(4 + second, 1))
        cluster.wait(POLL_LAST)
    assert cluster.fired < 60  # it is asked for at most each second, and by each batch that closes
    assert asked.wait(PATIENCE)
    assert len(cluster.service.writes) == 1
    assert cluster.pending() == 34
    running = cluster.attempts.find((KEY, cluster.key_state().running))
    assert running is not None
    answer.set()
    assert running.done.wait(PATIENCE)
    cluster.patience = PATIENCE
    cluster.wait(POLL_LAST)
    assert delivered(cluster)[:4] == list(names(0, 4))
    assert cluster.receipts[0].attempts == 1
    cluster.wait(10.0)
    assert delivered(cluster) == list(names(0, 34))


def test_a_request_under_way_when_its_key_moves_is_made_again(cluster: OnTimers) -> None:
    answer = threading.Event()
    hang_until(cluster, answer)
    before = cluster.attempts
    cluster.new_process()
    cluster.service.script = lambda batch: None
    cluster.patience = PATIENCE
    cluster.wait(POLL_LAST)
    assert cluster.service.ids() == [names(0, 4)] * 2
    assert len({write.id for write in cluster.service.writes}) == 1
    assert delivered(cluster) == list(names(0, 4))
    answer.set()
    assert before.close(PATIENCE)


def test_state_alone_remembers_an_outage(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    cluster.add(events(0, 10))
    while not cluster.is_open():
        cluster.wait(4.0)
    made = len(cluster.service.writes)
    cluster.new_process()
    cluster.add(events(10, 4))
    assert len(cluster.service.writes) == made
    assert cluster.key_state().why == "503"
    cluster.wait(30.0)
    assert len(cluster.service.writes) == made + 1
    last = cluster.service.writes[-1]
    assert last.attempts == len([write for write in cluster.service.writes if write.id == last.id]) > 1


def test_a_bug_does_not_stay_for_ever(cluster: OnTimers) -> None:
    outcomes = iter([KeyError("a bug")])

    def script(batch: Batch) -> Outcome | None:
        error = next(outcomes, None)
        if error is not None:
            raise error
        return None

    cluster.service.script = script
    with pytest.raises(KeyError):
        cluster.add(events(0, 4))
    cluster.settle()  # the runner repeats the bundle
    assert delivered(cluster) == list(names(0, 4))


def test_the_clock_set_back_delays_nothing(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    cluster.add(events(0, 4))
    while not cluster.is_open():
        cluster.wait(4.0)
    cluster.clock.advance(-1_000_000.0)
    cluster.service.script = lambda batch: None
    cluster.add(events(4, 4))
    cluster.fire()
    cluster.wait(0.0)
    assert delivered(cluster) == list(names(0, 8))


def test_a_timer_that_was_lost_is_set_again_by_the_next_element(cluster: OnTimers) -> None:
    cluster.arrive(events(0, 1))
    cluster.timer = None
    cluster.clock.advance(60.0)
    cluster.add(events(1, 1))
    assert delivered(cluster) == list(names(0, 2))


def test_a_new_key_alone_asks_for_the_timer_at_the_end(cluster: OnTimers) -> None:
    for first in range(3):
        cluster.add(events(first, 1))
    assert cluster.ends == 1
    cluster.end()
    assert cluster.store == {}
    cluster.fire()  # a timer that comes after the end finds nothing and sets nothing
    assert cluster.timer is None


@pytest.mark.parametrize(
    "time", [DrainTime(idle=25.0), DrainTime(idle=25.0, at_most=9.0), DrainTime(idle=0.5)]
)
def test_drained_while_down_the_rest_becomes_dead_letters(cluster: OnTimers, time: DrainTime) -> None:
    cluster.drain_time = time
    cluster.new_process()
    cluster.service.refuse = httpx.ConnectError("refused")
    cluster.add(events(0, 30))
    started = cluster.clock.monotonic()
    let_time_pass(cluster)
    cluster.end()
    longest = min(time.idle, time.at_most)
    assert (1 - LAST_TRY) * longest - 0.001 <= cluster.clock.monotonic() - started <= longest
    assert [letter.event_id for letter in cluster.letters] == list(names(0, 30))
    assert cluster.letters[0].cause.startswith("not_delivered: the job was drained, and fake did not take it")
    assert "refused" in cluster.letters[0].cause
    assert cluster.letters[0].raw == b"xx"
    assert cluster.store == {}


def test_a_drain_waits_for_a_destination_that_comes_back(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    cluster.add(events(0, 30))
    tries = iter([refuse, refuse])
    cluster.service.script = lambda batch: next(tries, lambda batch: None)(batch)
    let_time_pass(cluster)
    cluster.end()
    assert delivered(cluster) == list(names(0, 30))
    assert cluster.letters == []


def test_a_drain_ends_with_one_last_try_whatever_the_back_off_is(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    cluster.add(events(0, 30))
    while not cluster.is_open():
        cluster.wait(4.0)
    back = cluster.clock.monotonic() + 15.0

    def script(batch: Batch) -> Outcome | None:
        return None if cluster.clock.monotonic() > back else refuse(batch)

    cluster.service.script = script
    let_time_pass(cluster)
    cluster.end()
    assert delivered(cluster) == list(names(0, 30))
    assert cluster.letters == []


def test_keys_that_end_one_after_another_wait_together(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    let_time_pass(cluster)
    cluster.add(events(0, 30))
    cluster.end()
    cluster.clock.advance(10.0)
    cluster.arrive(events(30, 30))  # the state of another key in the same process
    before, made = cluster.clock.monotonic(), len(cluster.service.writes)
    cluster.end("001")
    assert cluster.clock.monotonic() == before
    assert len(cluster.service.writes) == made
    assert [letter.event_id for letter in cluster.letters] == list(names(0, 60))


def test_a_key_that_ends_late_at_a_destination_that_is_well_delivers(cluster: OnTimers) -> None:
    cluster.add(events(0, 4))
    cluster.end()
    cluster.clock.advance(1000.0)  # another destination had the threads of this worker
    cluster.arrive(events(4, 4))
    cluster.end("001")
    assert delivered(cluster) == list(names(0, 8))
    assert cluster.letters == []


def test_an_end_that_the_runner_repeats_is_tried_again(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    let_time_pass(cluster)
    stores = {}
    for number, key in enumerate(("000", "001")):
        cluster.arrive(events(30 * number, 30))
        stores[key] = copy.deepcopy(cluster.store)
        cluster.end(key)
    cluster.service.script = lambda batch: None
    for key, store in stores.items():
        cluster.store.update(copy.deepcopy(store))
        cluster.end(key)
    assert delivered(cluster) == list(names(0, 60))


def test_a_request_that_outlasts_the_drain_is_a_dead_letter_too(cluster: OnTimers) -> None:
    answer = threading.Event()
    hang_until(cluster, answer)
    cluster.clock.wait = lambda event, timeout: _at_once(cluster, event, timeout)  # type: ignore[method-assign]
    cluster.end()
    assert [letter.event_id for letter in cluster.letters] == list(names(0, 4))
    assert cluster.letters[0].cause.endswith("; it was being sent and may have arrived")
    answer.set()


def test_a_request_that_lasts_is_waited_for_as_long_as_others_get_through(cluster: OnTimers) -> None:
    answer = threading.Event()
    hang_until(cluster, answer)
    waits = 0

    def wait(event: threading.Event, timeout: float | None) -> bool:
        nonlocal waits
        if threading.current_thread() is not threading.main_thread():
            return event.wait(PATIENCE)
        waits += 1
        if waits == 5:
            answer.set()
            return event.wait(PATIENCE)
        cluster.clock.advance((timeout or 0.0) * 0.9)
        cluster.attempts.drain.progressed()  # as another key's deliveries do
        cluster.clock.advance((timeout or 0.0) * 0.1)
        return False

    cluster.clock.wait = wait  # type: ignore[method-assign]
    cluster.end()
    assert delivered(cluster) == list(names(0, 4))
    assert cluster.letters == []


def test_a_service_that_asks_for_time_while_it_rejects_is_not_asked_in_a_loop(cluster: OnTimers) -> None:
    waits: list[float | None] = []

    def wait(event: threading.Event, timeout: float | None) -> bool:
        if threading.current_thread() is threading.main_thread() and timeout is not None:
            waits.append(timeout)
        return let_pass(cluster, event, timeout)

    def script(batch: Batch) -> Outcome:
        return Outcome(rejected=dict.fromkeys(range(len(batch.events)), "bad: all"), retry_after=3.0)

    cluster.service.script = script
    cluster.arrive(events(0, 12))
    cluster.clock.wait = wait  # type: ignore[method-assign]
    cluster.end()
    assert len(cluster.letters) == 12
    assert [pause for pause in waits if pause == 3.0] == [3.0, 3.0, 3.0]


def hang_until(cluster: OnTimers, answer: threading.Event) -> None:
    """The first request is under way, and no bundle waits for it."""

    asked = threading.Event()

    def hang(batch: Batch) -> None:
        asked.set()
        answer.wait(PATIENCE)

    cluster.service.script = hang
    cluster.patience = 0.0
    cluster.add(events(0, 4))
    assert asked.wait(PATIENCE)  # or its thread could ask only after the script has changed


def _at_once(cluster: OnTimers, event: threading.Event, timeout: float | None) -> bool:
    cluster.clock.advance(timeout or 0.0)
    return event.is_set()


def test_an_end_that_another_process_goes_on_with_is_given_its_time_there(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    cluster.add(events(0, 30))
    let_time_pass(cluster)
    with cluster.bundle() as (delivery, beam_state):
        cluster.take(delivery.end(KEY, beam_state, budget=Budget(1)))
    assert len(cluster.letters) == 1
    assert cluster.key_state().pending() == 29
    cluster.service.script = lambda batch: None
    cluster.new_process()
    cluster.end()
    assert delivered(cluster) == list(names(1, 30))


def test_keys_of_one_bundle_share_what_it_may_give_out(cluster: OnTimers) -> None:
    cluster.service.script = refuse
    cluster.add(events(0, 30))
    let_time_pass(cluster)
    spent = Budget(0)
    with cluster.bundle() as (delivery, beam_state):
        cluster.take(delivery.end(KEY, beam_state, budget=spent))
    assert cluster.letters == []
    assert cluster.pending() == 30


def test_an_end_that_is_repeated_may_leave_less_of_a_batch_than_the_first_time(cluster: OnTimers) -> None:
    """What came to nothing is tried anew, and the attempt that followed it had been of all."""
    answers = [[0, 1, 2, 3], [3], [0, 1, 2], []]

    def script(batch: Batch) -> Outcome:
        return Outcome(later=answers.pop(0), cause="503")

    cluster.arrive(events(0, 4))
    cluster.service.script = script
    let_time_pass(cluster)
    with contextlib.suppress(ZeroDivisionError), cluster.bundle() as (delivery, beam_state):
        for result in delivery.end(KEY, beam_state):
            cluster.take(iter([result]))
            raise ZeroDivisionError
    assert len(answers) == 2, "two attempts were made"
    cluster.end()
    assert delivered(cluster) == list(names(0, 4))
    assert answers == []
