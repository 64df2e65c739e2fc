"""A backlog in blocks: written once, read about once, in order, and never too large."""

from __future__ import annotations

import copy

import httpx
import pytest

from tests.transforms.write.drivers import OnTimers
from tests.transforms.write.keyed.cluster import KEY, delivered, let_time_pass, names
from tests.transforms.write.service import events
from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.contract import Outcome
from transforms.write.delivery.outbox import Outbox
from transforms.write.delivery.settling import Entry
from transforms.write.keyed import backlog, inbox
from transforms.write.keyed.backlog import BLOCK_BYTES, CELLS, SMALL_BLOCK_BYTES, SMALL_BLOCKS, SPARE
from transforms.write.keyed.firing import Budget
from transforms.write.keyed.packing import pack_events

THOUSAND = BatchPolicy(max_events=1000, max_bytes=1_000_000, max_age=5.0)


def outage(minutes: int, at_once: int = 500) -> OnTimers:
    """A cluster with 10,000 events a minute of an outage behind it, of which so many came at once."""
    cluster = OnTimers(THOUSAND)
    cluster.service.refuse = httpx.ConnectError("refused")
    for number in range(minutes * 10_000 // at_once):
        cluster.add(events(number * at_once, at_once, size=300))
        cluster.wait(3.0)
    return cluster


@pytest.mark.slow
def test_a_backlog_costs_the_elements_on_top_of_it_nothing() -> None:
    costs = []
    for minutes in (2, 20):
        cluster = outage(minutes)
        assert cluster.pending() == minutes * 10_000
        packed = cluster.store["book"]
        before = cluster.bytes_read
        cluster.arrive(events(900_000, 500, size=300))
        costs.append((cluster.bytes_read - before, len(packed)))
        assert cluster.close()
    assert [read for read, _ in costs] == [0, 0]
    assert costs[1][1] < 4000  # what is known of 200,000 events


SMALL_BLOCKS_HAVE = {"SMALL_BLOCK_BYTES": 4000, "BLOCK_BYTES": 32_000, "ELEMENT_BYTES": 16_000}
SMALL_INBOX_HAS = {"INBOX_BYTES": 2000, "TIDY_BYTES": 1000, "MOVED_BYTES": 16_000}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a thousandth of its size."""
    for room, sizes in ((backlog, SMALL_BLOCKS_HAVE), (inbox, SMALL_INBOX_HAS)):
        for name, value in sizes.items():
            monkeypatch.setattr(room, name, value)


@pytest.mark.usefixtures("small")
def test_a_backlog_is_kept_in_blocks_that_are_not_written_again_and_arrives_in_order() -> None:
    cluster = outage(20)
    key_state = cluster.key_state()
    assert key_state.pending() == 200_000
    assert SMALL_BLOCKS < len(key_state.blocks) < CELLS - SPARE
    largest = max(block.packed for block in key_state.blocks)
    assert 32_000 < largest < 32_000 + 6000  # and the batch that fills it
    written, read = cluster.bytes_written, cluster.bytes_read
    kept = sum(block.packed for block in key_state.blocks)
    # each batch comes into the inbox and goes from there into a block, once; what came while one was joined
    assert written < 2.2 * kept
    cluster.service.refuse = None
    cluster.wait(30.0)
    assert cluster.service.ids() == [names(n, n + 1000) for n in range(0, 200_000, 1000)]
    assert cluster.pending() == 0
    # the real blocks are a thousand times larger, and a round takes as much more
    assert cluster.bytes_read - read < 20 * kept
    assert cluster.bytes_written - written < 0.1 * kept
    assert cluster.close()


@pytest.fixture
def of_seven(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks are large, and of seven batches."""
    monkeypatch.setattr(backlog, "SMALL_BLOCKS", 0)
    monkeypatch.setattr(backlog, "BLOCK_BYTES", 6.5 * len(pack_events(events(0, 1000, size=300))))


def packed_bytes(cluster: OnTimers) -> int:
    """What waits, in the key's state."""
    return cluster.key_state().size()


@pytest.mark.usefixtures("small")
def test_full_batches_go_behind_a_backlog_at_once() -> None:
    """In place of through the inbox, which would write them twice."""
    cluster = outage(20, at_once=1000)
    # the first of them went through the inbox, as nothing was waiting; each is an element
    assert cluster.bytes_written < 1.05 * packed_bytes(cluster)
    cluster.service.refuse = None
    cluster.wait(30.0)
    assert cluster.service.ids() == [names(n, n + 1000) for n in range(0, 200_000, 1000)]
    assert cluster.close()


@pytest.mark.usefixtures("small")
def test_what_is_in_the_inbox_goes_behind_a_backlog_before_a_full_batch_that_came_later() -> None:
    cluster = outage(1)
    for first, count in ((10_000, 300), (10_300, 1000), (11_300, 500), (11_800, 1000)):
        cluster.arrive(events(first, count, size=300))
    assert cluster.key_state().sealed == []
    cluster.service.refuse = None
    cluster.wait(30.0)
    thousands = [names(n, n + 1000) for n in range(0, 10_000, 1000)]
    behind = [names(10_000, 10_300), names(10_300, 11_300), names(11_300, 11_800), names(11_800, 12_800)]
    assert cluster.service.ids() == [*thousands, *behind]
    assert cluster.close()


def rounds(cluster: OnTimers) -> None:
    """Two batches fill a round, as if each took a quarter of a second."""
    cluster.service.refuse = None
    cluster.service.script = lambda batch: cluster.clock.advance(0.3)


@pytest.mark.usefixtures("of_seven")
@pytest.mark.parametrize(("kept", "times"), [(32_000, 1.0), (0, 3.5)])
def test_a_block_is_read_once_as_far_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, kept: int, times: float
) -> None:
    monkeypatch.setattr(backlog, "KEPT_BYTES", kept)
    cluster = outage(20, at_once=1000)
    held, before = packed_bytes(cluster), cluster.bytes_read
    cluster.new_process()
    rounds(cluster)
    cluster.wait(30.0)
    assert cluster.service.ids() == [names(n, n + 1000) for n in range(0, 200_000, 1000)]
    assert (cluster.bytes_read - before) / held == pytest.approx(times, rel=0.1)
    assert cluster.close()


