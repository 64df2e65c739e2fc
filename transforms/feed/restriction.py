"""The feed's restriction: a range of journal offsets that is never split but to checkpoint it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from apache_beam.coders import Coder
from apache_beam.io.iobase import RestrictionProgress
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from transforms.feed.source import registered

OPEN_END = 2**63 - 1  # the feed has no last offset
_VERSION = 1
_HEADER = struct.Struct(">Bqq")


class FeedRestriction(OffsetRange):  # type: ignore[misc]
    """Offsets [start, stop) of the journal behind the source of that name."""

    def __init__(self, source: str, start: int = 0, stop: int = OPEN_END) -> None:
        super().__init__(start, stop)
        self.source = source

    def split_at(self, split_pos: int) -> tuple[FeedRestriction, FeedRestriction]:
        return (
            FeedRestriction(self.source, self.start, split_pos),
            FeedRestriction(self.source, split_pos, self.stop),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeedRestriction) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.source, self.start, self.stop))


class FeedRestrictionCoder(Coder):  # type: ignore[misc]
    """A version byte, two big-endian 64-bit offsets, the source's name.

    Beam's default pickles class paths, which breaks updates of a running job.
    """

    def encode(self, value: FeedRestriction) -> bytes:
        return _HEADER.pack(_VERSION, value.start, value.stop) + value.source.encode()

    def decode(self, encoded: bytes) -> FeedRestriction:
        """Raises ValueError when another version wrote it."""
        version, start, stop = _HEADER.unpack_from(encoded)
        if version != _VERSION:
            raise ValueError(f"a feed restriction of version {version}; this program reads {_VERSION}")
        return FeedRestriction(encoded[_HEADER.size :].decode(), start, stop)

    def is_deterministic(self) -> bool:
        return True


class FeedRestrictionTracker(OffsetRestrictionTracker):  # type: ignore[misc]
    """Claims the last offset of each chunk; splits at fraction 0 only.

    A runner that split a running restriction (Prism does) would read the feed twice. Claiming a chunk's
    first offset would make the residual begin inside the chunk.
    """

    def is_bounded(self) -> bool:
        return False

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None

    def current_progress(self) -> RestrictionProgress:
        """Bytes waiting in the journal: an open range of offsets would report 9e18 and scale a cluster up."""
        at = self._range.start if self._last_claim_attempt is None else self._last_claim_attempt + 1
        return RestrictionProgress(completed=0, remaining=_pending_bytes(self._range.source, at))


class FeedRestrictionProvider(RestrictionProvider):  # type: ignore[misc]
    """All offsets of the source that the element names, sized by the bytes that are pending."""

    def initial_restriction(self, element: str) -> FeedRestriction:
        return FeedRestriction(element)

    def create_tracker(self, restriction: FeedRestriction) -> FeedRestrictionTracker:
        return FeedRestrictionTracker(restriction)

    def restriction_size(self, element: str, restriction: FeedRestriction) -> int:
        return _pending_bytes(element, restriction.start)

    def split(self, element: str, restriction: FeedRestriction) -> Iterator[FeedRestriction]:
        yield restriction

    def restriction_coder(self) -> Coder:
        return FeedRestrictionCoder()


def _pending_bytes(source: str, position: int) -> int:
    found = registered(source)
    return 0 if found is None else found.pending_bytes(position)
