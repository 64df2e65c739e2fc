"""The last hour in memory: rates, what is unknown, how long it is kept; when the journal will be full."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.local.history import EVERY, KEPT, History
from pipelines.local.snapshot import DestinationSnapshot, Snapshot, StandingBy
from pipelines.local.verdict import Level, of_run
from tests.pipelines.local.looks import AT, destination, down, run
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.intake import Gap
from transforms.feed.journal.cursor import Books

GIB = 1024**3


def looked(*snapshots: Snapshot) -> History:
    history = History(run, ManualClock())
    for each in snapshots:
        history.add(each)
    return history


def shown(history: History) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(history.json())
    return found


def at(
    second: float, received: int, delivered: int, item: DestinationSnapshot | None = None, **more: Any
) -> Snapshot:
    books = Books(received=received, delivered=delivered, dead_lettered=0, pending=received - delivered)
    item = item or destination("splunk", lag=second / 10)
    return run(replace(item, books=books), at=AT + second, received=received, **more)


def test_rates_are_over_the_seconds_between_two_looks_and_the_first_has_none() -> None:
    found = shown(looked(at(0, 100, 90), at(10, 300, 240), at(30, 300, 300)))
    assert found["times"] == [AT, AT + 10, AT + 30]
    assert found["received"] == [None, 20.0, 0.0]
    assert found["destinations"] == {
        "splunk": {"delivered": [None, 15.0, 3.0], "pending": [10, 60, 0], "lag": [0.0, 1.0, 3.0]}
    }
    assert (found["at"], found["every"], found["started_at"]) == (AT + 30, EVERY, AT - 90)


def test_a_destination_that_came_later_or_went_is_unknown_at_the_other_times() -> None:
    other = run(destination("kafka"), at=AT + 10)
    found = shown(looked(at(0, 100, 90), other))["destinations"]
    assert found["kafka"] == {"delivered": [None, None], "pending": [None, 10], "lag": [None, 1.0]}
    assert found["splunk"]["pending"] == [10, None]


def test_an_hour_is_kept() -> None:
    found = shown(looked(*[at(n * EVERY, n, n) for n in range(1000)]))
    assert found["times"][-1] - found["times"][0] == KEPT
    assert len(found["received"]) == KEPT / EVERY + 1


def test_what_a_standby_takes_over_is_no_burst() -> None:
    held = StandingBy(events=5, bytes=10, max_bytes=100, reaches_back_to=AT)
    standby = run(at=AT, received=0, standing_by=held)
    assert shown(looked(standby, at(10, 1_000_000, 900_000), at(20, 1_000_100, 900_000)))["received"] == [
        None,
        None,
        10.0,
    ]


def test_a_wall_clock_that_is_set_back_begins_anew() -> None:
    found = shown(looked(at(100, 10, 0), at(50, 20, 0), at(60, 30, 0)))
    assert found["times"] == [AT + 50, AT + 60]
    assert found["received"] == [None, 1.0]


def test_only_gaps_that_reach_into_the_hour_are_marks_on_it() -> None:
    gaps = [
        Gap(AT - 5, None, "reset"),
        Gap(AT - 4000, AT - 3000, "reset"),
        Gap(AT - 9000, AT - 8000, "reset"),
    ]
    found = shown(looked(run(latest_gaps=gaps)))["gaps"]
    assert [(gap["since"], gap["until"]) for gap in found] == [(AT - 5, None), (AT - 4000, AT - 3000)]


def filling(item: DestinationSnapshot, *sizes: float) -> Snapshot:
    """The last of looks a minute apart, at a journal of 10 GiB that holds so many GiB."""
    looks = [
        at(60.0 * n, 100, 50, item, journal_bytes=int(size * GIB), journal_max_bytes=10 * GIB)
        for n, size in enumerate(sizes)
    ]
    return looked(*looks).foretold(looks[-1])


def test_when_the_journal_is_full_is_foretold_at_the_rate_of_the_last_minutes() -> None:
    seen = filling(down("splunk"), 1.0, 2.0, 3.0)
    assert seen.full_at == pytest.approx(seen.at + 7 * 60)
    run_ = of_run(seen)
    assert run_.level is Level.TROUBLE
    assert "At this rate the journal is full in about 7 min; then the feed is not read." in run_.text
    # Long ago it grew faster.
    slower = filling(down("splunk"), 1.0, 5.0, 6.0, 6.1, 6.2, 6.3, 6.4, 6.5)
    assert slower.full_at == pytest.approx(slower.at + 35 * 60)


@pytest.mark.parametrize(
    ("item", "sizes"),
    [
        (destination("splunk"), (1.0, 2.0, 3.0)),  # goes with the next flush
        (down("splunk"), (3.0, 2.0, 1.0)),
        (down("splunk"), (3.0, 3.0)),
        (down("splunk"), (3.0,)),  # no trend yet
        (down("splunk"), (10.0, 10.0)),  # it is full: the page says so in other words
        (down("splunk"), (1.0, 1.000001)),  # in months
    ],
)
def test_nothing_is_foretold_that_will_not_be(item: DestinationSnapshot, sizes: tuple[float, ...]) -> None:
    assert filling(item, *sizes).full_at is None


def test_it_looks_until_it_is_closed_and_a_look_that_fails_is_a_point_less() -> None:
    import threading

    looks, went_on = 0, threading.Event()

    class Clock(ManualClock):
        def wait(self, event: threading.Event, timeout: float | None) -> bool:
            return event.wait(0)

    def look() -> Snapshot:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise ValueError
        if looks == 4:
            went_on.set()
        return at(looks, looks, 0)

    history = History(look, Clock())
    history.start()
    assert went_on.wait(10)
    history.close()
    assert shown(history)["times"][:2] == [AT + 1, AT + 3]