def never_the_first(batch: Batch) -> Outcome | None:
    found = [n for n, event in enumerate(batch.events) if event.id == "evt_00000"]
    return Outcome(later=found, cause="not now") if found else None


@pytest.mark.usefixtures("small")
def test_a_batch_that_waits_for_its_time_holds_up_none_of_those_that_are_not_at_hand_yet() -> None:
    cluster = outage(4, at_once=1000)
    cluster.service.refuse = None

    def script(batch: Batch) -> Outcome | None:
        cluster.clock.advance(0.3)
        return never_the_first(batch)

    cluster.service.script = script
    cluster.clock.advance(60.0)
    started = cluster.clock.monotonic()
    cluster.settle()  # no later timer than for now
    assert delivered(cluster) == list(names(1, 40_000))
    assert cluster.clock.monotonic() - started == pytest.approx(0.3 * len(cluster.service.writes), rel=0.2)
    assert cluster.close()


@pytest.mark.usefixtures("small")
def test_nor_at_the_end_where_what_nobody_tried_would_be_given_up() -> None:
    cluster = outage(4, at_once=1000)
    cluster.service.refuse, cluster.service.script = None, never_the_first
    let_time_pass(cluster)
    cluster.end()
    assert delivered(cluster) == list(names(1, 40_000))
    assert [letter.event_id for letter in cluster.letters] == ["evt_00000"]
    assert cluster.close()


def test_what_is_given_up_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches it is in: with all of them looked at for each, 12,000 took half a minute."""
    looked: list[int] = []
    left = Outbox.left

    def counting(outbox: Outbox) -> list[Entry]:
        found = left(outbox)
        looked.append(len(found))
        return found

    monkeypatch.setattr(Outbox, "left", counting)
    cluster = OnTimers(BatchPolicy(max_events=1, max_bytes=1_000_000, max_age=5.0))
    cluster.service.refuse = httpx.ConnectError("refused")
    for first in range(0, 500, 100):
        cluster.add(events(first, 100))
        cluster.wait(3.0)
    let_time_pass(cluster)
    looked.clear()
    cluster.end()
    assert [letter.event_id for letter in cluster.letters] == list(names(0, 500))
    assert sum(looked) < 3 * 500
    assert cluster.close()


@pytest.mark.usefixtures("small")
def test_what_went_from_the_inbox_into_a_block_does_not_stay_there_too() -> None:
    cluster = outage(1)
    for number in range(100):
        cluster.arrive(events(10_000 + 1500 * number, 500, size=300))
        cluster.arrive(events(10_500 + 1500 * number, 1000, size=300))
        assert sum(map(len, cluster.store.get("inbox", ()))) < 2500  # a batch that takes events yet
    assert cluster.close()


@pytest.mark.usefixtures("of_seven")
def test_what_a_bundle_that_failed_knew_of_a_block_is_forgotten() -> None:
    cluster = outage(2, at_once=1000)
    rounds(cluster)
    cluster.clock.advance(30.0)
    for _ in range(4):
        cluster.fire()
        cluster.fail()  # what it attempted is not attempted again, as this process knows of it
    cluster.settle()
    assert delivered(cluster) == list(names(0, 20_000))
    assert cluster.pending() == 0
    assert cluster.close()


@pytest.mark.usefixtures("of_seven")
def test_a_state_that_the_runner_went_back_to_counts_and_not_what_is_known_of_its_blocks() -> None:
    """Flink goes back to a checkpoint while the workers' process goes on."""
    cluster = outage(2, at_once=1000)
    rounds(cluster)
    cluster.clock.advance(30.0)
    cluster.fire()
    before, timer = copy.deepcopy(cluster.store), cluster.timer
    cluster.fire()
    cluster.fire()
    cluster.arrive(events(20_000, 1000, size=300))  # into a block that lies elsewhere later
    cluster.store, cluster.timer = before, timer
    cluster.receipts = [each for each in cluster.receipts if each.event_ids[0] < "evt_02000"]
    cluster.arrive(events(30_000, 1000, size=300))
    cluster.settle()
    assert delivered(cluster) == [*names(0, 20_000), *names(30_000, 31_000)]
    assert cluster.close()


