"""Receipts: what was received, and what became of it, is found again for as long as it is kept."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.transforms.feed.journal.support import copy_files, events, open_journal
from tests.transforms.write.manual_clock import ManualClock
from transforms import ulid
from transforms.event import Batch, Event
from transforms.feed.intake import Gap
from transforms.feed.journal import Journal, JournalError
from transforms.feed.journal.receipts import Found, Receipts, Standing
from transforms.write.delivery.ledger import Settlement

DAY = 86_400.0


def id_at(at: float, rng: random.Random) -> str:
    """An event id as the service makes one at a moment (epoch seconds)."""
    number = round(at * 1000) << 80 | rng.getrandbits(80)
    return ulid.unpack(number.to_bytes(ulid.SIZE, "big"))


def made(at: float, count: int, seed: int = 0) -> list[Event]:
    rng = random.Random(f"{at} {seed}")
    ids = [id_at(at + n / 1000, rng) for n in range(count)]
    return [Event(each, "t", "", b'{"id":"%s"}' % each.encode()) for each in ids]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    opened = keeping(tmp_path, clock)
    yield opened
    opened.close()


def keeping(directory: Path, clock: ManualClock, **more: Any) -> Journal:
    return open_journal(directory, clock=clock, **{"receipt_retention": DAY, **more})


def find(directory: Path, *ids: str) -> list[Found]:
    with contextlib.closing(Receipts(directory)) as receipts:
        return list(receipts.find(ids))


def where(directory: Path, event_id: str, destination: str = "s3") -> Standing:
    [found] = find(directory, event_id)
    assert found.received_at is not None
    return found.destinations[destination]


def seal(journal: Journal, name: str, taken: Sequence[Event], first: int, step: int = 1) -> Batch:
    batch = Batch(taken, range(first, first + step * len(taken), step))
    journal.cursor(name).commit([], [batch])
    return batch


def test_each_state_is_told_apart(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    s3, _ = journal.cursor("s3"), journal.cursor("kafka")
    taken = made(clock.now(), 6)
    journal.append(taken, [], connection="sse 1")
    at = clock.now()
    clock.advance(5)
    batch = seal(journal, "s3", taken[:5], 0)
    batch.attempts = 2
    s3.commit(
        [
            Settlement(batch, [0, 2], [1, 3], clock.now(), "s3://b/key", ["too_large: x", "bad: y"], "busy"),
        ],
        [],
    )
    received = [found.received_at for found in find(tmp_path, *[event.id for event in taken])]
    assert received == [pytest.approx(at, abs=0.001)] * 6
    assert (
        find(tmp_path, taken[0].id)[0].connection == ""
    )  # not in a block yet: only a clean end or a block tells
    assert where(tmp_path, taken[0].id) == Standing("delivered", at + 5, "s3://b/key", "", 2)
    assert where(tmp_path, taken[1].id) == Standing("dead_letter", at + 5, "", "too_large: x", 2)
    assert where(tmp_path, taken[3].id).cause == "bad: y"
    assert where(tmp_path, taken[4].id) == Standing("pending", at + 5, "", "busy", 2)
    assert where(tmp_path, taken[5].id) == Standing("pending", at + 5, "", "busy", 0)
    assert where(tmp_path, taken[0].id, "kafka") == Standing("pending")
    journal.cursor("later")
    assert "later" not in find(tmp_path, taken[0].id)[0].destinations, "it was not there yet"
    left = Batch(taken[4:5], [4], seal=batch.seal, attempts=3)
    s3.commit([Settlement(left, [4], at=clock.now(), place="s3://b/other")], [])
    assert where(tmp_path, taken[4].id) == Standing("delivered", at + 5, "s3://b/other", "", 3)
    assert where(tmp_path, taken[5].id) == Standing("pending"), "the trouble is over"


def test_what_says_the_same_is_one_receipt(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    s3 = journal.cursor("s3")
    taken = made(clock.now(), 60)
    journal.append(taken, [])
    batches = [Batch(taken[start::3], range(start, 60, 3), attempts=1) for start in range(3)]
    s3.commit([], batches)
    places = ("index main", "index main", "index other")
    settled = [
        Settlement(batch, batch.offsets, at=clock.now(), place=place)
        for batch, place in zip(batches, places, strict=True)
    ]
    s3.commit(settled, [])
    assert s3.position == 60
    assert [where(tmp_path, each.id).place for each in taken] == [*places] * 20
    with sqlite3.connect(tmp_path / "journal.sqlite3") as connection:
        rows = connection.execute("SELECT first, ends, said, length(offsets) FROM receipts ORDER BY first")
        assert rows.fetchall() == [(0, 59, "index main", 20 * 16), (2, 60, "index other", 20 * 16)]


def test_they_outlive_the_events(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    s3 = journal.cursor("s3")
    ids: list[str] = []
    for start in range(0, 3000, 100):
        taken = made(clock.now(), 100) if start % 200 else events(start, start + 100)
        ids += [event.id for event in taken]
        journal.append(taken, [], connection="websocket 2" if start % 300 else "webhook")
        batch = seal(journal, "s3", taken, start)
        s3.commit([Settlement(batch, batch.offsets, at=clock.now(), place=f"key {start}")], [])
        clock.advance(1)
        journal.trim()
    clock.advance(10)
    journal.trim()
    assert journal._chunks.trimmed == 3000, "no event is kept"
    for number, found in enumerate(find(tmp_path, *ids)):
        start = number // 100 * 100
        assert found.destinations["s3"].place == f"key {start}"
        assert found.connection == ("websocket 2" if start % 300 else "webhook")
        assert found.received_at == pytest.approx(ManualClock().now() + start / 100, abs=0.001)


def test_an_unknown_id_is_not_received_and_says_into_which_gap_it_fell(
    journal: Journal, tmp_path: Path, clock: ManualClock
) -> None:
    journal.append(made(clock.now(), 1), [])
    clock.advance(60)
    journal.open_gap("cut")
    since = clock.now()
    clock.advance(30)
    journal.close_gap()
    clock.advance(60)
    inside, after = made(since + 15, 1)[0].id, made(clock.now(), 1)[0].id
    first, second, third = find(tmp_path, inside, after, "no ulid")
    assert first.gap == Gap(since - 60, since + 30, "cut"), "from when it was last heard"
    assert (first.received_at, first.expired, first.destinations) == (None, False, {})
    assert (second.received_at, second.gap, second.expired) == (None, None, False)
    assert (third.received_at, third.gap, third.expired) == (None, None, False)


def test_the_oldest_go_first_by_age(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    s3 = journal.cursor("s3")
    old, new = made(clock.now(), 50), made(clock.now() + DAY / 2, 50)
    for first, taken in ((0, old), (50, new)):
        journal.append(taken, [])
        batch = seal(journal, "s3", taken, first)
        s3.commit([Settlement(batch, batch.offsets, at=clock.now(), place=f"key {first}")], [])
        clock.advance(10)
        journal.trim()
        clock.advance(DAY / 2 - 10)
    clock.advance(20)
    journal.trim()
    expired, kept = find(tmp_path, old[3].id, new[3].id)
    assert expired.expired
    assert expired.destinations["s3"].state == "not_kept"
    assert kept.destinations["s3"].place == "key 50"
    assert journal._database.rows("SELECT count(*) FROM receipts") == [(1,)]
    with contextlib.closing(Receipts(tmp_path)) as receipts:
        assert receipts.kept_since() == pytest.approx(ManualClock().now(), abs=1)


def test_time_in_which_nobody_runs_makes_nothing_old(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = keeping(tmp_path, clock)
    journal.cursor("s3")
    taken = made(clock.now(), 5)
    journal.append(taken, [])
    journal.close()
    journal = keeping(tmp_path, ManualClock(clock.now() + 10 * DAY))
    journal.trim()
    assert not find(tmp_path, taken[0].id)[0].expired
    journal.close()


def test_what_is_pending_is_not_too_old(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    journal.cursor("s3")
    taken = made(clock.now(), 5)
    journal.append(taken, [])
    for _ in range(3):
        clock.advance(DAY)
        journal.trim()
    assert where(tmp_path, taken[0].id) == Standing("pending")


def test_they_keep_within_their_bytes_in_short_transactions(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = keeping(tmp_path, clock, receipt_max_bytes=100_000)
    journal._kept.block = 256
    s3 = journal.cursor("s3")
    ids: list[str] = []
    for start in range(0, 20_000, 100):
        taken = made(clock.now(), 100)
        ids += [event.id for event in taken]
        journal.append(taken, [])
        batch = seal(journal, "s3", taken, start)
        s3.commit([Settlement(batch, batch.offsets, at=clock.now(), place=f"key {start}")], [])
        clock.advance(1)
        journal.trim()
        assert journal._kept.bytes < 100_000 + 256 * 12 + 1000
    assert 5_000 < 20_000 - journal._kept.first < 9_000, "some twelve bytes an event"
    rows = journal._database.rows("SELECT min(first), count(*) FROM receipts")[0]
    assert int(str(rows[0])) >= journal._kept.first - 100
    assert find(tmp_path, ids[0])[0].expired
    assert where(tmp_path, ids[-1]).place == "key 19900"
    journal.close()


def test_the_disk_is_full_and_receipts_go_first(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = keeping(tmp_path, clock)
    journal.cursor("s3")
    journal.append(made(clock.now(), 5_000), [])
    assert journal._kept.until > journal._kept.first
    journal._room.short = True
    journal.trim()
    assert journal._kept.first == journal._kept.until, "none are kept"
    journal._room.short = False
    assert len(journal.append(made(clock.now() + 1, 10), [])) == 10
    journal.close()


def test_turned_off_they_go_and_nothing_more_is_kept(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = keeping(tmp_path, clock)
    s3 = journal.cursor("s3")
    taken = made(clock.now(), 10)
    journal.append(taken, [])
    batch = seal(journal, "s3", taken, 0)
    s3.commit([Settlement(batch, batch.offsets, at=1.0, place="key")], [])
    journal.close()
    journal = keeping(tmp_path, clock, receipt_retention=0.0)
    clock.advance(1)
    more = made(clock.now(), 10)
    journal.append(more, [])
    cursor = journal.cursor("s3")
    batch = seal(journal, "s3", more, 10)
    cursor.commit([Settlement(batch, batch.offsets, at=1.0, place="key")], [])
    journal.trim()
    assert journal._database.rows("SELECT count(*) FROM received") == [(0,)]
    assert [found.expired for found in find(tmp_path, taken[0].id, more[0].id)] == [True, True]
    journal.close()
    journal = keeping(tmp_path, clock)
    clock.advance(10)
    last = made(clock.now(), 10)
    journal.append(last, [])
    states = [found.expired for found in find(tmp_path, taken[0].id, more[0].id, last[0].id)]
    assert states == [True, True, False]
    journal.close()


def test_a_killed_process_loses_none(tmp_path: Path, clock: ManualClock) -> None:
    """Also of the ids that no block holds yet."""
    journal = keeping(tmp_path / "a", clock)
    journal._kept.block = 64
    s3 = journal.cursor("s3")
    ids: list[str] = []
    for start in range(0, 1000, 10):
        taken = made(clock.now(), 10)
        ids += [event.id for event in taken]
        journal.append(taken, [], connection="sse 1")
        batch = seal(journal, "s3", taken, start)
        s3.commit([Settlement(batch, batch.offsets, at=clock.now(), place=f"key {start}")], [])
        clock.advance(0.3)
        journal.trim()
        if start % 130 == 0:
            copy = copy_files(tmp_path / "a", tmp_path / f"killed {start}")
            again = keeping(copy, clock)
            again.append(made(clock.now() + 1, 100, start), [])
            found = find(copy, *ids)
            assert [each.destinations["s3"].place for each in found] == [
                f"key {n // 10 * 10}" for n in range(len(ids))
            ]
            again.close()
    journal.close()


def test_it_is_streamed_by_time(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    journal.cursor("s3")
    ids: list[str] = []
    for _ in range(20):
        taken = made(clock.now(), 400)
        ids += [event.id for event in taken]
        journal.append(taken, [])
        clock.advance(1)
    start = ManualClock().now()
    with contextlib.closing(Receipts(tmp_path)) as receipts:
        assert [found.id for found in receipts.received(0.0, clock.now() + 1)] == ids
        assert [found.id for found in receipts.received(start + 5, start + 7)] == ids[2000:2800]
        assert receipts.destinations() == ["s3"]


def test_ids_in_bulk(journal: Journal, tmp_path: Path, clock: ManualClock) -> None:
    s3 = journal.cursor("s3")
    taken = [*made(clock.now(), 3000), *events(0, 2000)]
    journal.append(taken[:2500], [])
    journal.append(taken[2500:], [])
    batch = seal(journal, "s3", taken[:4000:2], 0, 2)
    s3.commit([Settlement(batch, batch.offsets, at=1.0)], [])
    with contextlib.closing(Receipts(tmp_path)) as receipts:
        ids = [event.id for event in taken]
        assert receipts.delivered("s3", [*ids, "no such"]) == set(ids[:4000:2])
        assert receipts.delivered("nobody", ids) == set()


def test_altered_receipts_are_as_if_they_were_gone(tmp_path: Path, clock: ManualClock) -> None:
    journal = keeping(tmp_path, clock)
    s3 = journal.cursor("s3")
    taken = made(clock.now(), 5_000)
    journal.append(taken, [])
    batch = seal(journal, "s3", taken, 0)
    s3.commit([Settlement(batch, batch.offsets, at=1.0, place="key")], [])
    journal.close()
    with contextlib.closing(
        sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    ) as connection:
        connection.execute("UPDATE receipts SET said = 'elsewhere'")
    assert where(tmp_path, taken[0].id) == Standing("not_kept")
    with contextlib.closing(
        sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    ) as connection:
        connection.execute("UPDATE received_ids SET body = x'c100'")
    [found] = find(tmp_path, taken[0].id)
    assert found.expired, "not: never received"


def test_no_journal_and_one_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="holds no journal"):
        Receipts(tmp_path)
    open_journal(tmp_path).close()
    with contextlib.closing(
        sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    ) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(JournalError, match="another version"):
        Receipts(tmp_path)
