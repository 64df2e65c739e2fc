"""Functions of Beam's own that are another in this process, in versions in which each was looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apache_beam

KNOWN = ("2.77.",)


def wrap(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> bool:
    """Put what `wrapper` makes of a function in its place, once; False in a version where that is not known.

    owner: a class, or a module. wrapper: its result has the function as `__wrapped__` (functools.wraps).
    """
    if not apache_beam.__version__.startswith(KNOWN):
        return False
    found = getattr(owner, name)
    if not hasattr(found, "__wrapped__"):
        setattr(owner, name, wrapper(found))
    return True