@pytest.mark.usefixtures("small")
def test_a_probe_that_fails_writes_no_event_again() -> None:
    cluster = outage(5)
    written, made = cluster.bytes_written, cluster.fired
    for _ in range(20):
        cluster.wait(60.0)
    assert cluster.fired - made >= 20
    assert cluster.bytes_written == written
    cluster.new_process()  # what the state alone knows of it
    cluster.service.refuse = None
    cluster.wait(60.0)
    assert cluster.service.writes[0].ids == names(0, 1000)
    assert cluster.service.writes[0].attempts > 20
    assert cluster.pending() == 0
    assert cluster.close()


@pytest.mark.usefixtures("small")
def test_what_is_left_of_a_batch_goes_before_all_others_and_nothing_else_is_written() -> None:
    cluster = outage(5)
    written, last = cluster.bytes_written, {"evt_00999", "evt_01999"}

    def script(batch: Batch) -> Outcome | None:
        found = [n for n, event in enumerate(batch.events) if event.id in last]
        return Outcome(later=found, cause="not now") if found else None

    cluster.service.refuse, cluster.service.script = None, script
    cluster.wait(60.0)
    key_state = cluster.key_state()
    assert key_state.pending() == 2
    assert [block.count for block in key_state.blocks] == [2]
    assert cluster.bytes_written - written < 2000
    last.clear()
    cluster.wait(60.0)
    assert cluster.pending() == 0
    assert sorted(delivered(cluster)) == list(names(0, 50_000))
    assert cluster.close()


@pytest.mark.usefixtures("small")
def test_a_block_that_is_taken_from_while_it_is_added_to_does_not_grow_for_ever() -> None:
    cluster = outage(5)
    rounds(cluster)
    for number in range(100, 400):
        cluster.arrive(events(number * 500, 500, size=300))
        cluster.fire()
    most = max(sum(map(len, cluster.store.get(str(cell), ()))) for cell in range(CELLS))
    assert most < 40_000
    assert cluster.close()


def test_blocks_have_room_for_two_gigabytes() -> None:
    large = CELLS - SPARE - SMALL_BLOCKS - 1
    assert SMALL_BLOCKS * SMALL_BLOCK_BYTES + large * BLOCK_BYTES >= 2_000_000_000
    assert BLOCK_BYTES == 32_000_000


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("lives", [True, False])
def test_the_end_gives_out_some_bytes_a_bundle_whatever_waits(
    lives: bool,
) -> None:
    cluster = outage(5)
    ends = 0

    def end() -> None:
        nonlocal ends
        ends += 1

    let_time_pass(cluster)
    cluster.service.refuse = None if lives else httpx.ConnectError("refused")
    cluster.largest_commit = 0
    while cluster.store:
        with cluster.bundle() as (delivery, beam_state):
            cluster.take(delivery.end(KEY, beam_state, end, Budget(200_000)))
    found = delivered(cluster) if lives else [letter.event_id for letter in cluster.letters]
    assert sorted(found) == list(names(0, 50_000))
    assert ends > 1
    assert cluster.largest_commit < 2 * 200_000 + 40_000  # a batch is begun, and cut when it is too large
    assert cluster.close()
