"""Putting on disk what a power cut must not take back."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

PRIVATE = 0o600  # events are personal data
# What passes by itself, or with the load of the machine. Anything else only a person mends.
PASSING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,  # a limit of the process
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ENXIO,
    errno.ENODEV,
    errno.ETIMEDOUT,
}


def sync(path: Path) -> None:
    """Put a file's content, or a directory's names, on disk. Raises OSError.

    Some file systems cannot do that for a directory: they say EINVAL, and there is nothing to do.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Create an empty file unless it is there, and let nobody but its owner read it, whatever the umask and
    the directory's rights are. Raises OSError when it cannot be opened for writing."""
    os.close(open_private(str(path), os.O_RDWR | os.O_CREAT))


def open_private(path: str, flags: int) -> int:
    """An `opener` for `open`: the file is its owner's alone (0600), also one that was there before."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, PRIVATE)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != PRIVATE:
            with contextlib.suppress(PermissionError):  # somebody else's file that we may write
                os.fchmod(descriptor, PRIVATE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def replace_file(path: Path, content: bytes) -> None:
    """Give `path` this content for its owner alone: all of it or, after a crash, what was there before.

    On disk when this returns. Raises OSError; then nothing has changed.
    """
    partial = path.with_name(path.name + ".new")
    try:
        with open(partial, "wb", opener=open_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)
