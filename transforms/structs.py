"""Typed reading by msgspec where several threads do it.

What msgspec knows of a class's fields it makes up when the class is first read into. Two threads that are the
first at the same time end the process (SIGSEGV in `convert`, msgspec 0.22; seen when several writers looked
at a table at once).
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T", bound=type[msgspec.Struct])


def ready(struct: T) -> T:
    """Decorates a class that `msgspec.convert` or `decode(type=...)` reads into: it is made up at once, while
    its module is imported. A `Decoder` made at import does the same."""
    msgspec.json.Decoder(struct)
    return struct
