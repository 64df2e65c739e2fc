"""The state directory: odd names, rights, network file systems, what passes and what a person must mend."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import copy_files, events, open_journal, read_all
from transforms.event import Batch
from transforms.feed.intake import JournalFull
from transforms.feed.journal import JournalError, JournalUnavailable
from transforms.write.delivery.ledger import Settlement

DATABASE = "journal.sqlite3"


@pytest.mark.parametrize("name", ["ha#sh", "we?ird", "job%2Fbranch", "a b&c=d", "mode=ro?", "ü-ß", "\udcff"])
def test_a_journal_under_any_name_is_repaired_from_its_own_file(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir()
    journal = open_journal(place / "alive")
    journal.cursor("down")
    journal.append(events(0, 55), [])
    copy = copy_files(place / "alive", place / "copy")
    journal.close()
    (copy / "journal.suspect").touch()
    journal = open_journal(copy)
    assert read_all(journal) == events(0, 55)
    assert journal.books()["down"].lost == 0
    journal.close()


def everything_in(place: Path) -> set[str]:
    return {
        f"{path.name} {stat.S_IMODE(path.stat().st_mode):o}" for path in place.rglob("*") if path.is_file()
    }


@pytest.fixture(params=[0o022, 0o000, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_every_file_is_its_owners_alone_in_a_directory_open_to_all(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o755)
    journal = open_journal(place)
    journal.append(events(0, 50), [])
    journal._database.suspect()
    assert {file.rpartition(" ")[2] for file in everything_in(place)} == {"600"}, everything_in(place)
    journal.close()
    open_journal(place).close()
    assert {file.rpartition(" ")[2] for file in everything_in(place)} == {"600"}, everything_in(place)
    assert len(list(place.glob("journal.damaged-*Z"))) == 1


def test_an_older_journal_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    (tmp_path / DATABASE).chmod(0o644)
    open_journal(tmp_path).close()
    assert stat.S_IMODE((tmp_path / DATABASE).stat().st_mode) == 0o600


MOUNTS = """\
/dev/vda1 / ext4 rw 0 0
proc /proc proc rw 0 0
server:/export {share} {kind} rw,relatime 0 0
tmpfs {share}/local tmpfs rw 0 0
"""


def mounts(tmp_path: Path, kind: str) -> Path:
    share = tmp_path / "my share"
    (share / "local").mkdir(parents=True)
    listed = tmp_path / "mounts"
    listed.write_text(MOUNTS.format(share=str(share).replace(" ", "\\040"), kind=kind))
    return listed


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "9p", "lustre"]
)
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    listed = mounts(tmp_path, kind)
    share = tmp_path / "my share"
    message = rf"my share/state is on a network file system \({kind}, server:/export at .*--state_dir"
    with pytest.raises(JournalError, match=message):
        open_journal(share / "state", mounts=listed)
    (tmp_path / "link").symlink_to(share)
    with pytest.raises(JournalError, match="network file system"):
        open_journal(tmp_path / "link" / "state", mounts=listed)
    open_journal(share / "local" / "state", mounts=listed).close()
    open_journal(tmp_path / "my share beside", mounts=listed).close()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "fuseblk", "fuse.lxcfs", "zfs"])
def test_a_local_file_system_is_not(tmp_path: Path, kind: str) -> None:
    listed = mounts(tmp_path, kind)
    open_journal(tmp_path / "my share" / "state", mounts=listed).close()


def test_without_a_list_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    open_journal(tmp_path / "state", mounts=tmp_path / "none").close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("when", ["space.open_private", "database.make_private", "repair.read_wal"])
def test_what_passes_is_no_parameter_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, when: str
) -> None:
    open_journal(tmp_path).close()

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"transforms.feed.journal.{when}", fail)
        with pytest.raises(JournalUnavailable, match=os.strerror(code)):
            open_journal(tmp_path)
    open_journal(tmp_path).close()
    assert not list(tmp_path.glob("journal.damaged*"))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_what_a_person_must_mend_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("transforms.feed.journal.space.open_private", fail)
    with pytest.raises(JournalError, match=r"--state_dir"):
        open_journal(tmp_path)


@contextlib.contextmanager
def locked(place: Path) -> Iterator[sqlite3.Connection]:
    """Another program holds SQLite's write lock."""
    other = sqlite3.connect(place / DATABASE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.close()


def test_receipts_wait_for_another_programs_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = open_journal(tmp_path)
    cursor = journal.cursor("down")
    journal.append(events(0, 50), [])
    batch = Batch(events(0, 50), range(50))
    waiting = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is locked by another program" in record.getMessage():
                waiting.set()

    told = Told()
    logging.getLogger("grantex.journal").addHandler(told)
    try:
        with locked(tmp_path):
            thread = threading.Thread(target=cursor.commit, args=([], [batch]))
            thread.start()
            assert waiting.wait(60)
            assert thread.is_alive()
        thread.join(60)
    finally:
        logging.getLogger("grantex.journal").removeHandler(told)
    assert batch.seal == 1
    cursor.commit([Settlement(batch, batch.offsets)], [])
    assert (cursor.delivered, cursor.pending) == (50, 0)
    journal.close()


def test_reading_pauses_with_what_is_in_hand_while_the_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.feed.journal.journal.APPEND_TRIES", 1)
    journal = open_journal(tmp_path)
    journal.heard()
    with locked(tmp_path):
        with pytest.raises(JournalFull, match="another program holds the lock") as full:
            journal.append(events(0, 50), [])
        assert "backup" in full.value.advice
        assert (journal.end, read_all(journal)) == (0, [])
    assert len(journal.append(events(0, 50), [])) == 50
    journal.close()


def test_a_start_under_a_lock_that_stays_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start of a new program has something to write."""
    with tarfile.open(Path(__file__).parent / "data" / "version_1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    old = tmp_path / "version_1"
    monkeypatch.setattr("transforms.feed.journal.database.BUSY_TRIES", 3)
    with locked(old), pytest.raises(JournalUnavailable, match="locked"):
        open_journal(old)
    assert not list(old.glob("journal.damaged*"))
    open_journal(old).close()
