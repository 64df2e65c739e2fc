"""A temporary directory whose process may be killed: the next one clears it away."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("grantex.demo")

# The kernel lets go of the lock even after kill -9, and no process id can be mistaken for another's.
LOCK = "in-use.lock"


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A new directory, removed at the end; first goes what processes that were killed left under `prefix`."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_abandoned(left)
    with contextlib.ExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix=prefix)
        path = Path(directory.name)
        # It gets its name when it is held: one that is found and free was left behind.
        unnamed = path / "new.lock"
        fcntl.flock(stack.enter_context(unnamed.open("wb")), fcntl.LOCK_EX)
        unnamed.rename(path / LOCK)
        yield Path(stack.enter_context(directory))


def _remove_abandoned(directory: Path) -> None:
    """Remove a directory of ours that no living process holds."""
    with contextlib.suppress(OSError):
        if directory.is_symlink() or directory.stat().st_uid != os.getuid():
            return
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory)
            log.info("removed %s, which a demo that was killed had left behind", directory)
