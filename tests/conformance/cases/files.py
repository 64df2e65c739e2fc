"""Files: the local archive, read back as any reader of Hive layouts would."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tests.conformance.case import SMALL, Ability, Case, Place
from tests.conformance.evidence import ndjson, same_line
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.write.contract import Destination
from transforms.write.files.destination import POLICY, Files

NO_NETWORK = "a local disk is not reached over a network"


@contextmanager
def case(place: Place) -> Iterator[Case]:
    yield FilesCase(place.directory)


class FilesCase(Case):
    name = "files"
    once = True
    once_over_crashes = True
    cannot: ClassVar[Mapping[Ability, str]] = {
        "kill": NO_NETWORK,
        "reject": "a disk refuses no event for what it is",
        "busy": "a disk never asks to come back later",
        "retry_after": "a disk never asks to come back later",
        "reset": NO_NETWORK,
        "truncate": NO_NETWORK,
        "gateway": NO_NETWORK,
        "late": "a write to a local disk cannot be held up from outside",
        "swallow": NO_NETWORK,
        "size": "a file may be as long as the disk",
        "credential": "whoever runs the job may write or not; there is no credential",
        "rotate": "whoever runs the job may write or not; there is no credential",
    }

    def __init__(self, place: Path) -> None:
        self._root = place / "archive"
        self._aside = place / "aside"

    def destination(self, policy: BatchPolicy = SMALL) -> Destination:
        return Files(str(self._root), policy=policy)

    def same(self, sent: Event, stored: bytes) -> bool:
        return same_line(sent.raw, stored)

    def biggest_policy(self) -> BatchPolicy:
        return replace(POLICY, max_age=1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        there = self._root if self._root.is_dir() else self._aside
        files = sorted(there.glob("dt=*/hour=*/*.ndjson.gz"))
        return [line for path in files for line in ndjson(gzip.decompress(path.read_bytes()))]

    def down(self) -> None:
        self._root.rename(self._aside)
        self._root.write_text("something else")

    def up(self) -> None:
        self._root.unlink()
        self._aside.rename(self._root)
