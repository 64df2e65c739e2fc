"""Random lives of acknowledged writers: whatever breaks, what is called delivered survives every crash."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from pipelines.practice.splunk import PracticeSplunk, Stickiness
from tests.servers.tiers import first
from tests.transforms.write.encodings import event
from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Batch
from transforms.secret import LiteralSecret
from transforms.write.contract import Writer
from transforms.write.splunk.destination import Splunk

BATCHES = 6  # for each writer
WRITERS = 10  # four channels, so that two or three share one


class RingingClock(ManualClock):
    """Rings the event of whoever waits for a time that has come, and leaves it rung: time runs faster than
    any thread looks, and a wait that ends too early is one more thing that must do no harm."""

    def __init__(self) -> None:
        super().__init__()
        self._rung: list[tuple[float, threading.Event]] = []
        self._bells = threading.Lock()

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        with self._bells:
            for deadline, event in self._rung:
                if deadline <= self.monotonic():
                    event.set()

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        if timeout is None:
            return event.wait()
        waiter = (self.monotonic() + timeout, event)
        with self._bells:
            if timeout <= 0:
                return event.is_set()
            self._rung.append(waiter)
        event.wait()
        with self._bells:
            self._rung.remove(waiter)
            return self.monotonic() < waiter[0]


class Life:
    """Writers that each deliver their batches one after the other, as long as that takes."""

    def __init__(self, server: PracticeSplunk, clock: ManualClock) -> None:
        settings = Splunk(
            server.url,
            LiteralSecret(server.token),
            acknowledge=True,
            acknowledge_wait=6,
            acknowledge_timeout=20,
        )
        self.delivered: list[str] = []
        self.unknown = 0
        self.threads = [
            threading.Thread(target=self._deliver, args=(settings.open(clock), number))
            for number in range(WRITERS)
        ]

    def _deliver(self, writer: Writer, number: int) -> None:
        for index in range(BATCHES):
            first = 1000 * number + 10 * index
            batch = Batch([event(first + one) for one in range(3)])
            while (outcome := writer.write(batch)) is not None:
                assert list(outcome.later) == [0, 1, 2]
                self.unknown += 3 * outcome.unknown
            self.delivered += [one.id for one in batch.events]
        writer.close()


@pytest.mark.parametrize("stickiness", ["steady", "renewed", "none"])
@pytest.mark.parametrize("seed", first(1, range(3)))
def test_what_is_delivered_survives_every_crash(seed: int, stickiness: Stickiness) -> None:
    dice = random.Random(seed)
    clock = RingingClock()
    with PracticeSplunk(
        ack_seconds=2, indexers=2, stickiness=stickiness, monotonic=clock.monotonic
    ) as server:
        faults: list[Callable[[], None]] = [
            lambda: server.crash(dice.randrange(2)),
            lambda: server.crash(dice.randrange(2)),
            server.balancer.forget,
            lambda: server.reset(dice.choice(["before", "during", "after"]), path="/event"),
            lambda: server.reset(dice.choice(["before", "during", "after"]), path="/ack"),
            lambda: server.cut_answer(path=dice.choice(["/event", "/ack"])),
            lambda: server.garbage(path=dice.choice(["/event", "/ack"])),
            lambda: server.answer_code(dice.choice([8, 9, 11, 27]), path=dice.choice(["/event", "/ack"])),
        ]
        life = Life(server, clock)
        for thread in life.threads:
            thread.start()
        give_up = time.monotonic() + 60
        steps = 0
        while any(thread.is_alive() for thread in life.threads):
            steps += 1
            if steps < 150 and dice.random() < 0.2:
                dice.choice(faults)()
            clock.advance(dice.choice([0.1, 0.5, 1.0]))
            time.sleep(0.003)
            assert time.monotonic() < give_up
        assert len(life.delivered) == WRITERS * BATCHES * 3
        for indexer in range(2):
            server.crash(indexer)
        assert set(life.delivered) <= set(server.ids)
        assert len(server.ids) - len(set(server.ids)) <= life.unknown
