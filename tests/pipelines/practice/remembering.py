"""A destination for tests of lanes: it remembers what it took, and can fail as a bug does, reject or hang."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from transforms.batch import BatchPolicy
from transforms.event import Batch
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination, Outcome, Writer

SMALL = BatchPolicy(max_events=10, max_bytes=100_000, max_age=0.05)


@dataclass
class Taken:
    """`failures`: how many more attempts raise. `rejects`: how the ids of rejected events begin, None for no
    event. `down`: nobody answers. `released`: clear it and attempts wait."""

    failures: int = 0
    rejects: str | None = None
    down: bool = False
    ids: list[str] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)  # every attempt
    released: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.released.set()

    def take(self, batch: Batch) -> Outcome | None:
        with self.changed:
            self.batches.append([event.id for event in batch.events])
            self.changed.notify_all()
        self.released.wait(20)
        with self.changed:
            if self.down:
                raise ConnectionRefusedError("nobody is there")
            if self.failures > 0:
                self.failures -= 1
                raise ZeroDivisionError("a bug in the writer")
            bad = {n for n, event in enumerate(batch.events) if self._rejects(event.id)}
            self.ids += [event.id for n, event in enumerate(batch.events) if n not in bad]
            self.changed.notify_all()
            return Outcome(rejected=dict.fromkeys(bad, "bad: it may not pass"))

    def _rejects(self, event_id: str) -> bool:
        return self.rejects is not None and event_id.startswith(self.rejects)

    def wait_for(self, count: int, timeout: float = 20.0) -> bool:
        """Wait until `count` events are taken."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.ids) >= count, timeout)

    def wait_for_attempts(self, count: int, timeout: float = 20.0) -> bool:
        """Wait until `count` attempts have begun."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.batches) >= count, timeout)


class RememberingWriter(Writer):
    def __init__(self, taken: Taken) -> None:
        self._shelf = taken

    def write(self, batch: Batch) -> Outcome | None:
        return self._shelf.take(batch)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Remembering(Destination):
    """Never pickled: a lane's graph holds only its name."""

    taken: Taken
    policy: BatchPolicy = SMALL
    asked: Asked = asked_for()
    name = "shelved"

    def open(self) -> Writer:
        return RememberingWriter(self.taken)


@dataclass(frozen=True)
class Other(Remembering):
    """Another one of the same kind."""

    name = "other"
