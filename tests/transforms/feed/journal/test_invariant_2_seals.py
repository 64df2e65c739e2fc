"""A seal is committed before its batch's first attempt and kept until the cursor has passed it: whichever
write was the last before kill -9, the journal knows exactly what is settled and what is not."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.servers.tiers import first
from tests.transforms.feed.journal.random_lane import RandomLane
from tests.transforms.feed.journal.support import copy_files, events, open_journal, recording_database
from transforms.event import Batch
from transforms.write.delivery.ledger import Settlement


@pytest.mark.parametrize("seed", first(2, range(8)))
def test_after_any_write_everything_unsettled_comes_back_exactly_once(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lanes: list[RandomLane] = []
    checked = 0

    def check_what_a_crash_leaves_now() -> None:
        nonlocal checked
        if not lanes:
            return
        checked += 1
        copy = copy_files(tmp_path / "journal", tmp_path / "crashed")
        journal = open_journal(copy)
        assert journal.end == lanes[0].truth.end
        for lane in lanes:
            lane.truth.check(journal, journal.cursors[lane.cursor.name])
        journal.close()
        shutil.rmtree(copy)

    journal = open_journal(tmp_path / "journal", database=recording_database(check_what_a_crash_leaves_now))
    journal.append(events(0, 40), [])
    lanes.extend([RandomLane(journal, name, rng) for name in ("early", "slow")])
    for _ in range(40):
        if rng.random() < 0.4:
            end = journal.end + rng.randint(1, 60)
            for lane in lanes:
                lane.truth.end = end
            journal.append(events(journal.end, end), [])
        lanes[0].step()
        if rng.random() < 0.5:
            lanes[1].step()
        journal.trim()
    for lane in lanes:
        lane.settle_all()
    journal.trim()
    assert checked > 40
    assert journal.bytes == 0
    assert all(lane.cursor.position == journal.end and not lane.truth.sealed for lane in lanes)
    journal.close()


def test_a_batch_settled_out_of_order_is_not_offered_again_after_a_crash(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "a")
    cursor = journal.cursor("s3")
    journal.append(events(0, 30), [])
    batches = [Batch(events(n, n + 10), range(n, n + 10)) for n in (0, 10, 20)]
    cursor.commit((), batches)
    cursor.commit([Settlement(batches[1], batches[1].offsets)], ())
    assert cursor.position == 0

    crashed = open_journal(copy_files(tmp_path / "a", tmp_path / "b"))
    again = crashed.cursor("s3")
    assert [batch.id for batch in again.recover()] == [batches[0].id, batches[2].id]
    assert set(again.is_sealed(0, 30)) == set(range(30))
    assert again.is_sealed(30, 40) == ()
    for batch in again.recover():
        again.commit([Settlement(batch, batch.offsets)], ())
    assert again.position == 30
    assert crashed.books()["s3"].balanced
    crashed.close()
    journal.close()


def test_a_recovered_batch_remembers_into_its_own_seal(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "a")
    cursor = journal.cursor("s3")
    journal.append(events(0, 3), [])
    cursor.commit((), [Batch(events(0, 3), range(3))])

    crashed = open_journal(copy_files(tmp_path / "a", tmp_path / "b"))
    [batch] = crashed.cursor("s3").recover()
    batch.remember(b"bucket/key")
    twice = open_journal(copy_files(tmp_path / "b", tmp_path / "c"))
    assert [batch.memo for batch in twice.cursor("s3").recover()] == [b"bucket/key"]
    for opened in (journal, crashed, twice):
        opened.close()


def test_a_cursor_read_in_the_middle_of_its_life_continues_its_numbers(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("s3")
    journal.append(events(0, 20), [])
    old = Batch(events(0, 10), range(10))
    cursor.commit((), [old])
    journal.close()

    journal = open_journal(tmp_path)
    cursor = journal.cursor("s3")
    new = Batch(events(10, 20), range(10, 20))
    cursor.commit((), [new])
    assert new.seal > old.seal
    assert [batch.id for batch in cursor.recover()] == [old.id, new.id]
    journal.close()
