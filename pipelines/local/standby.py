"""A standby: hears the feed while another process has the state directory, and takes over when that one ends.

One mechanism for a restart, an upgrade and kill -9: the directory's lock falls free however its holder ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.local.snapshot import Snapshot, StandingBy
from pipelines.local.standby_ring import StandbyRing
from transforms.clock import Clock
from transforms.feed.journal import DirectoryInUse, Journal, JournalError, JournalUnavailable, NewerSchema
from transforms.feed.journal.database import look_beside
from transforms.feed.journal.schema import VERSION
from transforms.feed.journal.space import DirectoryLock
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.feed.watch import SPARE_SLOT, SpareSlot
from transforms.reminder import Reminder

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

log = logging.getLogger("grantex.standby")

TRY_EVERY = 0.05  # seconds between tries to take the directory: a failed one takes 0.02 ms of CPU
TRY_AGAIN = 1.0  # after one that found the directory free and could not use it
LOOK_EVERY = 5.0  # seconds between looks at whose journal it is, beside the process that has it


class Standby:
    """Made when the directory is in use; its `reader` goes on reading after `wait` has returned a journal."""

    def __init__(
        self,
        settings: Settings,
        feed: FeedSettings,
        clock: Clock,
        on_end: Callable[[], None],
    ) -> None:
        """on_end: as for FeedReader."""
        self.ring = StandbyRing(settings.standby_bytes, settings.horizon, clock)
        self.reader = FeedReader(
            feed,
            self.ring,
            connections=feed.connections(settings.feed_connections),
            clock=clock,
            spare=SpareSlot(settings.state_dir / SPARE_SLOT),
            on_end=on_end,
            standing_by=True,
        )
        self.why_not = ""  # why it could not take over now, "" while nothing is known against it
        self._settings = settings
        self._feed = feed
        self._clock = clock
        self._since = clock.now()
        self._trouble = Reminder()

    def wait(self, open_journal: Callable[[], Journal], stop: threading.Event) -> Journal | None:
        """The journal once the other process has left it; None when `stop` was set before.

        Raises JournalError when this process could never take over: the journal is of another feed or
        another account, or the directory may not be written.
        """
        log.info(
            "standing by: another process has %s; this one hears the feed and takes over when that one ends",
            self._settings.state_dir,
        )
        self.reader.start()
        look_at = self._clock.monotonic()
        wait = 0.0
        while not self._clock.wait(stop, wait):
            if self._clock.monotonic() >= look_at:
                look_at = self._clock.monotonic() + LOOK_EVERY
                self._look()
            wait = TRY_EVERY
            try:
                if not self.why_not:
                    return self._opened(open_journal)
            except DirectoryInUse:
                pass
            except (NewerSchema, JournalUnavailable) as error:
                # It keeps what it hears, and does not hold the directory meanwhile: a process that can use
                # it may be on its way.
                self._cannot(str(error))
                look_at = self._clock.monotonic() + TRY_AGAIN
        return None

    def _opened(self, open_journal: Callable[[], Journal]) -> Journal:
        DirectoryLock(self._settings.state_dir).release()  # a try that costs less than a whole opening
        journal = open_journal()
        try:
            if self.ring.account:
                journal.check_account(self.ring.account)
        except BaseException:
            journal.close()
            raise
        return journal

    def take_over(self, journal: Journal) -> None:
        """What was heard goes into the journal, and what is heard from now on, by the same streams.

        Raises JournalError when the journal is another account's.
        """
        self.ring.hand_over(journal)
        self.reader.take_over()

    def snapshot(self) -> Snapshot:
        """What page, metrics and terminal show of it."""
        return Snapshot(
            at=self._clock.now(),
            received=0,
            duplicates=0,
            feed_dead_letters=0,
            gaps=0,
            gap_open=False,
            connections=self.reader.statuses,
            journal_bytes=0,
            destinations=(),
            started_at=self._since,
            connections_wanted=self.reader.wanted,
            standing_by=StandingBy(
                events=self.ring.events,
                bytes=self.ring.bytes,
                max_bytes=self.ring.most_bytes,
                reaches_back_to=self.ring.reaches_back_to,
                why_not=self.why_not,
            ),
        )

    def _look(self) -> None:
        """Find out early what would keep it from taking over. Raises JournalError for what it never could."""
        found = look_beside(self._settings.state_dir / "journal.sqlite3")
        schema = found.get("schema", VERSION)
        if isinstance(schema, int) and schema > VERSION:
            self._cannot(
                f"a later version of this program writes the journal (schema {schema}, this one reads "
                f"{VERSION}): upgrade this process, too"
            )
            return
        for key, ours in (("feed", self._feed.root), ("account", self.ring.account)):
            if ours and found.get(key, ours) != ours:
                raise JournalError(
                    f"the process that this one would stand by for reads another {key} ({found[key]}, this "
                    f"one {ours}): both must be given the same"
                )
        self.why_not = ""

    def _cannot(self, why: str) -> None:
        self.why_not = why
        if self._trouble.is_due(why, self._clock.monotonic()):
            log.error("this standby could not take over now, and keeps what it hears: %s", why)
