"""Events published at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice

from pipelines.local.practice.feed_frames import Prepared, prepare

TICK = 0.01  # seconds; a hundred small bursts a second are steady enough


def at_rate(
    publish: Callable[[Prepared], object],
    rate: float,
    events: Iterator[bytes],
    stop: threading.Event,
    count: int | None = None,
    events_per_chunk: int = 1,
) -> None:
    """Publish `rate` events a second until `stop` is set or `count` events are out."""
    started, done = time.monotonic(), 0
    while (count is None or done < count) and not stop.wait(TICK):
        due = int((time.monotonic() - started) * rate) - done
        if count is not None:
            due = min(due, count - done)
        if due > 0:
            publish(prepare(islice(events, due), events_per_chunk))
            done += due
