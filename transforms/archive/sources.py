"""What events are read back from, shard by shard: a directory's files here; buckets and tables beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import zstandard
from isal import isal_zlib

from transforms.write.archive import SUFFIXES

if TYPE_CHECKING:
    from transforms.archive.choice import Selection

# Read and unpacked at a time: enough for the disk, and 64 MB should every byte of it unpack to 250.
PART = 256 * 1024
DAMAGE: tuple[Any, ...] = (isal_zlib.IsalError, zstandard.ZstdError, EOFError)
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class ArchiveError(Exception):
    """An archive cannot be read. The message says which, why, and what to do about it."""


class Damaged(ArchiveError):
    """A part of an archive is not what was written; what came before the damage has been read."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of an archive that is read in one go: a file, an object, a table.

    size: bytes as they are stored; rows, of a table.
    """

    name: str
    size: int = 0


class Source(Protocol):
    """An archive: frozen, picklable, opened where it is read.

    letters: it holds dead letters, whose lines have the events inside them.
    """

    @property
    def letters(self) -> bool: ...

    def shards(self) -> Iterable[Shard]:
        """All of it, in an order that stays. Raises ArchiveError."""

    def lines(
        self, shard: Shard, selection: Selection, counts: Counter[str]
    ) -> Iterator[tuple[Sequence[bytes], bool]]:
        """Lines of NDJSON, some at a time, and False with a last one that lacks its end.

        A source that can leave out what `selection` does not ask for may do so, and counts in `counts` what
        it had to make anew ("rebuilt"). Raises ArchiveError.
        """


@dataclass(frozen=True)
class Directory:
    """Files of NDJSON of this machine, packed or not, in whatever directories."""

    root: str
    letters: bool = False

    def __str__(self) -> str:
        return f"{'dead_letters' if self.letters else 'files'}:{self.root}"

    def shards(self) -> list[Shard]:
        """Dead letters by the day and number of their files, archives by their paths."""
        root = Path(self.root)
        try:
            found = root.glob("*.ndjson") if self.letters else root.rglob("*.ndjson*")
            paths = [path for path in found if is_archived(path.relative_to(root).as_posix())]
            return [
                Shard(path.relative_to(root).as_posix(), path.stat().st_size)
                for path in sorted(paths, key=_day_and_number if self.letters else None)
            ]
        except OSError as error:
            raise ArchiveError(f"{self} cannot be read: {error.strerror or error}") from error

    def lines(
        self, shard: Shard, selection: Selection, counts: Counter[str]
    ) -> Iterator[tuple[Sequence[bytes], bool]]:
        return lines_in(self._parts(shard), f"{self}: {shard.name}")

    def _parts(self, shard: Shard) -> Iterator[bytes]:
        try:
            with (Path(self.root) / shard.name).open("rb") as file:
                while part := file.read(PART):
                    yield part
        except OSError as error:
            raise ArchiveError(f"{self}: {shard.name} cannot be read: {error.strerror or error}") from error


def _day_and_number(path: Path) -> tuple[str, int]:
    """Of a file of dead letters, in the order of writing."""
    day, _, number = path.name.removesuffix(".ndjson").partition(".")
    return day, int(number) if number.isdigit() else 0


def is_archived(name: str) -> bool:
    """Whether a file or object of that name holds events: NDJSON by its end, and nothing hidden on its way
    (where the writer of files keeps what is unfinished)."""
    parts = name.split("/")
    return parts[-1].endswith(tuple(SUFFIXES.values())) and not any(part.startswith(".") for part in parts)


# From stored bytes to lines


def lines_in(parts: Iterable[bytes], where: str) -> Iterator[tuple[Sequence[bytes], bool]]:
    """The lines of some stored bytes, unpacked, as `Source.lines` gives them. Raises Damaged for packed
    bytes that are, after the lines before the damage."""
    rest = b""
    try:
        for part in unpacked(iter(parts)):
            *found, rest = (rest + part).split(b"\n")
            if found:
                yield found, True
    except DAMAGE as error:
        raise Damaged(f"{where} is damaged or ends in the middle, and was read up to there") from error
    if rest:
        yield [rest], False


def unpacked(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The plain bytes. gzip and zstd are known by how they begin: what a download has unpacked on its way
    often keeps its name. Raises EOFError and what the libraries raise."""
    first = next(parts, b"")
    while 0 < len(first) < len(ZSTD) and (more := next(parts, b"")):
        first += more
    stream = chain((first,), parts)
    if first.startswith(GZIP):
        return _inflated(stream, lambda: isal_zlib.decompressobj(31))
    if first.startswith(ZSTD):
        return _inflated(stream, lambda: zstandard.ZstdDecompressor().decompressobj())
    return stream


def _inflated(parts: Iterable[bytes], new: Callable[[], Any]) -> Iterator[bytes]:
    """One packed member after another, as `cat a.gz b.gz` makes them."""
    member = None
    for part in parts:
        while part:
            member = member or new()
            plain = member.decompress(part)
            if plain:
                yield plain
            part = member.unused_data if member.eof else b""
            if member.eof:
                member = None
    if member is not None:
        raise EOFError
