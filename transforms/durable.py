"""Putting on disk what a power cut must not take back."""

from __future__ import annotations

import errno
import os
from pathlib import Path


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
