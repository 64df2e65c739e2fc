"""Files: events as gzipped NDJSON in a directory, one file a batch, partitioned by hour; each id once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transforms.batch import BatchPolicy, batches
from transforms.durable import open_private, sync
from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.readers import path_text
from transforms.setting import setting
from transforms.write.advice import FILES
from transforms.write.archive import (
    CHECK,
    SUFFIXES,
    Compression,
    blocks,
    compression_of,
    hour_partition,
    is_key,
    object_key,
)
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination, Outcome, Writer, finding
from transforms.write.failure import failed

# The peer's and S3's sizes: a query engine likes few large files, and five minutes is what people wait for
# an archive. 64 MB of raw events are some 10 MB of gzip, and what one batch may hold in memory.
POLICY = BatchPolicy(max_events=10_000, max_bytes=64_000_000, max_age=300.0)

# Unfinished files live here, where readers of Hive layouts do not look (a leading dot hides).
UNFINISHED = ".unfinished"

LOW = 1024**3  # bytes free below which somebody should know
# What a person can put right. Anything else is a bug and is raised.
BLOCKING = {getattr(errno, name): advice for name, advice in FILES.items()}
# How file systems without hard links say so (FAT, some network and container mounts).
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Files(Destination):
    """Settings of the local archive.

    dir: where the partitions are made; created when its parent is there to hold it.
    compression: of the files; `gzip`, `zstd` or `none`.
    """

    dir: str = setting(
        "Where NDJSON files are written.",
        read=path_text,
        placeholder="DIRECTORY",
        on_cluster="refused",
        example="./out",
    )
    compression: Compression = "gzip"
    # A batch is held in memory until its file is written.
    policy: BatchPolicy = batches(POLICY, "in one file", compressed=True)
    asked: Asked = asked_for()

    name: ClassVar[str] = "files"
    title: ClassVar[str] = "Files"

    def partition(self, event: Event) -> str:
        """The hour of `created_at`: a file never mixes hours."""
        return hour_partition(event)

    def target(self) -> str:
        """The directory."""
        return self.dir

    def exactly_once(self) -> bool:
        return True

    def by_content(self) -> bool:
        return True

    def check(self) -> Iterator[Finding]:
        """Write a file as delivery does, and take it away again."""
        return self.open().check()

    def open(self) -> FilesWriter:
        return FilesWriter(self)


class FilesWriter(Writer):
    """Writes each batch as one file that appears complete or not at all."""

    def __init__(self, settings: Files) -> None:
        self._root = Path(settings.dir)
        self._suffix = SUFFIXES[settings.compression]
        self._ready = False

    def write(self, batch: Batch) -> Outcome | None:
        """Publish `batch` under its key; a file that is there already is this batch's earlier attempt."""
        key = self._key(batch)
        try:
            self._prepare()
            self._publish(key, batch.events)
        except OSError as error:
            if error.errno not in BLOCKING:
                raise
            if not self._root.exists():  # removed by a person: the next attempt makes it anew
                self._ready = False
            return failed(f"files in {self._root}", BLOCKING[error.errno], range(len(batch.events)))
        batch.place = str(self._root / key)
        return None

    def preflight(self) -> Iterator[Finding]:
        """Whether the directory is there, or can be made, and may be written to. It is made now."""
        try:
            self._prepare()
        except OSError as error:
            what = BLOCKING.get(error.errno or 0, error.strerror)
            yield Finding("the directory", False, f"files in {self._root}: {what}.")
            return
        writable = os.access(self._root / UNFINISHED, os.W_OK)
        yield Finding("the directory", writable, "" if writable else f"files in {self._root}: not writable.")

    def check(self) -> Iterator[Finding]:
        """Whether a file can be made whole there, and how much more has room."""
        what = "writing a file"
        try:
            self._prepare()
            with written(self._root / UNFINISHED / f"{os.getpid()}-check", CHECK.events, "none"):
                free = shutil.disk_usage(self._root).free
        except OSError as error:
            advice = BLOCKING.get(error.errno or 0)
            if advice is None:
                yield Finding(what, None, f"files in {self._root}: {error.strerror}.")
            else:
                yield finding(what, failed(f"files in {self._root}", advice, ()))
            return
        yield Finding(what, True, note=f"in {self._root}; nothing is left of it")
        said = f"{free / 1024**3:.1f} GiB are free in {self._root}"
        low = f"Only {said}: make room." if free < LOW else ""
        yield Finding("room", True, low, "" if low else said)

    def close(self) -> None:
        """Nothing is held between batches."""

    def _key(self, batch: Batch) -> str:
        """The key of the first attempt, also when the batch has shrunk or settings have changed since."""
        if batch.memo is not None:
            key = batch.memo.decode(errors="replace")
            if is_key(key):
                return key
        key = object_key(batch, self._suffix)
        batch.remember(key.encode())
        return key

    def _prepare(self) -> None:
        """Once: make the directory and clear away what a killed process left. Not again while it exists:
        a mount that has gone leaves an empty directory without UNFINISHED, which must not be filled."""
        if self._ready:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        unfinished = self._root / UNFINISHED
        unfinished.mkdir(exist_ok=True)
        for path in unfinished.iterdir():
            remove_abandoned(path)
        self._ready = True

    def _publish(self, key: str, events: Sequence[Event]) -> None:
        target = self._root / key
        make_directories(self._root, target.parent)
        if not target.exists():
            unfinished = self._root / UNFINISHED / f"{os.getpid()}-{target.name}"
            with written(unfinished, events, compression_of(key)):
                appear(unfinished, target)
        # Also for a file that was there: the attempt that made it may not have come this far.
        sync(target.parent)


@contextlib.contextmanager
def written(path: Path, events: Sequence[Event], compression: Compression) -> Iterator[None]:
    """Write `events` to `path`, on disk when the body of the `with` runs; `path` is gone afterwards."""
    try:
        with open(path, "wb", opener=open_private) as file:
            # Held while the file is ours; the kernel lets go of it even after kill -9.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.writelines(blocks(events, compression))
            file.flush()
            os.fsync(file.fileno())
            yield
    finally:
        path.unlink(missing_ok=True)


def appear(unfinished: Path, target: Path) -> None:
    """Give the finished file its name without ever replacing another one."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        pass  # another attempt of the same batch was faster: the same events
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Without links a rename is the only atomic way. It would replace a file that appeared since
        # `exists`, but only one with this name: the same batch.
        if not target.exists():
            unfinished.rename(target)


def make_directories(root: Path, directory: Path) -> None:
    """Make what is missing between `root` (which must be there) and `directory`, each name on disk."""
    if directory.is_dir():
        return
    for path in (directory.parent, directory):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            sync(path.parent)


def remove_abandoned(path: Path) -> None:
    """Remove an unfinished file that no living process holds."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
