"""Reading and trimming chunks: from memory or disk, from the middle, past what is missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import events, number_of, open_journal, read_all
from transforms.event import Chunk
from transforms.feed.journal import chunks as chunks_module
from transforms.feed.journal.chunks import ChunkStore, decode_row
from transforms.feed.journal.database import Database, JournalDamaged
from transforms.shared_events import raw_size


@pytest.fixture(autouse=True)
def chunks_of_500(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK_EVENTS", 500)


@pytest.mark.parametrize("cached", [10**9, 2000, 0])
def test_any_position_and_size_gives_the_next_events_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: int
) -> None:
    monkeypatch.setattr(chunks_module, "CACHE_BYTES", cached)
    monkeypatch.setattr(chunks_module, "SHARED_BYTES", cached)
    monkeypatch.setattr(chunks_module, "CHUNK_EVENTS", 20)
    rng = random.Random(7)
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    while journal.end < 500:
        journal.append(events(journal.end, journal.end + rng.randint(1, 50)), [])
    for _ in range(200):
        position, most = rng.randint(0, journal.end - 1), rng.choice([1, 7, 20, 400])
        found = journal.read(position, most)
        numbers = [number_of(one) for chunk in found for one in chunk.events]
        assert numbers == list(range(position, position + len(numbers)))
        assert found[0].first == position
        assert min(most, journal.end - position) <= len(numbers) < most + 20
        assert all(len(chunk.events) <= 20 for chunk in found)
    assert journal.read(journal.end, 10) == []
    journal.close()


def test_events_keep_their_exact_bytes(tmp_path: Path) -> None:
    raw = '{"id":"é\\u00e9 🎉", "x": 1.0e400 }'.encode()
    one = events(0, 1)[0]
    odd = type(one)("é🎉", "", "yesterday", raw)
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    journal.append([odd], [])
    journal.close()
    journal = open_journal(tmp_path)
    assert read_all(journal) == [odd]
    journal.close()


@pytest.mark.parametrize("restart", [False, True])
def test_lanes_that_read_the_same_events_share_them(tmp_path: Path, restart: bool) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    journal.cursor("s3")
    journal.append(events(0, 2_000), [])
    if restart:
        journal.close()
        journal = open_journal(tmp_path)
    one, other = journal.read(0, 2_000), journal.read(500, 1_000)
    assert [chunk.first for chunk in one] == [0, 500, 1000, 1500]
    assert all(a.shared is b.shared for a, b in zip(one[1:], other, strict=False))
    assert all(chunk.shared is not None and chunk.shared.keeps for chunk in one)
    journal.close()


def test_nothing_is_kept_for_others_where_there_are_none(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    journal.append(events(0, 2_000), [])
    assert [chunk.shared for chunk in journal.read(0, 2_000)] == [None] * 4
    journal.cursor("s3")
    assert all(chunk.shared is not None for chunk in journal.read(0, 2_000))
    journal.close()


def test_what_is_shared_is_bounded_and_goes_with_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = events(0, 2_000)
    monkeypatch.setattr(chunks_module, "SHARED_BYTES", raw_size(many) // 2)
    journal = open_journal(tmp_path)
    cursors = [journal.cursor("kafka"), journal.cursor("s3")]
    journal.append(many, [])
    read = journal.read(0, 2_000)
    assert [chunk.shared is not None and chunk.shared.keeps for chunk in read] == [False, False, True, True]
    for cursor in cursors:
        cursor.advance(2_000)
    journal.trim()
    assert not any(chunk.shared is not None and chunk.shared.keeps for chunk in read)
    journal.close()


def test_a_lagging_lane_decodes_no_more_than_it_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    journal.append(events(0, 20_000), [])
    journal.close()
    journal = open_journal(tmp_path)
    decoded: list[object] = []

    def counted(row: tuple[object, ...]) -> Chunk:
        decoded.append(row[0])
        return decode_row(row)

    monkeypatch.setattr(chunks_module, "decode_row", counted)
    assert len(journal.read(0, 1000)) == 2
    assert decoded == [0, 500]
    journal.close()


def test_the_arrival_of_the_oldest_event_that_waits(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    times = []
    for start in (0, 10, 20):
        journal.append(events(start, start + 10), [])
        times.append(journal.clock.now())
        journal.clock.advance(60)  # type: ignore[attr-defined]
    assert [journal.taken_at(position) for position in (0, 9, 10, 25)] == [
        times[0],
        times[0],
        times[1],
        times[2],
    ]
    assert journal.taken_at(30) is None
    journal.close()
    journal = open_journal(tmp_path)
    assert [journal.taken_at(position) for position in (0, 9, 10, 25)] == [
        times[0],
        times[0],
        times[1],
        times[2],
    ]
    journal.close()


def test_a_missing_range_is_stepped_over_wherever_it_lies(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("kafka")
    for start in range(0, 100, 10):
        journal.append(events(start, start + 10), [])
    journal.close()
    database = Database(tmp_path / "journal.sqlite3")
    database.write(lambda db: db.execute("DELETE FROM chunks WHERE first IN (0, 30, 40, 90)"))
    store = ChunkStore(database, now=77.0)
    assert store.missing(0) == [(0, 10), (30, 50), (90, 100)]
    assert store.missing(35) == [(35, 50), (90, 100)]
    found, position = [], 0
    while position < store.end:
        chunks = store.read(position, 1)
        found += [number_of(one) for chunk in chunks for one in chunk.events]
        position = chunks[-1].end
    assert found == [*range(10, 30), *range(50, 90)]
    tail = store.read(90, 5)
    assert [(chunk.first, list(chunk.events), chunk.taken_at) for chunk in tail] == [(100, [], 77.0)]
    with pytest.raises(JournalDamaged, match="from 30 on"):
        store.events([(25, 55)])
    database.close()


def test_a_big_backlog_is_trimmed_in_short_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks_module, "TRIM_ROWS", 3)
    journal = open_journal(tmp_path)
    cursor = journal.cursor("kafka")
    for start in range(0, 100, 10):
        journal.append(events(start, start + 10), [])
    before = journal.bytes
    cursor.advance(75)
    journal.trim()
    assert [chunk.first for chunk in journal.read(0, 1)] == [70]
    assert journal.bytes == before * 3 // 10
    assert journal.pending_bytes(75) == before * 25 // 100
    cursor.advance(100)
    journal.trim()
    assert (journal.bytes, journal.pending_bytes(100), journal.end) == (0, 0, 100)
    journal.close()
