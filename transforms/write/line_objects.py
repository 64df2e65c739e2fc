"""Lines as objects under a gs:// or s3:// prefix, or in a directory: NDJSON by day, named by content.

Beam's own FileSystems write and read them, with the credentials and options (--s3_endpoint_url, ...) that
they use for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider

from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.write.archive import SUFFIXES, Compression, blocks
from transforms.write.contract import Destination, Outcome, Writer

BINARY = "application/octet-stream"


@dataclass(frozen=True)
class LineObjects(Destination):
    """Where they go. Its events are the lines.

    what, flag: what they are in words, and what says where they go.
    """

    prefix: str
    policy: BatchPolicy = Destination.policy
    concurrency: int = 1

    what: ClassVar[str]
    flag: ClassVar[str]
    compression: ClassVar[Compression] = "none"

    def partition(self, event: Event) -> str:
        """The day (UTC) of `created_at`: an object never mixes days."""
        return f"dt={event.created_at[:10]}"

    def open(self) -> LineWriter:
        return LineWriter(self)


class LineWriter(Writer):
    """One object a batch; a batch that is written again replaces its own object."""

    def __init__(self, settings: LineObjects) -> None:
        give_beam_options()
        self._settings = settings
        self._prefix = settings.prefix.rstrip("/")

    def write(self, batch: Batch) -> Outcome | None:
        """Put `batch`. Whatever goes wrong is "later": each file system raises exceptions of its own."""
        settings = self._settings
        time = batch.events[0].created_at[11:19].replace(":", "")
        path = f"{self._prefix}/{batch.partition}/{time}-{batch.id}{SUFFIXES[settings.compression]}"
        try:
            with FileSystems.create(path, BINARY, CompressionTypes.UNCOMPRESSED) as file:
                for block in blocks(batch.events, settings.compression):
                    file.write(block)
        except Exception as error:  # noqa: BLE001 - see above
            cause = (
                f"{settings.what} cannot be written to {self._prefix}: {type(error).__name__}: {error}. "
                "They are kept and written once this is fixed: check the bucket, its permissions, "
                f"{settings.flag}."
            )
            return Outcome(later=range(len(batch.events)), cause=cause, unknown=True)
        return None


def objects_under(prefix: str, compression: Compression) -> list[str]:
    """The paths of all objects under `prefix`, in the order of their names. Raises BeamIOError."""
    give_beam_options()
    (found,) = FileSystems.match([f"{prefix.rstrip('/')}/**{SUFFIXES[compression]}"])
    return sorted(metadata.path for metadata in found.metadata_list)


def give_beam_options() -> None:
    """Beam's S3 refuses to work in a process that was given no options, as are the workers of a pool without
    containers: there the environment alone says where the store is, and who asks."""
    if FileSystems._pipeline_options is None and RuntimeValueProvider.runtime_options is None:
        FileSystems.set_options(PipelineOptions([]))
