"""WriteDeadLetters: the stage that keeps dead letters, in a directory or as objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam

from transforms.dead_letter import DeadLetter
from transforms.write.dead_letters.file import DeadLetterFile
from transforms.write.dead_letters.objects import WriteLetterObjects, is_prefix
from transforms.write.keyed.drain import DrainTime


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
