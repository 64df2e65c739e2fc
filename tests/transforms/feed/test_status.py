"""What a cluster counts of the feed: each under a name of the table, which docs/metrics.md is made from."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from transforms.event import Chunk, Event
from transforms.feed import status
from transforms.feed.intake import Gap, as_dead_letter
from transforms.feed.status import ConnectionStatus, FeedCounters, Phase
from transforms.parse import parse_frame


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """By name; a gauge's value counts as it is."""
    counted: Counter[str] = Counter()

    def add(_: str, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            inc=lambda n=1: counted.update({name: n}), set=lambda n: counted.update({name: n})
        )

    monkeypatch.setattr(status, "Metrics", SimpleNamespace(counter=add, gauge=add))
    return counted


def test_events_are_counted_by_type_gaps_by_their_length_and_letters_by_their_cause(
    counts: Counter[str],
) -> None:
    counters = FeedCounters()
    counters.declare()
    assert counts == dict.fromkeys(status.COUNTERS, 0)
    types = ["grant.created", "grant.created", "sso.connection.created", "a.new.one"]
    counters.count(Chunk([Event(str(n), each, "", b"{}") for n, each in enumerate(types)]))
    counters.count(as_dead_letter(Gap(1000.0, 1002.5, "the connection was reset")))
    counters.count(parse_frame(b"no JSON", 1.0))  # type: ignore[arg-type]
    counters.elsewhere()
    assert counts == {
        "feed_events_received": 4,
        "feed_events_dead_lettered": 1,
        "feed_gaps": 1,
        "feed_gap_milliseconds": 2500,
        "feed_ranges_elsewhere": 1,
        "feed_received_grant_created": 2,
        "feed_received_sso_connection_created": 1,
        "feed_received_other": 1,
        "feed_dead_letters_feed_gap": 1,
        "feed_dead_letters_not_json": 1,
    }


def test_a_connection_shows_what_it_has_and_no_time_for_what_never_was(counts: Counter[str]) -> None:
    counters = FeedCounters()
    counters.standing(1, ConnectionStatus(Phase.LIVE, reconnects=2, last_heard_at=1000.5))
    assert counts == {
        "feed_connections_1": 1,
        "feed_reconnects_1": 2,
        "feed_last_heard_epoch_seconds_1": 1000,
    }
