"""Where pipelines on Prism leave what came through, in the process of the test: its workers are in there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import apache_beam as beam

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk

ids: list[str] = []
arrivals: list[float] = []  # of each chunk, epoch seconds
letters: list[DeadLetter] = []
gate = threading.Event()  # closed, it holds up every chunk in its bundle
gate.set()


class CollectChunks(beam.DoFn):
    """Passes nothing on."""

    def process(self, element: Chunk) -> Iterator[None]:
        gate.wait()
        ids.extend(event.id for event in element.events)
        arrivals.append(time.time())
        return iter(())


class CollectLetters(beam.DoFn):
    """Passes nothing on."""

    def process(self, element: DeadLetter) -> Iterator[None]:
        letters.append(element)
        return iter(())


def wait_for(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """Wait until `condition` holds. Raises AssertionError."""
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.01)
