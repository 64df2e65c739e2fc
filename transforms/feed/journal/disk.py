"""The state directory on disk: who owns it, how much room there is, and the reserve for a full disk."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from transforms.feed.journal.database import JournalError

RESERVE_BYTES = 16 * 1024 * 1024
KEEP_FREE_BYTES = 1024**3
KEEP_FREE_SHARE = 0.05  # of a file system so small that 1 GiB would be most of it


class DirectoryLock:
    """An exclusive lock on a directory, held until `release` or the end of the process (kill -9 too)."""

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises JournalError when another process has it or the directory is not ours."""
        try:
            self._file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot write in {directory}: {error.strerror}; choose another --state_dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise JournalError(
                f"{directory} is in use by another grantex-beam (process {owner}): stop that one first, or "
                "give this one a --state_dir of its own"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._file)


class Reserve:
    """A file that takes up disk until the disk is full; given up so that receipts and trimming go on."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    def restore(self) -> bool:
        """Put the reserve back if it is gone and there is room for twice its size."""
        if self._path.exists():
            return True
        if shutil.disk_usage(self._path.parent).free < 2 * self._size:
            return False
        partial = self._path.with_suffix(".new")
        try:
            with open(partial, "wb") as file:
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
