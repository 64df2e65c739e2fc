"""Attempts of a worker process, which outlast bundles: a later one finds them again; the time of a drain."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from transforms.clock import Clock
from transforms.event import Batch
from transforms.write.contract import Destination, Outcome
from transforms.write.delivery.refusals import DeadLetterLimit
from transforms.write.delivery.told import Told
from transforms.write.delivery.writer_threads import WriterThreads
from transforms.write.keyed.known import KnownKeys

# The part of a wait that is kept for one last try, whatever back-off says: a destination that came back
# meanwhile takes everything then.
LAST_TRY = 0.2


@dataclass(frozen=True)
class DrainTime:
    """What a destination is given at the end of the input, before what it has not taken becomes dead letters.

    idle: seconds without anything taken; as long as a lane's drain by default.
    at_most: seconds in all, from the first key on; unbounded where the runner waits for as long as it takes.
    """

    idle: float = 25.0
    at_most: float = math.inf


class Drain:
    """The keys' common time, which the first of them starts; safe for threads. A runner may end them one
    after another, and each waiting anew for a destination that is away would take a multiple. While it
    takes what it is given, each key is given its time.
    """

    def __init__(self, time: DrainTime, clock: Clock) -> None:
        self._time, self._clock = time, clock
        self._lock = threading.Lock()
        self._limit = self._until = -math.inf
        self._takes = True
        self._together: set[str] = set()  # keys that share the present time
        self._ended: set[str] = set()

    def begin(self, key: str, goes_on: bool = False) -> bool:
        """A key ends. True when it has before: the runner repeats the bundle, and time begins anew.

        goes_on: a bundle before has ended a part of it, whose time this is too; another process begins anew.
        """
        with self._lock:
            again = key in self._ended
            if again and goes_on:
                return False
            if not self._together or key in self._together:
                self._together.clear()
                self._takes = True
                self._limit = self._clock.monotonic() + self._time.at_most
            if self._takes:
                self._renew()
                # Behind a long backlog of another key, or of another destination, it is still tried once.
                self._until = max(self._until, self._clock.monotonic() + self.for_last_try)
            self._together.add(key)
            self._ended.add(key)
            return again

    def left(self) -> float:
        """Seconds that are left; none or less when the time is over."""
        with self._lock:
            return self._until - self._clock.monotonic()

    def progressed(self) -> None:
        """The destination has taken something, and is given its time anew."""
        with self._lock:
            self._takes = True
            self._renew()

    def gave_up(self) -> None:
        """A key has something left that the destination did not take in time."""
        with self._lock:
            self._takes = False

    @property
    def for_last_try(self) -> float:
        """Seconds that one last try is given."""
        return LAST_TRY * min(self._time.idle, self._time.at_most)

    def _renew(self) -> None:
        self._until = max(self._until, min(self._clock.monotonic() + self._time.idle, self._limit))


# Ended attempts that are remembered, in case the runner repeats the bundle that had seen their end; and how
# many seconds any is, as a bundle that has not seen it yet would make it once more.
REMEMBERED = 256
UNSEEN_SECONDS = 60.0
SHOW_EVERY = 1.0  # seconds between two looks at how a key stands, in metrics
# A key and the attempt's id in the key's state.
Token = tuple[str, Hashable]


class Attempt:
    """One try to deliver a batch. `done` is set when it has ended."""

    def __init__(self, batch: Batch, started: float) -> None:
        self.done = threading.Event()
        self.started = started  # monotonic seconds
        self.seconds = 0.0
        self.ended = 0.0  # monotonic seconds, once `done` is set
        self.batch: Batch | None = batch  # until it has ended
        self.events = len(batch.events)
        self.of = what_is_left(batch)
        self.memo = batch.memo
        self.place = ""
        self._outcome: Outcome | None = None
        self._error: Exception | None = None

    @property
    def came_to_nothing(self) -> bool:
        """It has ended, and its whole batch is left for later."""
        if not self.done.is_set():
            return False
        return self._error is not None or (
            self._outcome is not None and len(self._outcome.later) == self.events
        )

    def outcome(self) -> Outcome | None:
        """What the writer said. Raises what it raised, if that was no connection error or time-out."""
        if self._error is not None:
            raise self._error
        return self._outcome

    def end(
        self, outcome: Outcome | None, seconds: float, ended: float, error: Exception | None = None
    ) -> None:
        """Called by the thread that made the attempt."""
        self.ended = ended
        if self.batch is not None:
            self.memo, self.place, self.batch = self.batch.memo, self.batch.place, None
        self._outcome, self.seconds, self._error = outcome, seconds, error
        self.done.set()


def what_is_left(batch: Batch) -> int:
    """Tells apart what is left of one batch after its first attempt; of that its id says what it is."""
    return hash(tuple([event.id for event in batch.events])) if batch.attempts > 1 else 0


class Attempts:
    """All attempts of one destination in this process, at most `concurrency` at a time; safe for threads.

    A token names one attempt of one batch. Asking for it again gives the same attempt, so that a bundle
    which the runner repeats does not send what it has sent.
    """

    def __init__(
        self,
        destination: Destination,
        name: str,
        clock: Clock,
        dead_letter_limit: int | None = None,
        drain: DrainTime = DrainTime(),
    ) -> None:
        self._destination, self._name, self._clock = destination, name, clock
        self.limit = DeadLetterLimit(dead_letter_limit)
        self.told = Told(name)
        self.drain = Drain(drain, clock)
        self.known_keys = KnownKeys()
        self._shown: dict[str, tuple[Mapping[str, bool], float]] = {}  # what of each key, and when
        self._lock = threading.Lock()
        self._known: OrderedDict[Token, Attempt] = OrderedDict()
        self._queue: deque[Attempt] = deque()
        self._by_thread: dict[int, Attempt] = {}
        self._threads = self._new_threads()

    def shows(self, key: str, standing: Mapping[str, bool], now: float) -> bool:
        """Whether it is time to show again how a key stands, or that changed; `now` in monotonic seconds."""
        with self._lock:
            before, at = self._shown.get(key, ({}, 0.0))
            if before == standing and now - at < SHOW_EVERY:
                return False
            self._shown[key] = standing, now
            return True

    def find(self, token: Token) -> Attempt | None:
        """The attempt of this name, when this process made it."""
        with self._lock:
            return self._known.get(token)

    def forget(self, token: Token) -> None:
        """Make it anew when it is asked for again."""
        with self._lock:
            self._known.pop(token, None)

    def forget_failed(self, key: str) -> None:
        """Make anew, when they are asked for again, those of a key that came to nothing."""
        with self._lock:
            for token in [token for token, attempt in self._known.items() if attempt.came_to_nothing]:
                if token[0] == key:
                    del self._known[token]

    def start(self, token: Token, batch: Batch) -> Attempt:
        """The attempt of this name; it is made now unless it was before."""
        with self._lock:
            attempt = self._known.get(token)
            # An attempt before it that was forgotten may have left other events this time.
            if attempt is not None and attempt.of == what_is_left(batch):
                return attempt
            attempt = self._known[token] = Attempt(batch, self._clock.monotonic())
            self._queue.append(attempt)
            while len(self._known) > REMEMBERED and self._is_over(next(iter(self._known.values()))):
                self._known.popitem(last=False)
            threads = self._threads
        threads.ring()
        return attempt

    def _is_over(self, attempt: Attempt) -> bool:
        return attempt.done.is_set() and self._clock.monotonic() - attempt.ended >= UNSEEN_SECONDS

    def close(self, timeout: float) -> bool:
        """End the threads and their writers within about `timeout` seconds; True when all have ended."""
        return self._threads.close(timeout)

    def _new_threads(self) -> WriterThreads:
        return WriterThreads(
            self._destination, self._name, self._clock, take=self._take, done=self._done, failed=self._failed
        )

    def _take(self) -> tuple[Batch | None, float | None]:
        with self._lock:
            if not self._queue:
                return None, None
            attempt = self._queue.popleft()
            self._by_thread[threading.get_ident()] = attempt
            return attempt.batch, None

    def _done(self, batch: Batch, outcome: Outcome | None, seconds: float) -> None:
        with self._lock:
            attempt = self._by_thread.pop(threading.get_ident())
        attempt.end(outcome, seconds, self._clock.monotonic())

    def _failed(self, error: Exception) -> None:
        """A writer has a bug, or cannot be opened for one, and its thread is gone: new ones take over."""
        with self._lock:
            attempt = self._by_thread.pop(threading.get_ident())
            ended, self._threads = self._threads, self._new_threads()
            threads, more = self._threads, bool(self._queue)
        ended.stop()
        attempt.end(None, 0.0, self._clock.monotonic(), error)
        if more:
            threads.ring()
