"""What is left to read of one connection: the restriction of a feed that is read on workers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from apache_beam.coders import Coder

OPEN_END = 2**63 - 1  # the feed has no last offset
_VERSION = 1
_DRAINING = 1
_LAYOUT = struct.Struct(">BBIqqdd")  # version, flags, connection, start, stop, complete_until, sought_since


@dataclass(frozen=True)
class FeedRange:
    """Offsets [start, stop) of the ring that one process keeps for one connection.

    connection: its number, 0 and up.
    session: whose offsets they are, 16 bytes that name one ring in one process; none before the first.
    complete_until: epoch seconds; all that was published by then has been claimed, or is in a gap on record.
        The first session's birth at first, 0 before. Whatever came later is lost with the process, and a gap
        begins here.
    sought_since: epoch seconds since which the owner of `session` has been looked for; 0 with the owner.
    draining: the feed is not to be read any more, only what the ring holds.
    """

    connection: int
    session: bytes = b""
    start: int = 0
    stop: int = OPEN_END
    complete_until: float = 0.0
    sought_since: float = 0.0
    draining: bool = False

    @property
    def finished(self) -> bool:
        """Nothing is left of it."""
        return self.start >= self.stop

    def finish(self) -> FeedRange:
        """What is left when nothing will come any more."""
        return replace(self, start=self.stop)


class FeedRangeCoder(Coder):  # type: ignore[misc]
    """A version byte, a byte of flags, big-endian numbers, the session.

    Beam's default pickles class paths, which breaks updates of a running job.
    """

    def encode(self, value: FeedRange) -> bytes:
        flags = _DRAINING if value.draining else 0
        numbers = (value.connection, value.start, value.stop, value.complete_until, value.sought_since)
        return _LAYOUT.pack(_VERSION, flags, *numbers) + value.session

    def decode(self, encoded: bytes) -> FeedRange:
        """Raises ValueError when another version wrote it."""
        if encoded[:1] != bytes([_VERSION]):
            raise ValueError(
                f"a feed range of version {encoded[:1].hex() or 'nothing'}; this program reads {_VERSION}"
            )
        _, flags, connection, start, stop, complete, sought = _LAYOUT.unpack_from(encoded)
        session = encoded[_LAYOUT.size :]
        return FeedRange(connection, session, start, stop, complete, sought, bool(flags & _DRAINING))

    def is_deterministic(self) -> bool:
        return True
