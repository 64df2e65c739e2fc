"""A disk that is really full: reading pauses loudly, receipts and trimming go on, nothing taken is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import event, events, number_of, open_journal, read_all
from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Batch
from transforms.feed.intake import JournalFull
from transforms.feed.journal import Cursor, Journal
from transforms.feed.journal.space import CHECK_DISK_EVERY, RESERVE_BYTES
from transforms.write.delivery.ledger import Settlement

MEGABYTES = 64
BLOCK = 250
PAYLOAD = 800


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own. Who may not mount one skips the test; in CI it runs with sudo or fails."""
    place = tmp_path / "disk"
    place.mkdir()
    in_ci = os.environ.get("CI") == "true"
    options = f"size={MEGABYTES}m,uid={os.getuid()},mode=700"
    refused = ""
    for sudo in [[], ["sudo", "-n"]] if in_ci and shutil.which("sudo") else [[]]:
        command = [*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        refused = f"a small file system cannot be mounted here: {mounted.stderr.strip()}"
        if mounted.returncode == 0:
            break
    else:
        if in_ci:
            pytest.fail(refused)
        pytest.skip(refused)
    try:
        yield place
    finally:
        subprocess.run([*sudo, "umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Somebody else's file takes all that is left."""
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return ballast


def append_until_full(journal: Journal) -> tuple[int, JournalFull]:
    """How many events were taken before the journal refused."""
    while True:
        start = journal.end
        try:
            journal.append(events(start, start + BLOCK, PAYLOAD), [])
        except JournalFull as full:
            assert journal.end == start, "a refused append leaves nothing behind"
            return start, full


def deliver(cursor: Cursor, journal: Journal, upto: int) -> None:
    while cursor.position < upto:
        chunk = journal.read(cursor.position, 1)[0]
        batch = Batch(chunk.events, range(chunk.first, chunk.end))
        cursor.commit([], [batch])
        cursor.commit([Settlement(batch, batch.offsets)], [])
        journal.trim()


def test_a_full_disk_stops_reading_and_nothing_else(small_disk: Path) -> None:
    clock = ManualClock()
    state = small_disk / "state"
    journal = open_journal(state, clock=clock, reserve=RESERVE_BYTES)
    cursor = journal.cursor("kafka")
    journal.append(events(0, 10 * BLOCK, PAYLOAD), [])
    journal.heard()
    ballast = fill(small_disk)

    taken, full = append_until_full(journal)
    assert str(state) in str(full)
    assert "disk" in str(full)
    assert (state / "reserve").exists(), "the reserve is kept for receipts, not for more events"
    journal.open_gap("the journal was full")

    deliver(cursor, journal, taken)
    assert (cursor.position, journal.bytes) == (taken, 0)
    assert journal.books()["kafka"].balanced
    with pytest.raises(JournalFull):
        journal.append([event(taken)], [])

    ballast.unlink()
    clock.advance(CHECK_DISK_EVERY)
    assert len(journal.append(events(taken, taken + BLOCK, PAYLOAD), [])) == BLOCK
    journal.close_gap()
    assert (state / "reserve").stat().st_size == 16 * 1024 * 1024
    assert [gap.reason for gap in journal.gaps()] == ["the journal was full"]
    assert [number_of(found) for found in read_all(journal, taken)] == list(range(taken, taken + BLOCK))
    journal.close()


@pytest.mark.slow
def test_a_disk_filled_by_the_journal_itself_is_emptied_by_deliveries(small_disk: Path) -> None:
    clock = ManualClock()
    state = small_disk / "state"
    journal = open_journal(state, clock=clock, reserve=RESERVE_BYTES)
    cursor = journal.cursor("kafka")
    taken, _ = append_until_full(journal)
    clock.advance(CHECK_DISK_EVERY)
    with pytest.raises(JournalFull):
        journal.append([event(taken)], [])
    assert [number_of(found) for found in read_all(journal)] == list(range(taken))

    deliver(cursor, journal, taken)
    journal.close()
    journal = open_journal(state, clock=clock, reserve=RESERVE_BYTES)
    cursor = journal.cursor("kafka")
    clock.advance(CHECK_DISK_EVERY)
    assert len(journal.append(events(taken, taken + BLOCK, PAYLOAD), [])) == BLOCK
    assert (state / "reserve").exists()
    assert (cursor.delivered, cursor.pending) == (taken, BLOCK)
    journal.close()


def test_a_journal_starts_and_delivers_on_a_full_disk(small_disk: Path) -> None:
    state = small_disk / "state"
    journal = open_journal(state, reserve=RESERVE_BYTES)
    journal.cursor("kafka")
    journal.append(events(0, 4 * BLOCK, PAYLOAD), [])
    journal.close()
    fill(small_disk)

    journal = open_journal(state, reserve=RESERVE_BYTES)
    deliver(journal.cursor("kafka"), journal, 4 * BLOCK)
    assert journal.books()["kafka"].balanced
    journal.close()
    journal = open_journal(state, reserve=RESERVE_BYTES)
    assert (journal.cursor("kafka").position, journal.bytes) == (4 * BLOCK, 0)
    journal.close()
