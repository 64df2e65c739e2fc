"""Does a measured value grow? A slope test that a few spikes, or one step, do not decide."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

HOUR = 3600.0
BLOCKS = 20  # of samples: neighbours resemble each other and are no evidence of their own
DOUBT = 0.01  # how seldom noise alone may be called growth
SHARE = 0.03  # of the value itself; what is less within the time looked at is called level


@dataclass(frozen=True)
class Trend:
    """level: the median. per_hour: the slope. doubt: how likely noise alone rises so steadily (0..1).
    rise: slope times the time looked at. grows: it rises steadily, and by more than may pass as level."""

    level: float
    per_hour: float
    doubt: float
    rise: float
    grows: bool


def trend(times: Sequence[float], values: Sequence[float], least: float) -> Trend:
    """Theil and Sen's slope and Mann and Kendall's test, both over the medians of twenty blocks.

    times: seconds, ascending. least: a smaller rise than this is called level, whatever the share.
    Raises ValueError for fewer samples than two a block.
    """
    if len(values) < 2 * BLOCKS:
        raise ValueError(f"{len(values)} samples are too few to tell a slope")
    edges = [round(number * len(values) / BLOCKS) for number in range(BLOCKS + 1)]
    blocks = [(statistics.median(times[a:b]), statistics.median(values[a:b])) for a, b in pairwise(edges)]
    pairs = list(combinations(blocks, 2))
    slope = statistics.median((w - v) / (u - t) for (t, v), (u, w) in pairs)
    steps = sum((w > v) - (w < v) for (_, v), (_, w) in pairs)
    deviation = math.sqrt(BLOCKS * (BLOCKS - 1) * (2 * BLOCKS + 5) / 18)
    doubt = 0.5 * math.erfc((steps - 1) / deviation / math.sqrt(2)) if steps > 0 else 1.0
    level = statistics.median(values)
    rise = slope * (times[-1] - times[0])
    return Trend(level, slope * HOUR, doubt, rise, doubt < DOUBT and rise > max(least, SHARE * level))
