"""Event ids as numbers: a ULID is 16 bytes, the first six of which are its time in milliseconds."""

from __future__ import annotations

import re

PREFIX = "evt_"
SIZE = 16  # bytes
_TIME = 6  # of them
# The service's own form, exactly: an id in any other would not come back as it was.
_ID = re.compile(rf"{PREFIX}([0-7][0-9A-HJKMNP-TV-Z]{{25}})", re.ASCII)
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # the digits of his base 32
TO_PYTHON = str.maketrans("ABCDEFGHJKMNPQRSTVWXYZ", "abcdefghijklmnopqrstuv")  # those of `int(text, 32)`


def pack(event_id: str) -> bytes | None:
    """The 16 bytes of an event's id ("evt_" and a ULID); None for an id of another form."""
    found = _ID.fullmatch(event_id)
    return None if found is None else int(found[1].translate(TO_PYTHON), 32).to_bytes(SIZE, "big")


def unpack(packed: bytes) -> str:
    """The id that `pack` was given."""
    value = int.from_bytes(packed, "big")
    return PREFIX + "".join([CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5)])


def seconds(packed: bytes) -> float:
    """When the id was made: epoch seconds, to the millisecond."""
    return int.from_bytes(packed[:_TIME], "big") / 1000
