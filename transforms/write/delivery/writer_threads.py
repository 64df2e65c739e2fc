"""The threads that attempt batches, each with a writer of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from transforms.clock import Clock
from transforms.event import Batch
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.failure import as_outcome
from transforms.write.pseudonyms import open_writer

log = logging.getLogger("grantex.write")


class _Slot:
    """One thread's bell and writer; the writer is closed once, whoever does it."""

    def __init__(self) -> None:
        self.bell = threading.Event()
        self.thread: threading.Thread | None = None
        self.writer: Writer | None = None
        self._closing = threading.Lock()

    def close(self) -> None:
        with self._closing:
            writer, self.writer = self.writer, None
        if writer is not None:
            try:
                writer.close()
            except Exception:
                log.warning("a writer did not close cleanly; what it delivered stands", exc_info=True)


class WriterThreads:
    """Attempts what `take` gives and reports to `done`; anything but a transient error goes to `failed`.

    take: the next batch or None, and the monotonic time at which to ask for another one (None: when rung).
    done: called with the batch, its outcome and the attempt's seconds.
    All three are called from the threads and must be safe for that.
    """

    def __init__(
        self,
        destination: Destination,
        name: str,
        clock: Clock,
        *,
        take: Callable[[], tuple[Batch | None, float | None]],
        done: Callable[[Batch, Outcome | None, float], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._destination = destination
        self._name = name
        self._clock = clock
        self._take, self._done, self._failed = take, done, failed
        self._stopping = False
        self._slots: list[_Slot] = []
        self._resting: list[_Slot] = []  # those that wait, or have just found nothing to do
        self._lock = threading.Lock()  # around what rests
        self._starting = threading.Lock()  # two first rings must not start two sets

    def ring(self) -> None:
        """There may be something to do; the first ring starts the threads.

        It wakes one, and who finds something to do and leaves something wakes the next: waking all of 64 for
        one batch costs 2 ms.
        """
        with self._starting:
            if not self._slots and not self._stopping:
                self._start()
        with self._lock:
            slot = self._resting.pop() if self._resting else None
        if slot is not None:
            slot.bell.set()

    def stop(self) -> None:
        """Let every thread end after the attempt it is in."""
        self._stopping = True
        for slot in self._slots:
            slot.bell.set()

    def close(self, timeout: float) -> bool:
        """End the threads and close their writers within about `timeout` seconds; True when all ended.

        The writer of a thread that is still in an attempt is closed under it, which makes most of them
        give up; that call may hang as well, so it gets a thread of its own.
        """
        self.stop()
        # Real time: these are real threads, whatever clock the deliveries go by.
        give_up = time.monotonic() + timeout
        hung = [slot for slot in self._slots if not _ended(slot.thread, give_up - timeout * 0.2)]
        for slot in hung:
            closer = threading.Thread(target=slot.close, name=f"closer-{self._name}", daemon=True)
            closer.start()
        return all(_ended(slot.thread, give_up) for slot in hung)

    def _start(self) -> None:
        self._slots = [_Slot() for _ in range(self._destination.concurrency)]
        for number, slot in enumerate(self._slots):
            name = f"writer-{self._name}-{number}"
            slot.thread = threading.Thread(target=self._run, args=(slot,), name=name, daemon=True)
            slot.thread.start()

    def _run(self, slot: _Slot) -> None:
        try:
            self._work(slot)
        except Exception as error:  # noqa: BLE001 - handed to the lane, which restarts
            self._failed(error)
        finally:
            slot.close()

    def _work(self, slot: _Slot) -> None:
        while not self._stopping:
            slot.bell.clear()
            with self._lock:  # before looking, so that no ring in between is missed
                self._resting.append(slot)
            batch, due = self._take()
            if batch is None and not self._stopping:
                timeout = None if due is None else max(0.0, due - self._clock.monotonic())
                self._clock.wait(slot.bell, timeout)
            with self._lock:
                if slot in self._resting:
                    self._resting.remove(slot)
            if batch is None:
                continue
            if due is not None:
                self.ring()
            started = self._clock.monotonic()
            outcome = self._attempt(slot, batch)
            self._done(batch, outcome, self._clock.monotonic() - started)

    def _attempt(self, slot: _Slot, batch: Batch) -> Outcome | None:
        try:
            writer = slot.writer
            if writer is None:
                writer = slot.writer = open_writer(self._destination)
            return writer.write(batch)
        except Exception as error:
            outcome = as_outcome(error, len(batch.events), self._name)
            if outcome is None:
                raise
            return outcome


def _ended(thread: threading.Thread | None, give_up: float) -> bool:
    if thread is None:
        return True
    thread.join(max(0.0, give_up - time.monotonic()))
    return not thread.is_alive()
