"""The local archive: complete files or none, each batch once, and a disk that says no."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import pickle
import stat
from pathlib import Path

import pytest

from tests.transforms.write.encodings import batch, event
from transforms.event import Batch, Event
from transforms.write.archive import NO_HOUR
from transforms.write.files import destination as files
from transforms.write.files.destination import UNFINISHED, Files

HOUR = "dt=2026-03-01/hour=12"


def published(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def lines_of(path: Path) -> list[bytes]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert data.endswith(b"\n")
    return data[:-1].split(b"\n")


def test_a_batch_becomes_one_gzipped_file_of_its_hour(tmp_path: Path) -> None:
    made = batch(1200, HOUR)
    assert Files(str(tmp_path)).open().write(made) is None
    (path,) = published(tmp_path)
    assert path.relative_to(tmp_path).as_posix() == f"{HOUR}/{made.events[0].id}-{made.id}.ndjson.gz"
    assert lines_of(path) == [one.raw for one in made.events]


def test_without_compression_the_file_is_plain(tmp_path: Path) -> None:
    made = batch(2, HOUR)
    assert Files(str(tmp_path), compression="none").open().write(made) is None
    (path,) = published(tmp_path)
    assert path.name.endswith(f"{made.id}.ndjson")
    assert lines_of(path) == [one.raw for one in made.events]


def test_white_space_in_raw_json_stays_on_one_line(tmp_path: Path) -> None:
    raw = b'{"id":"a",\r\n "data":\n{"text":"line\\nbreak"}}'
    assert Files(str(tmp_path)).open().write(Batch([Event("a", "", "", raw), event(1)])) is None
    (path,) = published(tmp_path)
    first, second = lines_of(path)
    assert json.loads(first) == json.loads(raw)
    assert second == event(1).raw


def test_partition_is_the_hour_and_settings_pickle(tmp_path: Path) -> None:
    destination = pickle.loads(pickle.dumps(Files(str(tmp_path))))
    assert destination.partition(event(1)) == HOUR
    assert destination.partition(event(1, "")) == NO_HOUR
    assert destination.size(event(1)) == len(event(1).raw) + 1
    assert destination.name == "files"


def test_a_retried_batch_is_the_same_file(tmp_path: Path) -> None:
    destination = Files(str(tmp_path))
    assert destination.open().write(batch(3, HOUR)) is None
    (path,) = published(tmp_path)
    before = path.stat()
    assert destination.open().write(batch(3, HOUR)) is None
    assert published(tmp_path) == [path]
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_key_is_remembered_before_anything_is_written(tmp_path: Path) -> None:
    seen: list[tuple[bytes, bool]] = []
    made = batch(2, HOUR)
    made.on_remember = lambda _, memo: seen.append((memo, any(tmp_path.iterdir())))
    assert Files(str(tmp_path)).open().write(made) is None
    (path,) = published(tmp_path)
    assert seen == [(path.relative_to(tmp_path).as_posix().encode(), False)]


def test_a_recovered_batch_goes_under_its_first_key(tmp_path: Path) -> None:
    """After a crash the settings may have changed and events be settled: the memo still finds the file."""
    made = batch(3, HOUR)
    writer = Files(str(tmp_path)).open()
    assert writer.write(made) is None
    recovered = Batch(made.events[1:], partition=HOUR, id=made.id, memo=made.memo)
    assert Files(str(tmp_path), compression="none").open().write(recovered) is None
    assert len(published(tmp_path)) == 1


def test_a_damaged_memo_names_no_other_file(tmp_path: Path) -> None:
    made = batch(2, HOUR)
    made.memo = b"../../outside.ndjson"
    assert Files(str(tmp_path / "in")).open().write(made) is None
    assert [path.parent.name for path in published(tmp_path)] == ["hour=12"]


def test_hostile_ids_stay_inside(tmp_path: Path) -> None:
    made = Batch([event(1, event_id="../../../escaped")], partition=HOUR)
    assert Files(str(tmp_path / "in")).open().write(made) is None
    (path,) = published(tmp_path)
    assert path.parent == tmp_path / "in" / HOUR


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "link"])
def test_a_disk_that_says_no_blocks_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    writer = Files(str(tmp_path)).open()
    with monkeypatch.context() as patch:
        patch.setattr(os, where, refuse)
        outcome = writer.write(batch(3, HOUR))
    assert outcome is not None
    assert outcome.blocked
    assert list(outcome.later) == [0, 1, 2]
    assert str(tmp_path) in outcome.cause
    assert "kept" in outcome.cause
    assert published(tmp_path) == []
    assert writer.write(batch(3, HOUR)) is None
    assert len(published(tmp_path)) == 1


def test_a_full_disk_fails_while_writing_and_leaves_nothing(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC; a link to it, because what is unfinished is unlinked."""
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, files.written(link, batch(3000).events, "none"):
        pytest.fail("nothing may be published")
    assert caught.value.errno == errno.ENOSPC
    assert not link.is_symlink()


def test_a_file_in_the_way_blocks(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    outcome = Files(str(tmp_path / "taken")).open().write(batch(1, HOUR))
    assert outcome is not None
    assert outcome.blocked


def test_an_unmounted_directory_is_not_filled(tmp_path: Path) -> None:
    writer = Files(str(tmp_path)).open()
    assert writer.write(batch(1, HOUR)) is None
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    outcome = writer.write(batch(2, HOUR))
    assert outcome is not None
    assert outcome.blocked
    assert published(tmp_path) == []


def test_a_directory_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "out"
    writer = Files(str(root)).open()
    assert writer.write(batch(1, HOUR)) is None
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    root.rmdir()
    outcome = writer.write(batch(2, HOUR))
    assert outcome is not None
    assert writer.write(batch(2, HOUR)) is None
    assert len(published(root)) == 1


def test_an_unknown_error_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "a bug")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="a bug"):
        Files(str(tmp_path)).open().write(batch(1, HOUR))
    assert published(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_rename_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert Files(str(tmp_path)).open().write(batch(3, HOUR)) is None
    (path,) = published(tmp_path)
    assert len(lines_of(path)) == 3


def test_a_target_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def late(source: Path, target: Path) -> None:
        target.write_bytes(b"first")
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    assert Files(str(tmp_path)).open().write(batch(3, HOUR)) is None
    (path,) = published(tmp_path)
    assert path.read_bytes() == b"first"


def test_what_a_killed_process_left_is_removed_and_what_is_held_stays(tmp_path: Path) -> None:
    unfinished = tmp_path / UNFINISHED
    unfinished.mkdir()
    (unfinished / "1-abandoned").write_bytes(b"half")
    with (unfinished / "2-held").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Files(str(tmp_path)).open().write(batch(1, HOUR)) is None
        assert [path.name for path in unfinished.iterdir()] == ["2-held"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_their_owners_alone_in_a_directory_open_to_all(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "archive"
    root.mkdir(mode=0o777)
    writer = Files(str(root)).open()
    assert writer.write(batch(1, HOUR)) is None
    before = os.umask(umask)
    try:
        assert writer.write(batch(2, HOUR)) is None
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in published(root)] == [0o600, 0o600]
