"""What the tests of the journal share: events, a journal in a directory, snapshots as kill -9 leaves them."""

from __future__ import annotations

import functools
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Event
from transforms.feed.journal import Cursor, Journal, space
from transforms.feed.journal.database import Database

FEED = "https://feed.test"
FILES = ("journal.sqlite3", "journal.sqlite3-wal")


def event(number: int, payload: bytes | int = b"") -> Event:
    """Event `number`: the same every time it is made with the same payload. A number of bytes stands for
    noise, which no packing makes smaller."""
    data = _noise(number, payload) if isinstance(payload, int) else payload
    raw = b'{"id":"evt_%08d","type":"t","data":"%s"}' % (number, data)
    return Event(f"evt_{number:08d}", "t", "2026-03-01T12:00:00Z", raw)


@functools.lru_cache(1 << 14)
def _noise(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def events(start: int, end: int, payload: bytes | int = b"") -> list[Event]:
    """The events `start..end`, without the last."""
    return [event(number, payload) for number in range(start, end)]


def number_of(taken: Event) -> int:
    """The number that `event` was given."""
    return int(taken.id.removeprefix("evt_"))


def open_journal(directory: Path, *, reserve: int = 1, **more: Any) -> Journal:
    """A journal with a manual clock unless `clock` is given. Where a directory lies in memory, to fill 16 MiB
    of reserve would take longer than all the rest: it has so many bytes."""
    with mock.patch.object(space, "RESERVE_BYTES", reserve):
        return Journal(directory, **{"feed_url": FEED, "clock": ManualClock(), **more})


def read_all(journal: Journal, position: int = 0, most: int = 1000) -> list[Event]:
    """Everything from `position` on, read as a lane reads it."""
    found: list[Event] = []
    while position < journal.end:
        chunks = journal.read(position, most)
        assert chunks, "nobody may be left waiting for an offset below the end"
        for chunk in chunks:
            found.extend(chunk.events)
            position = chunk.end
    return found


def unsealed(cursor: Cursor, journal: Journal) -> Iterator[tuple[int, Event]]:
    """(offset, event) of what a restarted lane puts into new batches, after `recover`."""
    position = cursor.position
    while position < journal.end:
        for chunk in journal.read(position, 700):
            sealed = cursor.is_sealed(chunk.first, chunk.end)
            for offset, taken in enumerate(chunk.events, chunk.first):
                if offset not in sealed:
                    yield offset, taken
            position = chunk.end


def copy_files(source: Path, target: Path) -> Path:
    """The journal's files as kill -9 would leave them now."""
    target.mkdir()
    for name in FILES:
        shutil.copyfile(source / name, target / name)
    return target


def recording_database(committed: Callable[[], None]) -> type[Database]:
    """A database that calls `committed` after each committed transaction."""

    class Recording(Database):
        @contextmanager
        def transaction(self) -> Iterator[sqlite3.Connection]:
            with super().transaction() as connection:
                yield connection
            committed()

    return Recording


def runs_of(offsets: Sequence[int]) -> set[int]:
    """The offsets as a set, which must hold each once."""
    as_set = set(offsets)
    assert len(as_set) == len(offsets), "an offset came twice"
    return as_set
