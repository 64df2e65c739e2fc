"""The tracker of a feed's range: it is never split but to checkpoint it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from apache_beam.coders import Coder
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from transforms.feed.worker.range import FeedRange, FeedRangeCoder
from transforms.feed.worker.sessions import PROCESS


class FeedRangeTracker(RestrictionTracker):  # type: ignore[misc]
    """What is claimed is named by what is left after it: the last offset of a chunk, and whose it is.

    A process that takes over names its own session from its first claim on. A runner that split a running
    range (Prism does) would read the feed twice, so only fraction 0 splits.
    """

    def __init__(self, restriction: FeedRange) -> None:
        self._range = restriction
        self._left = restriction
        self._split = False

    def current_restriction(self) -> FeedRange:
        return self._range

    def try_claim(self, position: FeedRange) -> bool:
        """Claim all that lies before `position`; False once the rest was given away."""
        if self._split:
            return False
        self._left = position
        return True

    def try_split(self, fraction_of_remainder: float) -> Any:
        if fraction_of_remainder != 0 or self._split or self._left.finished:
            return None
        self._split = True
        same = self._left.session == self._range.session
        start = self._range.start if same else 0
        self._range = replace(self._left, start=start, stop=self._left.start)
        return self._range, self._left

    def check_done(self) -> bool:
        """Raises ValueError when something is left that was neither claimed nor given away."""
        if not self._split and not self._left.finished:
            raise ValueError(f"{self._left} was not read to its end")
        return True

    def current_progress(self) -> RestrictionProgress:
        """Bytes waiting in the ring: an open range of offsets would report 9e18 and scale a cluster up."""
        remaining = 0 if self._split else PROCESS.pending_bytes(self._left)
        return RestrictionProgress(completed=0, remaining=remaining)

    def is_bounded(self) -> bool:
        return False


class FeedRangeProvider(RestrictionProvider):  # type: ignore[misc]
    """One open range for each connection, which is the element; sized by the bytes that are pending."""

    def initial_restriction(self, element: int) -> FeedRange:
        return FeedRange(element)

    def create_tracker(self, restriction: FeedRange) -> FeedRangeTracker:
        return FeedRangeTracker(restriction)

    def restriction_size(self, element: int, restriction: FeedRange) -> int:
        return PROCESS.pending_bytes(restriction)

    def split(self, element: int, restriction: FeedRange) -> Iterator[FeedRange]:
        yield restriction

    def truncate(self, element: int, restriction: FeedRange) -> FeedRange:
        """The pipeline drains: whoever has the ring is to flush it, and end."""
        return replace(restriction, draining=True)

    def restriction_coder(self) -> Coder:
        return FeedRangeCoder()
