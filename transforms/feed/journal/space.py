"""The state directory on disk: who may use it, how much room there is, and what is given back to it."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from transforms.clock import Clock
from transforms.durable import PASSING, open_private
from transforms.feed.intake import JournalFull
from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.database import (
    Database,
    DirectoryInUse,
    JournalError,
    JournalUnavailable,
    is_busy,
    is_passing,
    put_note,
)
from transforms.feed.journal.kept_ids import EXPIRE_MOST, KeptIds
from transforms.feed.journal.seen_ids import JoinedIds, SeenIds, join_rows

RESERVE_BYTES = 16 * 1024 * 1024
KEEP_FREE_BYTES = 1024**3
KEEP_FREE_SHARE = 0.05  # of a file system so small that 1 GiB would be most of it


def refused(error: OSError, what: str) -> JournalError | JournalUnavailable:
    """What to raise when the state directory cannot be used: exit code 2 only where a person must act."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in PASSING:
        return JournalUnavailable(f"{text}; nothing is lost, and a later start can work")
    return JournalError(f"{text}; choose another --state_dir")


# File systems on other machines, by the names that /proc/mounts has for them. SQLite's log is shared memory:
# https://www.sqlite.org/wal.html, "all processes using a database must be on the same host".
NETWORK = re.compile(
    r"9p|acfs|afs|beegfs|ceph|cifs|coda|davfs|fhgfs|gfs2?|glusterfs|gpfs|lustre|mvfs|ncpfs|nfs4?|ocfs2|orangefs"
    r"|panfs|pvfs2|smb[23]|smbfs|vboxsf|vmhgfs|wekafs|fuse\.("
    r".*(s3|ssh|gcs|blob|dav|nfs|smb|cifs|ceph|gluster|vmhgfs|seaweed|google-drive).*"
    r"|rclone|juicefs|moosefs|mfs.*|lizardfs|goofys|weed|curlftpfs)"
)
MOUNTS = Path("/proc/self/mounts")


def refuse_network(directory: Path, mounts: Path = MOUNTS) -> None:
    """Raises JournalError when `directory` lies on a file system of another machine.

    mounts: the system's list; where it has none (macOS), nothing is refused.
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    place, (device, kind) = "", ("", "")
    resolved = str(directory.resolve())
    for line in lines:  # of two on one another the later one counts
        words = [_unescaped(word) for word in line.split(" ")]
        if len(words) > 2 and len(words[1]) >= len(place) and _is_below(resolved, words[1]):
            place, device, kind = words[1], words[0], words[2]
    on_root = kind == "9p" and place == "/"  # a sandbox's own root (gVisor), on this machine
    if NETWORK.fullmatch(kind) and not on_root:
        raise JournalError(
            f"{directory} is on a network file system ({kind}, {device} at {place}), on which the journal's "
            "database is not safe: choose a --state_dir on a disk of this machine"
        )


def _unescaped(word: str) -> str:
    """A field of /proc/mounts, which writes blanks and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class DirectoryLock:
    """An exclusive lock on a directory, held until `release` or the end of the process (kill -9 too)."""

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises DirectoryInUse when another process has it, JournalError when the directory
        is not ours, JournalUnavailable."""
        try:
            self._file = open_private(str(directory / "lock"), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise refused(error, f"cannot write in {directory}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise DirectoryInUse(
                f"{directory} is in use by another grantex-beam (process {owner}): stop that one first, give "
                "this one a --state_dir of its own, or --standby=true to take over when that one ends"
            ) from error
        except OSError as error:
            os.close(self._file)
            raise refused(error, f"cannot lock {directory}") from error
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # on a full disk: the lock is held all the same

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._file)


class Reserve:
    """A file that takes up disk until the disk is full; given up so that receipts and trimming go on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = RESERVE_BYTES

    def restore(self) -> bool:
        """Put the reserve back if it is gone and there is room for twice its size."""
        if self._path.exists():
            return True
        if shutil.disk_usage(self._path.parent).free < 2 * self._size:
            return False
        partial = self._path.with_suffix(".new")
        try:
            with open(partial, "wb", opener=open_private) as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
            os.replace(partial, self._path)
        except OSError:
            partial.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> bool:
        """Give the reserve up; False when it was gone already."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True


def too_little_free(directory: Path) -> bool:
    """Whether the file system has less room left than must stay free."""
    usage = shutil.disk_usage(directory)
    return usage.free < min(KEEP_FREE_BYTES, usage.total * KEEP_FREE_SHARE)


CHECK_DISK_EVERY = 1.0  # seconds


class Room:
    """Asked before every append. The journal's lock guards all calls."""

    def __init__(self, directory: Path, reserve: Reserve, max_bytes: int, clock: Clock) -> None:
        self._directory = directory
        self._reserve = reserve
        self._max_bytes = max_bytes
        self._clock = clock
        self._checked = clock.monotonic()
        self.short = False  # when it was last looked at

    def check(self, kept_bytes: int) -> None:
        """Raises JournalFull. Puts the reserve back once there is room for it: no event goes before that."""
        now = self._clock.monotonic()
        if now - self._checked >= CHECK_DISK_EVERY:
            self._checked = now
            self.short = too_little_free(self._directory) or not self._reserve.restore()
        if self.short:
            raise JournalFull(f"the disk of {self._directory} has too little room left")
        if kept_bytes >= self._max_bytes:
            raise JournalFull(f"the journal holds --journal_max_bytes={self._max_bytes} bytes")

    def full(self) -> JournalFull:
        """What to raise when a write found the disk full; until the next look at it nobody tries again."""
        self.short, self._checked = True, self._clock.monotonic()
        return JournalFull(f"the disk of {self._directory} is full")

    def refusal(self, error: sqlite3.OperationalError) -> JournalFull | None:
        """What to raise when events could not be written; None when it is no matter of room or of waiting."""
        if is_busy(error):
            return JournalFull(
                f"another program holds the lock of its database in {self._directory}",
                advice="end the SQLite shell or backup that has it open",
            )
        return self.full() if is_passing(error) else None


