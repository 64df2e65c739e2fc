"""Jobs to look at, each with an hour behind it: for tests of the page, and for the pictures in the docs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from pipelines.local.history import EVERY, History
from pipelines.local.proof import ProofStatus
from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from tests.pipelines.local.looks import AT, LIVE, delivery, destination, run
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.intake import Gap
from transforms.feed.journal.cursor import Books
from transforms.feed.status import Phase
from transforms.preflight import Finding
from transforms.write.delivery.status import CircuitStatus

TARGETS = {
    "bigquery": "acme-audit.grantex.events",
    "datadog": "https://http-intake.logs.datadoghq.eu",
    "files": "/var/lib/grantex/archive",
    "kafka": "kafka-1.acme.example:9093, topic grantex-events",
    "s3": "s3://acme-audit/grantex-events in eu-central-1",
    "splunk": "https://hec.acme.example:8088, index grantex",
    "gcs": "gs://acme-audit/grantex-events",
    "pubsub": "projects/acme/topics/grantex-events",
}
LONG = "a-destination-of-the-audit-department-in-frankfurt-that-has-a-very-long-name"
REFUSED = "Splunk at https://hec.acme.example:8088 refused the token: Invalid token (code 4, status 403)."
AWAY = "Kafka at kafka-1.acme.example:9093: no broker answers. The events are kept and sent again."
ULID = "evt_01JNW8Z5XQ7T3V9K2M4R6B8C"


@dataclass(frozen=True)
class Course:
    """How an hour went for one destination: behind by so many seconds at most, from a minute to another (of
    the hour); 60: until now. At all times it is behind by `usual`."""

    usual: float = 1.0
    away: tuple[float, float] | None = None


def flow(second: float) -> float:
    """Events received a second: a working day's, with a burst in it."""
    wave = 40 + 18 * math.sin(second / 700) + 6 * math.sin(second / 90) + 3 * math.sin(second / 13)
    return wave + (130 * math.exp(-(((second - 1500) / 80) ** 2)))


TOTALS = list(accumulate((flow(10.0 * n) * 10 for n in range(400)), initial=2_410_000.0))


def received(second: float) -> int:
    """Events received up to a second of the hour."""
    whole, part = divmod(max(0.0, second), 10.0)
    return int(TOTALS[int(whole)] + part / 10 * (TOTALS[int(whole) + 1] - TOTALS[int(whole)]))


def lag_at(course: Course, second: float) -> float:
    """How far behind a destination is."""
    if course.away is not None:
        begin, end = (60 * minute for minute in course.away)
        if begin <= second <= end:
            return max(course.usual, second - begin)
        if end < second < end + 60:  # catching up
            return max(course.usual, (end - begin) * (1 - (second - end) / 60))
    return course.usual * (1 + 0.4 * math.sin(second / 37))


def books_at(course: Course, second: float, dead: int = 0) -> Books:
    """Its books then."""
    total = received(second)
    pending = total - received(max(0.0, second - lag_at(course, second))) + (1 if course.usual > 5 else 0)
    return Books(total, total - pending - dead, dead, pending)


def an_hour(
    last: Snapshot, courses: Mapping[str, Course], since: float = 0.0, journal: float = 0.0
) -> tuple[Snapshot, History]:
    """The snapshot with these courses behind it; since: the second of the hour in which the job began;
    journal: bytes a second by which it has grown in the end."""
    history = History(run, ManualClock())
    dead = {item.name: item.books.dead_lettered for item in last.destinations}

    def at(second: float) -> Snapshot:
        return replace(
            last,
            at=AT - 3600 + second,
            received=received(second),
            journal_bytes=int(max(0.0, last.journal_bytes - journal * (3600 - second))),
            destinations=[
                replace(
                    item,
                    books=books_at(courses[item.name], second, dead[item.name]),
                    lag=lag_at(courses[item.name], second),
                )
                if item.name in courses
                else item
                for item in last.destinations
            ],
            latest_gaps=[gap for gap in last.latest_gaps if gap.since <= AT - 3600 + second],
        )

    second = since
    while second <= 3600:
        history.add(at(second))
        second += EVERY
    return history.foretold(at(3600)), history


def usual(name: str, **changes: Any) -> DestinationSnapshot:
    """A destination with its target."""
    return destination(name, target=TARGETS.get(name, "https://audit.acme.example/events"), **changes)


NOTHING = Books(0, 0, 0, 0)
GAPS = [Gap(AT - 1130, AT - 1084, "the connection was reset; the other stream was away, too")]


