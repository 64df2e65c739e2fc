"""Forgetting: events that every destination has, ids that are old enough; and giving their disk back."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from transforms.clock import Clock
from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.database import Database, is_full
from transforms.feed.journal.seen_ids import SeenIds

log = logging.getLogger("grantex.journal")

EXPIRE_EVERY = 30.0  # seconds
SPARE_PAGES = 2_048  # 8 MiB of the file kept for the next events rather than given back to the disk
VACUUM_PAGES = 512  # given back in one transaction: moving pages makes the log grow by as much


class Trimmer:
    """Takes the database's lock for one short transaction at a time, however big the backlog was."""

    def __init__(self, database: Database, chunks: ChunkStore, seen: SeenIds, clock: Clock) -> None:
        self._database = database
        self._chunks = chunks
        self._seen = seen
        self._clock = clock
        self._expired = clock.monotonic()
        self._ids_from = 0

    def trim(self, lowest: Callable[[], int]) -> None:
        """Forget what lies below the offset that `lowest` gives.

        Does nothing on a disk too full even for that; the events stay until the next call.
        """
        try:
            while self._delete_some(lowest):
                pass
            self._forget_ids()
            while self._give_back_some():
                pass
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            log.warning("the journal could not be trimmed: %s", error)

    def _delete_some(self, lowest: Callable[[], int]) -> int:
        with self._database.lock:
            return self._chunks.trim(lowest())

    def _forget_ids(self) -> None:
        now = self._clock.monotonic()
        if now - self._expired < EXPIRE_EVERY:
            return
        with self._database.lock:
            self._expired = now
            forgotten = self._seen.expire(now, self._chunks.trimmed)
            if forgotten > self._ids_from:
                self._database.write(lambda db: db.execute("DELETE FROM ids WHERE first < ?", (forgotten,)))
                self._ids_from = forgotten

    def _give_back_some(self) -> bool:
        spare = self._database.free_pages() - SPARE_PAGES
        if spare <= 0:
            return False
        self._database.give_back(min(spare, VACUUM_PAGES))
        return spare > VACUUM_PAGES
