"""SQLite's write-ahead log read by itself, against SQLite's own reading of it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from transforms.feed.journal.wal import apply_wal, read_wal

FRAME = 4096 + 24


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with a log of some hundred frames, as after kill -9."""
    live = tmp_path / "live"
    connection = sqlite3.connect(live, isolation_level=None)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, body BLOB)")
    rng = random.Random(1)
    for n in range(60):
        connection.execute("INSERT INTO numbers VALUES (?, ?)", (n, rng.randbytes(rng.randint(10, 20_000))))
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{live}{suffix}", tmp_path / f"crashed{suffix}")
    connection.close()
    return tmp_path / "crashed"


def log_of(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x55
    file.write_bytes(content)


def numbers_in(database: Path) -> list[int]:
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    found = [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")]
    connection.close()
    return found


def test_a_whole_log_is_whole_and_applying_it_is_what_sqlite_would_do(database: Path) -> None:
    assert not read_wal(log_of(database)).damaged
    apply_wal(log_of(database), database)
    assert not log_of(database).exists()
    assert numbers_in(database) == list(range(60))


@pytest.mark.parametrize("seed", range(15))
def test_any_flipped_byte_of_a_committed_frame_or_the_header_is_found(database: Path, seed: int) -> None:
    log = log_of(database)
    rng = random.Random(seed)
    position = rng.randrange(32) if seed < 5 else rng.randrange(32, 32 + 90 * FRAME)
    flip(log, position)
    assert read_wal(log).damaged, position


def test_a_log_that_was_begun_anew_may_have_older_frames_behind_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "live", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, body BLOB)")
    for n in range(50):
        connection.execute("INSERT INTO numbers VALUES (?, ?)", (n, bytes(9_000)))
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    connection.execute("INSERT INTO numbers VALUES (1000, x'00')")
    state = read_wal(tmp_path / "live-wal")
    assert not state.damaged
    assert len(state.pages) < 10
    connection.close()


def test_an_uncommitted_end_is_no_damage(database: Path) -> None:
    log = log_of(database)
    whole = log.read_bytes()
    for size in range(32, 32 + 30 * FRAME, FRAME // 3):
        log.write_bytes(whole[:size])
        assert not read_wal(log).damaged, size


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 32])
def test_a_log_without_frames_is_nothing(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "database-wal"
    assert not read_wal(log).damaged
    log.write_bytes(content)
    state = read_wal(log)
    assert (state.damaged, state.pages) == (False, {})
