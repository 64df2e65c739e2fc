"""Imports Beam without Arrow, which it takes along when it is there and which this job never asks it for.

It is a tenth of what the job may have in memory (28 of 300 MB). Afterwards it can be imported as ever, for
instance by a destination of somebody's own. Import this before anything that imports Beam.
"""

from __future__ import annotations

import sys

ARROW = "pyarrow"

_hidden = ARROW not in sys.modules
if _hidden:
    sys.modules[ARROW] = None  # type: ignore[assignment]  # an import of it fails, which Beam expects
try:
    import apache_beam  # noqa: F401
finally:
    if _hidden:
        del sys.modules[ARROW]