def needing_you() -> tuple[Snapshot, History]:
    """Six destinations: Splunk's token was revoked eight minutes ago, Datadog was away half an hour ago."""
    circuit = CircuitStatus(True, AT - 480, AT + 21, REFUSED, needs_you=True)
    splunk = delivery(
        "splunk",
        circuit=circuit,
        last_error=REFUSED,
        last_error_at=AT - 9,
        attempts=4_912,
        retries=23,
        waiting=37,
        in_flight=0,
        dead_lettered={"too_large": 1},
        latest_dead_letters={"too_large": [(f"{ULID}0", AT - 2_600)]},
    )
    s3 = delivery(
        "s3",
        attempts=12,
        dead_lettered={"bad_created_at": 3},
        latest_dead_letters={"bad_created_at": [(f"{ULID}{n}", AT - 300 * n) for n in (1, 2, 3)]},
    )
    items = [
        usual("bigquery", delivery=delivery("bigquery", attempts=720)),
        usual("datadog", delivery=delivery("datadog", attempts=1_790, retries=9, unknown=500)),
        usual("files", delivery=delivery("files", attempts=12), max_age=300.0),
        usual("kafka", delivery=delivery("kafka", attempts=17_800)),
        usual("s3", delivery=s3, max_age=300.0, books=Books(10, 0, 3, 7)),
        usual("splunk", delivery=splunk, books=Books(10, 0, 1, 9)),
    ]
    last = run(
        *items,
        gaps=3,
        gap_seconds=71.0,
        latest_gaps=GAPS,
        connections=[
            replace(LIVE, live_since=AT - 1_084, reconnects=3, last_problem="the connection was reset"),
            replace(LIVE, live_since=AT - 1_081, last_heard_at=AT - 2.1),
        ],
        connections_wanted=2,
        started_at=AT - 190_000,
        journal_bytes=19_500_000,
        proof=ProofStatus("wh_7Q2", AT - 190_000, AT - 75, 0, 0, ("vc.issued",)),
    )
    courses = {
        "bigquery": Course(3.0),
        "datadog": Course(1.5, (26, 31)),
        "files": Course(180.0),
        "kafka": Course(0.2),
        "s3": Course(180.0),
        "splunk": Course(1.5, (52, 60)),
    }
    return an_hour(last, courses)


def well() -> tuple[Snapshot, History]:
    """Everything is."""
    last = run(usual("bigquery"), usual("kafka"), usual("splunk"), started_at=AT - 86_000)
    return an_hour(last, {"bigquery": Course(3.0), "kafka": Course(0.2), "splunk": Course(1.5)})


def just_started() -> tuple[Snapshot, History]:
    """Two minutes ago, after a gap; one destination has not been tried, one only at the start."""
    nothing = {"delivered": 0, "attempts": 0, "in_flight": 0}
    passed = [Finding("the topic and its settings", True)]
    last = run(
        usual("kafka", delivery=delivery("kafka", **nothing), preflight=passed, lag=0.0, books=NOTHING),
        usual("audit", delivery=delivery("audit", **nothing), lag=0.0, books=NOTHING),
        started_at=AT - 120,
        gaps=1,
        latest_gaps=[Gap(AT - 210, AT - 118, "nobody was running")],
    )
    return an_hour(last, {}, since=3480)


def empty() -> tuple[Snapshot, History]:
    """No destination at all."""
    return an_hour(run(started_at=AT - 4_000), {})


def full_journal() -> tuple[Snapshot, History]:
    """Kafka has been away for forty minutes, and the journal will not hold much more."""
    circuit = CircuitStatus(True, AT - 2_400, AT + 48, AWAY)
    kafka = delivery(
        "kafka", circuit=circuit, last_error=AWAY, last_error_at=AT - 12, waiting=64, in_flight=0
    )
    last = run(
        usual("kafka", delivery=kafka),
        usual("splunk"),
        journal_bytes=int(9.3 * 1024**3),
        started_at=AT - 86_000,
    )
    courses = {"kafka": Course(0.2, (20, 60)), "splunk": Course(1.5)}
    return an_hour(last, courses, journal=300_000.0)


def journal_is_full() -> tuple[Snapshot, History]:
    """It is full: the feed is not read."""
    snapshot, history = full_journal()
    paused = replace(LIVE, phase=Phase.PAUSED, last_event_at=AT - 60, last_heard_at=AT - 60)
    gap = Gap(AT - 60, None, "the journal is full")
    last = replace(
        snapshot,
        journal_bytes=snapshot.journal_max_bytes,
        connections=[paused],
        connections_wanted=1,
        gaps=1,
        gap_open=True,
        latest_gaps=[gap],
        full_at=None,
    )
    history.add(replace(last, at=AT + EVERY))
    return replace(last, at=AT + EVERY), history


def eight() -> tuple[Snapshot, History]:
    """Eight destinations, one with a very long name, and many gaps."""
    names = ["bigquery", "datadog", "files", "gcs", "kafka", "pubsub", "s3", LONG]
    gaps = [Gap(AT - 60 * n, AT - 60 * n + 20, "the connection was reset") for n in range(2, 52)]
    last = run(*map(usual, names), gaps=212, gap_seconds=4_240.0, latest_gaps=gaps, started_at=AT - 86_000)
    return an_hour(last, {name: Course(2.0, (3 * n, 3 * n + 6)) for n, name in enumerate(names, 1)})


SCENES = {
    each.__name__: each
    for each in (needing_you, well, just_started, empty, full_journal, journal_is_full, eight)
}
