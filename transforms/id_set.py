"""Sets of event ids, 16 bytes each, for a million of them and more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms import ulid

# numpy pads and compares these with zeros, which is right among values of one length.
Keys = npt.NDArray[np.bytes_]
KEY = np.dtype(f"S{ulid.SIZE}")


def key_of(event_id: str) -> bytes:
    """The 16 bytes that stand for an id: its ULID, or a hash of an id that has another form."""
    return ulid.pack(event_id) or hashlib.blake2b(event_id.encode(), digest_size=ulid.SIZE).digest()


def keys_of(ids: Iterable[str]) -> Keys:
    """Their keys, in the same order."""
    return np.frombuffer(b"".join([key_of(each) for each in ids]), KEY)


class IdSet:
    """Ids that come in parts; repeats and order do not matter."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def add(self, ids: Iterable[str]) -> None:
        """Put ids in."""
        self._parts += b"".join([key_of(each) for each in ids])

    def keys(self) -> Keys:
        """Sorted, each once."""
        return np.unique(np.frombuffer(bytes(self._parts), KEY))


def among(keys: Keys, known: Keys) -> npt.NDArray[np.bool_]:
    """Of each of `keys` whether it is in `known`, which is sorted."""
    if not len(known):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[at] == keys
    return found


def as_bytes(key: Any) -> bytes:
    """A key as numpy gives it back, which is without the zeros at its end."""
    return bytes(key).ljust(ulid.SIZE, b"\0")
