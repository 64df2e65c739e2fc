"""All that can go wrong with Storage Write, at once and over four writers: each row once, none lost."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from pipelines.practice.bigquery import PracticeBigQuery
from tests.servers.tiers import first
from tests.transforms.write.bigquery.server import ids, reaching
from tests.transforms.write.encodings import event
from transforms.batch import BatchPolicy
from transforms.event import Chunk
from transforms.write.delivery.delivery import Delivery
from transforms.write.delivery.ledger import MemoryLedger

EVENTS = 5_000
PATIENCE = 60.0
FAULT_SECONDS = 0.02  # between two faults


@pytest.fixture
def server() -> Iterator[PracticeBigQuery]:
    """It says GOAWAY to each connection after 0.3 s and cuts it 50 ms later."""
    with PracticeBigQuery(connection_age=0.3) as running:
        yield running


def faults(server: PracticeBigQuery, dice: random.Random) -> Sequence[Callable[[], object]]:
    storage = server.storage

    def finalize_one() -> None:
        with server.tables.lock:
            if storage.streams:
                dice.choice(list(storage.streams.values())).finalized = True

    def away() -> None:
        server.down()
        time.sleep(0.05)
        server.up()

    return (
        lambda: storage.cut(taken=False),
        lambda: storage.cut(taken=True),
        lambda: storage.refuse(8, "quota", ends=True),
        lambda: storage.refuse(13, "internal"),
        finalize_one,
        away,
    )


@pytest.mark.parametrize("seed", first(1, [1, 2]))
def test_a_storm_loses_and_repeats_nothing(server: PracticeBigQuery, seed: int) -> None:
    dice = random.Random(seed)
    # One in a hundred has a time that no partition takes, and some rows are refused whatever they hold.
    times = ("2999-01-01T00:00:00Z", "2026-03-01T12:00:00Z")
    events = [event(number, times[number % 100 > 0]) for number in range(EVENTS)]
    bad = {events[number].id for number in dice.sample(range(EVENTS), 20)}
    server.refused_ids = dict.fromkeys(bad, "bad")
    server.storage.slow(0.03)
    over = threading.Event()

    def storm() -> None:
        every = faults(server, dice)
        while not over.wait(FAULT_SECONDS):
            dice.choice(every)()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        delivered, dead = deliver(server, [Chunk(events)], over)
    finally:
        over.set()
        thread.join()
    assert dead == Counter(bad)
    assert delivered == ids(server) == Counter(one.id for one in events if one.id not in bad)


def deliver(
    server: PracticeBigQuery, chunks: Sequence[Chunk], over: threading.Event
) -> tuple[Counter[str], Counter[str]]:
    """Ids that were delivered and ids that became dead letters. The storm ends after some seconds."""
    settings = reaching(server, policy=BatchPolicy(max_events=50, max_age=0.05))
    bell = threading.Event()
    delivery = Delivery(settings, MemoryLedger(), wake=bell.set, uniform=lambda low, high: min(high, 0.05))
    for chunk in chunks:
        delivery.add_chunk(chunk)
    delivery.flush()
    delivered, dead = Counter[str](), Counter[str]()
    started = time.monotonic()
    while not delivery.idle():
        waited = time.monotonic() - started
        assert waited < PATIENCE, delivery.status()
        if waited > 1.5:
            over.set()
        bell.clear()
        for result in delivery.tick():
            if hasattr(result, "event_ids"):
                delivered.update(result.event_ids)
            else:
                dead[result.event_id] += 1
        if not delivery.ready() and not delivery.idle():
            bell.wait(0.1)
    assert delivery.close(5.0)
    return delivered, dead
