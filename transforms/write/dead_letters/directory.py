"""Dead letters in a directory: files of NDJSON by day, each line on disk before anything goes on."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import apache_beam as beam

from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter, DeadLetterError, decode, encode
from transforms.durable import open_private, sync
from transforms.write.dead_letters import objects
from transforms.write.dead_letters.objects import WriteLetterObjects, is_prefix
from transforms.write.keyed.attempts import DrainTime

# Small enough to open in an editor; a day may have several files.
MAX_FILE_BYTES = 64_000_000


class DeadLetterFile:
    """Appends dead letters to `<directory>/<YYYY-MM-DD>.ndjson` (UTC), `<YYYY-MM-DD>.1.ndjson` and on when
    a day's file is full. Several may append to one directory at once, from threads or processes."""

    def __init__(
        self, directory: str | Path, *, clock: Clock | None = None, max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self._directory = Path(directory)
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes

    def write(self, letter: DeadLetter) -> None:
        """Append one dead letter; it is on disk when this returns.

        Raises DeadLetterError: the letter must be written again, whether or not some of it is there.
        """
        line = encode(letter, self._clock.now()) + b"\n"
        try:
            self._append(line)
        except OSError as error:
            raise DeadLetterError(
                f"dead letters cannot be written to {self._directory}: {error.strerror or error}; nothing is "
                "lost, the events they are about stay undelivered until it works: make room there, or choose "
                "another --dead_letters"
            ) from error

    def _append(self, line: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(len(line))
        new = not path.exists()
        descriptor = open_private(str(path), os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a line torn by a crash or a full disk ends here
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync(self._directory)

    def _path(self, more: int) -> Path:
        """The first file of the day with room for `more` bytes (an empty one has room for anything)."""
        day = datetime.fromtimestamp(self._clock.now(), timezone.utc).strftime("%Y-%m-%d")
        number = max((_place(path)[1] for path in self._directory.glob(f"{day}*.ndjson")), default=0)
        path = self._directory / (f"{day}.{number}.ndjson" if number else f"{day}.ndjson")
        if path.exists() and 0 < path.stat().st_size > self._max_bytes - more:
            path = self._directory / f"{day}.{number + 1}.ndjson"
        return path


def letter_writer(place: str | Path) -> Callable[[DeadLetter], None]:
    """Outside a pipeline, what WriteDeadLetters does: the letter is safe when the call returns.

    place: a directory, or a prefix "gs://…" or "s3://…". The call raises DeadLetterError.
    """
    return objects.put_each(str(place)) if is_prefix(str(place)) else DeadLetterFile(place).write


def lines_in(directory: Path) -> Iterator[bytes]:
    """The lines of all files, oldest first."""
    for path in sorted(directory.glob("*.ndjson"), key=_place):
        with path.open("rb") as lines:
            yield from lines


def _place(path: Path) -> tuple[str, int]:
    """A file's place in the order of writing: its day, then its number within the day."""
    day, _, number = path.name.removesuffix(".ndjson").partition(".")
    return day, int(number) if number.isdigit() else 0


def read_dead_letters(directory: str | Path) -> Iterator[DeadLetter]:
    """The dead letters of a directory, or of a prefix "gs://…" or "s3://…", oldest first.

    Torn lines are skipped, and so is what a crash made appear again: the same event of the same
    destination, or for the feed the same bytes (two frames with one id are two dead letters).
    """
    place = str(directory)
    lines = objects.lines_under(place) if objects.is_prefix(place) else lines_in(Path(place))
    seen: set[tuple[str, str, str | bytes]] = set()
    for line in lines:
        letter = decode(line)
        if letter is None:
            continue
        by_id = letter.stage == "write" and letter.event_id
        digest = hashlib.blake2b(letter.raw, digest_size=16).digest()
        key = (letter.stage, letter.destination, letter.event_id if by_id else digest)
        if key not in seen:
            seen.add(key)
            yield letter


class WriteDeadLetters(beam.PTransform):  # type: ignore[type-arg]
    """Writes each DeadLetter to a file in `directory` (see DeadLetterFile), on disk before anything that
    follows it in its bundle happens. Returns the dead letters written.

    Raises DeadLetterError when one cannot be written, which fails the bundle and makes it come again.

    directory: also a prefix, "gs://bucket/path" or "s3://bucket/path"; see WriteLetterObjects, which gathers
    them on state and timers if `timers` (None: unless the runner is inside this process), and at the end of
    its input tries for its `drain` time.
    """

    def __init__(
        self,
        directory: str | Path,
        timers: bool | None = None,
        drain: DrainTime = DrainTime(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self._timers, self._drain = timers, drain
        self._directory = str(directory)

    def expand(self, pcoll: Any) -> Any:
        """DeadLetter in, DeadLetter out."""
        if is_prefix(self._directory):
            return pcoll | "Objects" >> WriteLetterObjects(self._directory, self._timers, self._drain)
        return pcoll | "Append" >> beam.ParDo(_Append(self._directory))

    def display_data(self) -> dict[str, Any]:
        """Where they go, for the graph's viewers."""
        return {"directory": self._directory}


@beam.typehints.with_input_types(DeadLetter)
@beam.typehints.with_output_types(DeadLetter)
class _Append(beam.DoFn):
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def setup(self) -> None:
        self._file = DeadLetterFile(self._directory)

    def process(self, element: DeadLetter) -> Iterator[DeadLetter]:
        self._file.write(element)
        yield element
