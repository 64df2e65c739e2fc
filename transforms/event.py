"""What flows through the graph: Event, Chunk, Batch and Receipt."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from transforms.shared_events import SharedEvents, once_for_batch


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination took in one attempt; it is given out after the ledger has recorded it.

    at: when, in seconds since the epoch. place: where it lies there, as a person would look it up; "" when
    the destination tells none.
    """

    destination: str
    batch_id: str
    event_ids: Sequence[str]
    attempts: int
    at: float = 0.0
    place: str = ""


class EventIds(Sequence[str]):
    """The ids of some events of a batch, taken out when somebody asks: most receipts are only counted.

    Pickled it is a list.
    """

    __slots__ = ("_events", "_indexes")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, events: Sequence[Event], indexes: Sequence[int]) -> None:
        self._events, self._indexes = events, indexes

    def __len__(self) -> int:
        return len(self._indexes)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self._events[index].id for index in self._indexes[at]]
        return self._events[self._indexes[at]].id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[type[list[str]], tuple[list[str]]]:
        return list, (list(self),)


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One parsed Grantex event.

    `raw` is the exact JSON as received (UTF-8); the other fields are read from it and nothing is ever
    re-serialised. `type` and `created_at` are "" when the feed left them out. `created_at` is RFC 3339
    text as received, with or without milliseconds, and not validated: it is data, never a timestamp of
    the pipeline.
    """

    id: str
    type: str
    created_at: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events that travel through Beam as one element; event `i` has the journal offset `first + i`.

    An empty chunk is a tick: it carries no events and makes the stages behind it look at the clock. The
    chunk with `flush` asks them to send what they hold without waiting for it to be full or old. `shared` are
    its events in the hands of several destinations; None when nobody else has them.
    """

    events: Sequence[Event] = ()
    first: int = 0
    taken_at: float = 0.0  # seconds since the epoch, when the journal took it
    flush: bool = False
    shared: SharedEvents | None = field(default=None, repr=False, compare=False)

    @property
    def end(self) -> int:
        """The offset after the last event."""
        return self.first + len(self.events)


@dataclass(slots=True)
class Batch:
    """What one request carries. `id` is its identity over retries and restarts.

    `offsets[i]` is the journal offset of `events[i]`; it is empty for a sink that stands alone.
    `memo` is what a writer asked to remember about this batch before an attempt (`remember`).
    `place` is where what an attempt delivered lies, for a person to look it up: a writer that knows sets it
    before it returns.
    `taken_at` is when its oldest event was received (0.0: not known), `window_end` the end of the window
    that its events share; both in seconds since the epoch.
    """

    events: Sequence[Event]
    offsets: Sequence[int] = ()
    partition: str = ""
    id: str = ""
    seal: int = 0  # the ledger's number for this batch; 0 until it is sealed
    memo: bytes | None = None
    attempts: int = 0
    taken_at: float = 0.0
    window_end: float = math.inf
    place: str = ""
    on_remember: Callable[[Batch, bytes], None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            self.id = once_for_batch("id", self.events, _id_of)

    def remember(self, memo: bytes) -> None:
        """Keep `memo` with the batch: on one machine it is on disk when this returns."""
        self.memo = memo
        if self.on_remember is not None:
            self.on_remember(self, memo)


# Bytes: hashlib lets Python's lock go for more at once, and a lane gets it back late.
_HELD = 2047


def batch_id(event_ids: Iterable[str]) -> str:
    """The batch's identity: 32 hexadecimal digits from its sorted event ids, whatever their order."""
    lines = "\n".join([*sorted(event_ids), ""]).encode()
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(lines), _HELD):
        digest.update(lines[start : start + _HELD])
    return digest.hexdigest()


def _id_of(events: Sequence[Event]) -> str:
    return batch_id([event.id for event in events])
