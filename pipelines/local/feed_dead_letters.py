"""The feed's own dead letters (gaps, frames that are no events): written in a thread of their own, so that no
destination waits for them, nor they for one."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter, Tally
from transforms.feed.journal import Journal
from transforms.reminder import Reminder
from transforms.retry import Backoff

log = logging.getLogger("grantex.run")

LOOK_EVERY = 0.5  # seconds between looks at whether there are any
AGAIN = Backoff(base=1.0, cap=30.0)


class FeedDeadLetters:
    """Takes them from the journal once each is safe; what cannot be written stays there, tried again."""

    def __init__(
        self,
        journal: Journal,
        write: Callable[[DeadLetter], None],
        clock: Clock,
        uniform: Callable[[float, float], float] = random.uniform,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        """write: returns when the letter is safe, or raises DeadLetterError. on_broken: called when the
        journal turns out to be damaged, which only the next start repairs."""
        self.failure = ""  # why they cannot be written, "" while they can
        self.written = Tally()  # since the start
        self._journal, self._write, self._clock, self._uniform = journal, write, clock, uniform
        self._on_broken = on_broken
        self._stop = threading.Event()
        self._trouble = Reminder()
        self._thread = threading.Thread(target=self._run, name="feed-letters", daemon=True)

    def start(self) -> None:
        """Write them as they come; returns at once."""
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """The feed is closed: write what is left, once. False when some stay in the journal."""
        self._stop.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self.failure

    def _run(self) -> None:
        failures = 0
        last = False
        while not last:
            last = self._stop.is_set()
            failures = 0 if self._write_all() else failures + 1
            if not last:
                wait = AGAIN.seconds(failures, self._uniform) if failures else LOOK_EVERY
                self._clock.wait(self._stop, wait)

    def _write_all(self) -> bool:
        try:
            while letters := self._journal.dead_letters():
                for _, letter in letters:
                    self._write(letter)
                    self.written.add(letter.cause, letter.event_id, letter.at or self._clock.now())
                self._journal.drop_dead_letters(letters[-1][0])
        except Exception as error:  # noqa: BLE001 - whatever it was, the destinations go on
            why = str(error) or type(error).__name__
            if self._trouble.is_due(why, self._clock.monotonic()):
                log.error("the feed's dead letters are kept in the journal and tried again: %s", why)
            self.failure = why
            if self._journal.is_suspect:
                self._on_broken()
            return False
        if self.failure:
            log.info("the feed's dead letters are written again")
            self._trouble.over()
        self.failure = ""
        return True
