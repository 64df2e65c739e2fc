"""Methods of Beam's own that are another in this process, in versions in which their place was looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apache_beam

KNOWN = ("2.77.",)


def wrap(owner: type, name: str, wrapper: Callable[[Any], Any]) -> bool:
    """Put what `wrapper` makes of a method in its place, once; False in a version where that is not known.

    wrapper: its result has the method as `__wrapped__` (functools.wraps).
    """
    if not apache_beam.__version__.startswith(KNOWN):
        return False
    method = getattr(owner, name)
    if not hasattr(method, "__wrapped__"):
        setattr(owner, name, wrapper(method))
    return True
