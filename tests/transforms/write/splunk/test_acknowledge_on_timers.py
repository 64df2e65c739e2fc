"""Acknowledgement on a cluster: an attempt outlasts many bundles, and none of them waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pipelines.practice.splunk import PracticeSplunk
from tests.transforms.write.encodings import event
from tests.transforms.write.keyed.cluster import KEY, Cluster
from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.service import FOUR, PATIENCE
from transforms.secret import LiteralSecret
from transforms.write.splunk.destination import Splunk

SLOW = 20  # seconds that the indexers take


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Writers go by it, too."""
    clock = ManualClock()
    open_writer = Splunk.open
    monkeypatch.setattr(Splunk, "open", lambda self: open_writer(self, clock))
    return clock


@pytest.fixture
def server(clock: ManualClock) -> Iterator[PracticeSplunk]:
    with PracticeSplunk(ack_seconds=SLOW, monotonic=clock.monotonic) as running:
        yield running


@pytest.fixture
def cluster(server: PracticeSplunk, clock: ManualClock) -> Iterator[Cluster]:
    splunk = Splunk(server.url, LiteralSecret(server.token), acknowledge=True, policy=FOUR)
    cluster = Cluster(splunk, clock, lambda low, high: high)
    cluster.patience = 0.0  # of bundles
    yield cluster
    assert cluster.close()


def test_a_slow_acknowledgement_is_one_attempt_and_no_outage(
    server: PracticeSplunk, clock: ManualClock, cluster: Cluster
) -> None:
    """With attempts of 4 s it took four of them, and the circuit opened over a Splunk that was well."""
    began = clock.monotonic()
    cluster.arrive([event(number) for number in range(4)])
    cluster.settle()
    give_up = time.monotonic() + PATIENCE
    while not cluster.receipts:
        assert time.monotonic() < give_up
        running = cluster.attempts.find((KEY, cluster.key_state().running))
        assert running is not None
        running.done.wait(0.01)
        clock.advance(0.5)
        cluster.settle()
        assert not cluster.is_open()
    assert clock.monotonic() - began >= SLOW
    assert [receipt.attempts for receipt in cluster.receipts] == [1]
    assert sum(request.path.endswith("/event") for request in server.requests) == 1
    assert server.ids == [event(number).id for number in range(4)]
