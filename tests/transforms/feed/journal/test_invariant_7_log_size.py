"""No read transaction spans a wait, so SQLite's write-ahead log stays small; the file gives disk back."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import events, open_journal
from transforms.event import Batch
from transforms.write.delivery.ledger import Settlement

BLOCK = 500
PAYLOAD = 300


@pytest.mark.slow
def test_the_log_stays_small_beside_idle_readers(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("down")
    journal.append(events(0, 10), [])
    other = sqlite3.connect(tmp_path / "journal.sqlite3")  # a person who looks, and stays connected
    assert other.execute("SELECT count(*) FROM chunks").fetchall() == [(1,)]
    ready, leave = threading.Event(), threading.Event()

    def idle_lane() -> None:
        journal.read(0, 5)
        journal.dead_letters()
        journal.books()
        ready.set()
        leave.wait()

    lane = threading.Thread(target=idle_lane)
    lane.start()
    ready.wait()
    largest = 0
    for start in range(10, 100_010, BLOCK):
        journal.append(events(start, start + BLOCK, PAYLOAD), [])
        largest = max(largest, (tmp_path / "journal.sqlite3-wal").stat().st_size)
    leave.set()
    lane.join()
    other.close()
    assert journal.bytes > 30_000_000
    assert largest < 6_000_000
    journal.close()


@pytest.mark.slow
def test_the_file_shrinks_after_a_big_backlog_is_delivered(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("kafka")
    for start in range(0, 100_000, BLOCK):
        journal.append(events(start, start + BLOCK, PAYLOAD), [])
    journal.close()
    file = tmp_path / "journal.sqlite3"
    assert file.stat().st_size > 30_000_000

    journal = open_journal(tmp_path)
    cursor = journal.cursor("kafka")
    batch = Batch(events(0, 100_000), range(100_000))
    cursor.commit([], [batch])
    cursor.commit([Settlement(batch, batch.offsets)], [])
    journal.trim()
    assert journal.bytes == 0
    assert (tmp_path / "journal.sqlite3-wal").stat().st_size < 10_000_000
    journal.close()
    assert file.stat().st_size < 14_000_000  # 8 MiB are kept for the next events
