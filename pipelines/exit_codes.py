"""What a program's exit code says to whoever started it."""

from __future__ import annotations

import sys
from collections.abc import Iterable

DRAINED = 0  # everything taken was delivered or is kept safely for the next start; --validate_only: passed
FAILED = 1  # a new start may do: what passes by itself, and a damaged journal, which it repairs
BAD_PARAMETERS = 2  # what was given cannot be run: another --state_dir, key or setting is needed
PREFLIGHT_FAILED = 3  # or it could not tell; with --preflight=strict and --validate_only


def refuse(lines: Iterable[str], code: int = BAD_PARAMETERS) -> int:
    """Say what is wrong with what was given, a line each; returns `code`."""
    for line in lines:
        print(line, file=sys.stderr)
    return code
