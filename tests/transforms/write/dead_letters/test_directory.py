"""Dead letters on disk: complete or torn, once or repeated, and never gone without a word."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from tests.transforms.write.manual_clock import ManualClock
from transforms.dead_letter import DeadLetter, DeadLetterError
from transforms.write.dead_letters.directory import DeadLetterFile, WriteDeadLetters, read_dead_letters


def letter(event_id: str = "evt_1", raw: bytes = b'{"id":"evt_1"}', stage: str = "write") -> DeadLetter:
    destination = "splunk" if stage == "write" else ""
    return DeadLetter(stage, destination, "bad_field: nope", raw, event_id, 2, 1_772_366_400.25)


def test_one_line_of_json_with_everything_a_person_needs(tmp_path: Path) -> None:
    DeadLetterFile(tmp_path / "new", clock=ManualClock()).write(letter())
    path = tmp_path / "new" / "2026-03-01.ndjson"
    assert path.read_text().endswith("\n")
    assert json.loads(path.read_text()) == {
        "destination": "splunk",
        "stage": "write",
        "cause": "bad_field: nope",
        "attempts": 2,
        "at": "2026-03-01T12:00:00.250000Z",
        "event_id": "evt_1",
        "raw": '{"id":"evt_1"}',
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "2026-03-01.ndjson"
    path.touch(0o644)
    DeadLetterFile(tmp_path, clock=ManualClock()).write(letter())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("code", "is_kept"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_a_directory_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_kept: bool
) -> None:
    fsync = os.fsync

    def refuse_directories(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_directories)
    with contextlib.nullcontext() if is_kept else pytest.raises(DeadLetterError, match=os.strerror(code)):
        DeadLetterFile(tmp_path).write(letter())


@pytest.mark.parametrize(
    "raw", [b"", b"plain \xe2\x82\xac", b"\xff\x00\xfe", b'{"a":"\\u0000"}\n', bytes(range(256))]
)
def test_the_bytes_come_back_as_they_were(tmp_path: Path, raw: bytes) -> None:
    original = letter(raw=raw)
    DeadLetterFile(tmp_path).write(original)
    assert list(read_dead_letters(tmp_path)) == [original]


def test_a_torn_last_line_costs_itself_only(tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path, clock=ManualClock())
    file.write(letter("evt_1"))
    file.write(letter("evt_2"))
    path = tmp_path / "2026-03-01.ndjson"
    path.write_bytes(path.read_bytes()[:-20])
    DeadLetterFile(tmp_path, clock=ManualClock()).write(letter("evt_3"))
    assert [read.event_id for read in read_dead_letters(tmp_path)] == ["evt_1", "evt_3"]


def test_repeats_of_an_event_at_one_destination_are_read_once(tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path)
    file.write(letter("evt_1"))
    file.write(letter("evt_1"))
    file.write(DeadLetter("write", "files", "x", b"{}", "evt_1"))
    file.write(letter("", b"no id", stage="feed"))
    file.write(letter("", b"no id", stage="feed"))
    file.write(letter("evt_1", b"one content", stage="feed"))
    file.write(letter("evt_1", b"another under the same id", stage="feed"))
    read = [(one.destination, one.event_id, one.raw) for one in read_dead_letters(tmp_path)]
    assert read == [
        ("splunk", "evt_1", b'{"id":"evt_1"}'),
        ("files", "evt_1", b"{}"),
        ("", "", b"no id"),
        ("", "evt_1", b"one content"),
        ("", "evt_1", b"another under the same id"),
    ]


def test_a_full_file_is_followed_by_the_next_of_the_day_and_read_in_order(tmp_path: Path) -> None:
    clock = ManualClock()
    file = DeadLetterFile(tmp_path, clock=clock, max_bytes=400)
    for number in range(24):
        file.write(letter(f"evt_{number:02d}"))
    clock.advance(86_400)
    file.write(letter("evt_24"))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"2026-03-01.ndjson", "2026-03-01.1.ndjson", "2026-03-01.11.ndjson", "2026-03-02.ndjson"} <= names
    assert all(path.stat().st_size <= 400 for path in tmp_path.iterdir())
    assert [one.event_id for one in read_dead_letters(tmp_path)] == [f"evt_{n:02d}" for n in range(25)]


def test_several_threads_append_whole_lines(tmp_path: Path) -> None:
    def write(number: int) -> None:
        file = DeadLetterFile(tmp_path)
        for i in range(20):
            file.write(letter(f"evt_{number}_{i}", b"x" * 5000))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(read_dead_letters(tmp_path))) == 80


def test_a_full_disk_says_where_and_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(DeadLetterError, match=f"{tmp_path}: No space left on device; nothing is lost"):
        DeadLetterFile(tmp_path).write(letter())


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_transform_writes_every_element(tmp_path: Path) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        letters = pipeline | beam.Create([letter("evt_1"), letter("evt_2")])
        letters | WriteDeadLetters(tmp_path)
    assert {one.event_id for one in read_dead_letters(tmp_path)} == {"evt_1", "evt_2"}
