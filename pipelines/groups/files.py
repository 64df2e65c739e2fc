"""Files on this machine: their parameters, and the destination they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.flags.parameter import Group, byte_count, optional_path, seconds, whole
from transforms.write.files.destination import Files

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("Files", destination="files", first="files_dir")


@dataclass(frozen=True, kw_only=True)
class FilesParameters:
    files_dir: Path | None = optional_path(
        GROUP, "Where NDJSON files are written.", "DIRECTORY", on_cluster="refused", example="./out"
    )
    files_max_events: int = whole(GROUP, 10_000, "Events in one file.", at_least=1)
    # A batch is held in memory until its file is written.
    files_max_bytes: int = byte_count(GROUP, 64_000_000, "Bytes in one file, before compression.")
    files_max_age: float = seconds(GROUP, 300, "How long an event waits for others.")


def destination(settings: Settings) -> Files:
    """What `settings` ask for."""
    return Files(dir=str(settings.files_dir), policy=settings.batch_policy(GROUP.destination))
