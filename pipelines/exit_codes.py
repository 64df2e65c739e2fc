"""What a program's exit code says to whoever started it."""

from __future__ import annotations

DRAINED = 0  # everything taken was delivered or is kept safely for the next start
FAILED = 1
BAD_PARAMETERS = 2  # nothing was connected to
PREFLIGHT_FAILED = 3
