"""Windows over arrival time: what a batch never mixes."""

from __future__ import annotations

import math
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import FixedWindows, GlobalWindow


class Window(beam.PTransform):  # type: ignore[type-arg]
    """Puts each element into the fixed window of `seconds` that its timestamp falls into.

    Behind ReadFromGrantex the timestamp is when the element arrived, so nothing is ever late; the
    `created_at` of an event is data. Raises ValueError unless `seconds` is above 0.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        if not 0 < seconds < math.inf:
            raise ValueError(f"a window lasts more than 0 seconds, not {seconds}")
        self._seconds = seconds

    def expand(self, pcoll: Any) -> Any:
        """Elements in, the same elements out, windowed."""
        return pcoll | "Fixed" >> beam.WindowInto(FixedWindows(self._seconds))

    def display_data(self) -> dict[str, Any]:
        """The window's length, for the graph's viewers."""
        return {"seconds": self._seconds}


def window_end(window: Any) -> float:
    """The end of a Beam window in seconds since the epoch; infinite for the global window."""
    return math.inf if isinstance(window, GlobalWindow) else float(window.end)
