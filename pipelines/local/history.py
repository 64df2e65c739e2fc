"""The last hour of a run, in memory: what the page's charts show, and when the journal will be full."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from pipelines.local import verdict
from pipelines.local.snapshot import DestinationSnapshot, Look, Snapshot
from pipelines.local.status_json import Gap, gap_json
from transforms.clock import Clock

log = logging.getLogger("grantex.run")

EVERY = 10.0  # seconds between two points: a chart 360 pixels wide has one for each
KEPT = 3600.0  # seconds; with eight destinations half a megabyte
# A forecast looks so far back, and says nothing before: what a destination takes in bursts is no trend.
TREND, TREND_AT_LEAST = 300.0, 60.0
FURTHEST = 30 * 86_400.0  # seconds ahead; beyond that nothing is foretold


@dataclass(frozen=True)
class Point:
    """One destination at one moment. delivered: events a second since the point before; None at the first."""

    delivered: float | None
    pending: int
    lag: float


@dataclass(frozen=True)
class Moment:
    """The run at one moment, `at` in epoch seconds. received: as Point.delivered."""

    at: float
    received: float | None
    journal_bytes: int
    destinations: Mapping[str, Point]


class Series(msgspec.Struct):
    """Of one destination, a value for each of `History.times`; null: not known."""

    delivered: list[float | None]  # events a second
    pending: list[int | None]
    lag: list[float | None]


class HistoryJson(msgspec.Struct):
    """What `/history.json` answers: the last hour, oldest first; times in epoch seconds."""

    at: float
    started_at: float
    every: float  # seconds between two points; where it is longer, nobody looked
    times: list[float]
    received: list[float | None]  # events a second
    destinations: dict[str, Series]
    gaps: list[Gap]  # those that reach into this hour, newest first


class History:
    """Looks every ten seconds, in a thread of its own, until it is closed."""

    def __init__(self, look: Look, clock: Clock) -> None:
        self._look, self._clock = look, clock
        self._moments: deque[Moment] = deque()
        self._before: Snapshot | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def start(self) -> None:
        """Look from now on; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)  # it may wait for the journal, and is a daemon

    def _run(self) -> None:
        while True:
            try:
                self.add(self._look())
            except Exception as error:  # noqa: BLE001 - whatever it was, a point is missing and no more
                log.debug("no point of the last hour: %s", error)
            if self._clock.wait(self._stop, EVERY):
                return

    def add(self, snapshot: Snapshot) -> None:
        """Take the next point of the charts."""
        with self._lock:
            before, self._before = self._before, snapshot
            if before is not None and snapshot.at <= before.at:
                self._moments.clear()  # the wall clock was set back
                before = None
            self._moments.append(_moment(before, snapshot))
            while self._moments[0].at < snapshot.at - KEPT:
                self._moments.popleft()

    def foretold(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with when the journal will be full at the rate of the last minutes.

        Only while a destination is not well: otherwise what waits goes at its next flush.
        """
        left = snapshot.journal_max_bytes - snapshot.journal_bytes
        if left <= 0 or not any(_holds(item) for item in snapshot.destinations):
            return snapshot
        with self._lock:
            since = next((each for each in self._moments if each.at >= snapshot.at - TREND), None)
        if since is None or snapshot.at - since.at < TREND_AT_LEAST:
            return snapshot
        grown = snapshot.journal_bytes - since.journal_bytes
        seconds = left * (snapshot.at - since.at) / grown if grown > 0 else FURTHEST
        return snapshot if seconds >= FURTHEST else replace(snapshot, full_at=snapshot.at + seconds)

    def json(self) -> bytes:
        """For the page."""
        with self._lock:
            moments, last = list(self._moments), self._before
        names = dict.fromkeys(name for each in moments for name in each.destinations)
        at = moments[-1].at if moments else 0.0
        gaps = last.latest_gaps if last else ()
        return msgspec.json.encode(
            HistoryJson(
                at=at,
                started_at=last.started_at if last else 0.0,
                every=EVERY,
                times=[round(each.at, 1) for each in moments],
                received=[_short(each.received) for each in moments],
                destinations={name: _series(name, moments) for name in names},
                gaps=[gap_json(gap) for gap in gaps if gap.until is None or gap.until > at - KEPT],
            )
        )


def _moment(before: Snapshot | None, now: Snapshot) -> Moment:
    # What a standby takes over was not received in the seconds since it last looked.
    if before is not None and (before.standing_by is None) is not (now.standing_by is None):
        before = None
    known = {item.name: item.books.delivered for item in before.destinations} if before else {}
    seconds = now.at - before.at if before else 0.0

    def rate(then: int | None, total: int) -> float | None:
        return None if then is None else max(0, total - then) / seconds

    return Moment(
        now.at,
        rate(None if before is None or now.standing_by else before.received, now.received),
        now.journal_bytes,
        {
            item.name: Point(
                rate(known.get(item.name), item.books.delivered), item.books.pending, max(0.0, item.lag)
            )
            for item in now.destinations
        },
    )


def _holds(item: DestinationSnapshot) -> bool:
    return bool(item.books.pending) and verdict.of_destination(item).level is not verdict.Level.GOOD


def _series(name: str, moments: Sequence[Moment]) -> Series:
    points = [each.destinations.get(name) for each in moments]
    return Series(
        [None if point is None else _short(point.delivered) for point in points],
        [None if point is None else point.pending for point in points],
        [None if point is None else _short(point.lag) for point in points],
    )


def _short(value: float | None) -> float | None:
    """With the few digits that a chart can show."""
    return None if value is None else float(f"{value:.4g}")
