"""What was stored, taken apart without the code that stored it."""

from __future__ import annotations

import re

ID = re.compile(rb'"id"\s*:\s*"([^"\\]+)"')


def id_in(raw: bytes) -> str:
    """The id of an event of the suite, which stands first in its JSON and has nothing escaped in it."""
    found = ID.search(raw)
    assert found is not None, raw[:100]
    return found[1].decode()


def same_line(sent: bytes, stored: bytes) -> bool:
    """A line end within an event, which can only stand between its tokens, is stored as a space."""
    return stored == sent.replace(b"\n", b" ").replace(b"\r", b" ")


def ndjson(content: bytes) -> list[tuple[str, bytes]]:
    """Id and exact bytes of each line; the last one ends like all others."""
    *lines, rest = content.split(b"\n")
    assert rest == b"", "the last line has no end"
    return [(id_in(line), line) for line in lines]
