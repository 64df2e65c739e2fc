"""What the splittable DoFn reads from: a source, found by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk


@dataclass(frozen=True)
class Turn:
    """What a source wants done now: read about `events` events, then tick.

    flush: the stages behind are asked to send what they hold.
    done: nothing will come any more; the reading ends after this turn.
    """

    events: int = 0
    flush: bool = False
    done: bool = False


class Source(Protocol):
    """Paces the reading of one pipeline. Beam copies DoFns by pickling, so they hold the source's name."""

    def position(self, restriction_start: int) -> int:
        """The offset to read from, given that a bundle starts (or resumes) at `restriction_start`."""

    def wait(self, position: int) -> Turn:
        """Block until there is something to do."""

    def next(self, position: int, bundle_seconds: float) -> Turn | None:
        """What comes next in a bundle that has run for `bundle_seconds`: like `wait`, but None ends it."""

    def read(self, position: int, events: int) -> Sequence[Chunk]:
        """Chunks from `position` on, about `events` events and at least one chunk when there is any."""

    def strays(self) -> Sequence[tuple[int, DeadLetter]]:
        """Numbered dead letters of the feed that this pipeline is to carry."""

    def drop_strays(self, up_to: int) -> None:
        """They went through the pipeline."""

    def finished(self, position: int) -> None:
        """The last turn is over; everything below `position` went through."""

    def caught_up(self, position: int) -> bool:
        """Whether nothing waits at `position`: then the watermark is the present."""

    def pending_bytes(self, position: int) -> int:
        """About how many raw bytes wait from `position` on."""


_sources: dict[str, Source] = {}


def register(name: str, source: Source) -> None:
    """Make a source known in this process."""
    _sources[name] = source


def unregister(name: str) -> None:
    """Forget it."""
    _sources.pop(name, None)


def registered(name: str) -> Source | None:
    """The source of that name in this process."""
    return _sources.get(name)
