"""A bitmap that says of most new ids, in one look, that they are new."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint64]

BITS = 26  # 8 MiB; with the four million ids of a full set 6 % of new ones need a closer look
_SHIFT = np.uint64(64 - BITS)
_SEVEN = np.uint64(7)
_THREE = np.uint64(3)


class IdFilter:
    """Marks fingerprints by their leading bits. Marks are never taken away one by one."""

    def __init__(self) -> None:
        self._bits = np.zeros(2**BITS // 8, np.uint8)  # the system gives the memory as it is used
        self.marked = 0

    def mark(self, keys: Array) -> None:
        """Remember these fingerprints."""
        places = keys >> _SHIFT
        np.bitwise_or.at(self._bits, places >> _THREE, np.left_shift(1, places & _SEVEN).astype(np.uint8))
        self.marked += len(keys)

    def may_hold(self, keys: Array) -> Array:
        """Those of the fingerprints that may have been marked; one that was is never left out."""
        places = keys >> _SHIFT
        marks = self._bits[places >> _THREE] >> (places & _SEVEN).astype(np.uint8)
        found: Array = keys[marks & 1 == 1]
        return found
