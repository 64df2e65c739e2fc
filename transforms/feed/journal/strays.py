"""The feed's own dead letters, kept in the journal until a lane has written them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.journal.database import Database

AT_ONCE = 100

_encode = msgspec.msgpack.Encoder().encode
decode_stray = msgspec.msgpack.Decoder(DeadLetter).decode


class Strays:
    """Numbered dead letters without an event's offset. The journal's lock guards all calls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting = self._count()

    def added(self, number: int) -> None:
        """So many were committed with `insert_strays`."""
        self._waiting += number

    def oldest(self) -> list[tuple[int, DeadLetter]]:
        """The first hundred; asking costs nothing while there are none."""
        if not self._waiting:
            return []
        rows = self._database.rows("SELECT number, body FROM strays ORDER BY number LIMIT ?", AT_ONCE)
        return [(int(str(number)), decode_stray(body)) for number, body in rows if isinstance(body, bytes)]

    def drop(self, up_to: int) -> None:
        """Forget those up to a number: they are written."""
        self._database.write(lambda db: db.execute("DELETE FROM strays WHERE number <= ?", (up_to,)))
        self._waiting = self._count()

    def _count(self) -> int:
        return int(str(self._database.rows("SELECT count(*) FROM strays")[0][0]))


def insert_strays(connection: sqlite3.Connection, strays: Sequence[DeadLetter]) -> None:
    """Keep dead letters, inside the caller's transaction."""
    connection.executemany("INSERT INTO strays (body) VALUES (?)", [(_encode(stray),) for stray in strays])


def id_conflict(event: Event, now: float) -> DeadLetter:
    """An event whose id came before with other bytes."""
    return DeadLetter(
        stage="feed",
        destination="",
        cause="id_conflict: this id came before with other bytes; the first ones were delivered",
        raw=event.raw,
        event_id=event.id,
        at=now,
    )
