"""The feed's dead letters: numbered, and in the journal until they are written."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from transforms.dead_letter import DeadLetter
from transforms.feed.journal.database import Database, number_noted, put_note
from transforms.feed.journal.schema import BadChecksum, has_signature, sign_body, signed_body

log = logging.getLogger("grantex.journal")
AT_ONCE = 100
BYTES_AT_ONCE = 8 * 1024 * 1024  # read back at once, at least one letter
encode_letter = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DeadLetter).decode
LOST_LETTER = DeadLetter(
    "feed", "", "journal_damaged: a dead letter of the feed was lost with a damaged journal", b""
)


class FeedLetters:
    """Dead letters without an event's offset, in table `strays`. The journal's lock guards all calls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin = number_noted(database, "letters")
        self._end = number_noted(database, "letters_end")
        self.bytes = int(float(str(database.rows("SELECT total(length(body)) FROM strays")[0][0])))  # kept

    def insert(self, connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> int:
        """Keep dead letters, inside the caller's transaction; how many bytes they take, for `inserted`."""
        bodies = [(n, sign_body(encode_letter(letter), n)) for n, letter in enumerate(letters, self._end + 1)]
        if bodies:
            connection.executemany("INSERT INTO strays VALUES (?, ?)", bodies)
            put_note(connection, "letters_end", bodies[-1][0])
        return sum([len(body) for _, body in bodies])

    def inserted(self, number: int, size: int) -> None:
        """So many were committed, with what `insert` returned."""
        self._end += number
        self.bytes += size

    def keep(
        self, letters: Sequence[DeadLetter], also: Callable[[sqlite3.Connection], object] = lambda _: None
    ) -> None:
        """Keep dead letters in a transaction of their own, in which `also` is written too."""
        size = 0

        def write(connection: sqlite3.Connection) -> None:
            nonlocal size
            size = self.insert(connection, letters)
            also(connection)

        self._database.write(write)
        self.inserted(len(letters), size)

    def oldest(self) -> list[tuple[int, DeadLetter]]:
        """The first hundred, and at most some megabytes of them; asking costs nothing while there are none.

        In the place of one that was altered stands `LOST_LETTER`.
        """
        if self._begin == self._end:
            return []
        found: list[tuple[int, DeadLetter]] = []
        size = 0
        query = "SELECT number, length(body) FROM strays WHERE number > ? ORDER BY number LIMIT ?"
        for number, length in self._database.rows(query, self._begin, AT_ONCE):
            size += int(str(length))
            if found and size > BYTES_AT_ONCE:
                break
            found.append((int(str(number)), self._read(int(str(number)))))
        return found

    def _read(self, number: int) -> DeadLetter:
        rows = self._database.rows("SELECT CAST(body AS BLOB) FROM strays WHERE number = ?", number)
        try:
            assert rows
            assert isinstance(rows[0][0], bytes)
            return decode_letter(number, rows[0][0])
        except (AssertionError, BadChecksum, msgspec.MsgspecError):
            log.error("dead letter %d of the feed was damaged in the journal and is lost", number)
            return LOST_LETTER

    def drop(self, up_to: int) -> None:
        """Forget those up to a number: they are written."""
        size = 0

        def write(connection: sqlite3.Connection) -> None:
            nonlocal size
            query = "SELECT total(length(body)) FROM strays WHERE number <= ?"
            size = int(connection.execute(query, (up_to,)).fetchone()[0])
            connection.execute("DELETE FROM strays WHERE number <= ?", (up_to,))
            put_note(connection, "letters", min(up_to, self._end))

        if up_to > self._begin:
            self._database.write(write)
            self._begin = min(up_to, self._end)
            self.bytes -= size


def decode_letter(number: int, stored: bytes) -> DeadLetter:
    """The letter in a row's body. Raises BadChecksum, msgspec.MsgspecError (schema 1 signed nothing)."""
    return _decode(signed_body(stored, number) if has_signature(stored) else stored)