log = logging.getLogger("grantex.journal")
EXPIRE_EVERY = 30.0  # seconds
SPARE_PAGES = 2_048  # 8 MiB of the file kept for the next events rather than given back to the disk
VACUUM_PAGES = 512  # given back in one transaction: moving pages makes the log grow by as much


class Trimmer:
    """Takes the database's lock for one short transaction at a time, however big the backlog was."""

    def __init__(
        self,
        database: Database,
        chunks: ChunkStore,
        seen: SeenIds,
        kept: KeptIds,
        room: Room,
        clock: Clock,
    ) -> None:
        self._database = database
        self._chunks = chunks
        self._seen = seen
        self._kept, self._room = kept, room
        self._clock = clock
        self._expired = clock.monotonic()
        self._ids_from = 0

    def trim(self, lowest: Callable[[], int]) -> None:
        """Forget what lies below the offset that `lowest` gives.

        Does nothing on a disk too full even for that; the events stay until the next call.
        """
        try:
            with self._database.lock:
                self._kept.flush()
            while self._delete_some(lowest):
                pass
            self._join_ids()
            self._forget_ids()
            for _ in range(EXPIRE_MOST):  # the next trim goes on with what is left
                if not self._expire_some():
                    break
            while self._give_back_some():
                pass
        except sqlite3.OperationalError as error:
            if not is_passing(error):
                raise
            log.warning("the journal could not be trimmed: %s", error)

    def _delete_some(self, lowest: Callable[[], int]) -> int:
        with self._database.lock:
            return self._chunks.trim(min(lowest(), self._kept.deletable()))

    def _expire_some(self) -> bool:
        """On a disk that is short of room, receipts are the first to go."""
        with self._database.lock:
            return self._kept.expire(short=self._room.short)

    def close(self) -> None:
        """Write what is written now and then, for the last time."""
        try:
            self._kept.close()
        except sqlite3.OperationalError as error:
            if not is_passing(error):
                raise
            log.warning("the last received ids were not kept with the receipts: %s", error)

    def _join_ids(self) -> None:
        """Small rows of ids make a start slow. Those that cannot be joined now stay as they are."""
        with self._database.lock:
            for joined in self._seen.joined():
                self._join(joined)

    def _join(self, joined: JoinedIds) -> None:
        self._database.write(lambda connection: join_rows(connection, joined))

    def _forget_ids(self) -> None:
        now = self._clock.monotonic()
        if now - self._expired < EXPIRE_EVERY:
            return
        with self._database.lock:
            self._expired = now
            forgotten = self._seen.expire(now, self._chunks.trimmed)
            if forgotten > self._ids_from:
                self._database.write(lambda connection: _forget_below(connection, forgotten))
                self._ids_from = forgotten

    def _give_back_some(self) -> bool:
        spare = self._database.free_pages() - SPARE_PAGES
        if spare <= 0:
            return False
        self._database.give_back(min(spare, VACUUM_PAGES))
        return spare > VACUUM_PAGES


def _forget_below(connection: sqlite3.Connection, first: int) -> None:
    connection.execute("DELETE FROM ids WHERE first < ?", (first,))
    put_note(connection, "ids", first)
