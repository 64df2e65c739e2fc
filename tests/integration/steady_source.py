"""An unbounded source for pipelines on a cluster runner: chunks at a steady pace, until it is stopped.

Its workers must run in this process (LOOPBACK): a test stops it and reads what it has sent from here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.event import Chunk, Event

FAR = 10**12
PADDING = b"x" * 180


def event(number: int) -> Event:
    """One of about 280 bytes, its id and the time in it."""
    event_id = f"evt_{number:08d}"
    raw = b'{"id":"%b","type":"t","createdAt":"2026-03-01T12:00:00Z","at":%.6f,"data":{"p":"%b"}}' % (
        event_id.encode(),
        time.time(),
        PADDING,
    )
    return Event(event_id, "t", "2026-03-01T12:00:00Z", raw)


class Pace:
    """How fast, how much and whether at all; shared by the test and the source."""

    def __init__(self, per_second: float, total: int = FAR, chunk: int = 500) -> None:
        self.per_second, self.total, self.chunk = per_second, total, chunk
        self.stopped = threading.Event()
        self.sent = 0
        self.last = 0.0  # when the last chunk left, monotonic
        self.started: float | None = None


_paces: dict[str, Pace] = {}


class _Tracker(OffsetRestrictionTracker):  # type: ignore[misc]
    def is_bounded(self) -> bool:
        return False

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None


class _Provider(RestrictionProvider):  # type: ignore[misc]
    def initial_restriction(self, element: str) -> OffsetRange:
        return OffsetRange(0, FAR)

    def create_tracker(self, restriction: OffsetRange) -> _Tracker:
        return _Tracker(restriction)

    def restriction_size(self, element: str, restriction: OffsetRange) -> int:
        return 1


_TRACKER = beam.DoFn.RestrictionParam(_Provider())
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class _Read(beam.DoFn):
    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(
        self, element: str, tracker: Any = _TRACKER, watermark: Any = _WATERMARK
    ) -> Iterator[TimestampedValue]:
        pace = _paces[element]
        pace.started = pace.started or time.monotonic()
        end = time.monotonic() + 0.2
        at = tracker.current_restriction().start
        while time.monotonic() < end:
            if pace.stopped.is_set() or at >= pace.total:
                tracker.try_claim(FAR - 1)
                return
            allowed = int((time.monotonic() - pace.started) * pace.per_second) - at
            count = min(pace.chunk, allowed, pace.total - at)
            if count < 1:
                time.sleep(0.005)
                continue
            if not tracker.try_claim(at + count - 1):
                return
            now = time.time()
            chunk = Chunk([event(n) for n in range(at, at + count)], at, now)
            at += count
            pace.sent, pace.last = at, time.monotonic()
            yield TimestampedValue(chunk, Timestamp.of(now))
            watermark.set_watermark(Timestamp.of(now))
        watermark.set_watermark(max(watermark.current_watermark() or 0, Timestamp.of(time.time() - 0.1)))
        tracker.defer_remainder(Duration.of(0.02))


def steady(pipeline: beam.Pipeline, name: str, pace: Pace) -> Any:
    """A PCollection of chunks at this pace."""
    _paces[name] = pace
    return pipeline | "Name" >> beam.Create([name]) | "Steady" >> beam.ParDo(_Read())
