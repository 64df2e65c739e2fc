"""Events of one chunk in the hands of several destinations: what is made of them is made once for all.

A destination that makes the same of an event as others do says so (`Destination.form`); a batch knows of
which chunks its events are parts (`BatchEvents`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from transforms.event import Event

T = TypeVar("T")
MOST_PARTS = 16  # of a batch that is known by them: to look for more takes longer than to make it


class SharedEvents:
    """A chunk's events, and what has been made of them. Safe for threads.

    Whoever owns it bounds what is kept: from `let_go` on nothing is.
    """

    __slots__ = ("_keeps", "_lock", "_made", "events")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self._made: dict[Hashable, Any] = {}
        self._lock = threading.RLock()  # one thing may be made of another
        self._keeps = True

    def once(self, what: Hashable, make: Callable[[Sequence[Event]], T]) -> T:
        """What `make` makes of the events. Who asks for it while it is being made waits for it."""
        made: T | None = self._made.get(what)
        if made is None:
            with self._lock:
                made = self._made.get(what)
                if made is None:
                    made = self._made[what] = make(self.events)
                    if not self._keeps:
                        self._made.clear()
        return made

    @property
    def keeps(self) -> bool:
        """Whether what is made of it is there for the next who asks."""
        return self._keeps

    def let_go(self) -> None:
        """Keep nothing any more. Waits for nobody: who is making something clears up behind it."""
        self._keeps = False
        self._made.clear()


class Part(NamedTuple):
    """The events [start, stop) of a chunk; without one, of the batch itself."""

    shared: SharedEvents | None
    start: int
    stop: int


class BatchEvents(list["Event"]):
    """The events of a batch, in order, and of which chunks they are parts.

    Nobody changes it but who fills it: a copy, a slice, a list of changed events are ordinary lists, for
    which nothing is shared.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []

    def add(self, events: Sequence[Event], start: int, stop: int, shared: SharedEvents | None) -> None:
        """Add the events [start, stop) of a chunk, which others have too when it is `shared`."""
        before = len(self)
        self.extend(events[start:stop])
        if shared is not None:
            self.parts.append(Part(shared, start, stop))
        elif self.parts and self.parts[-1].shared is None:
            self.parts.append(Part(None, self.parts.pop().start, len(self)))
        else:
            self.parts.append(Part(None, before, len(self)))


def pieces(
    events: Sequence[Event],
    of_part: Callable[[Part, SharedEvents], T],
    of_own: Callable[[Sequence[Event]], T],
) -> list[T]:
    """What `of_part` makes of parts of chunks that are shared, and `of_own` of the events between them."""
    if not isinstance(events, BatchEvents):
        return [of_own(events)]
    return [
        of_own(events[part.start : part.stop]) if part.shared is None else of_part(part, part.shared)
        for part in events.parts
    ]


def raw_size(events: Sequence[Event]) -> int:
    """Bytes of their raw JSON: what a batch takes in memory, whatever its destination makes of it."""

    def of_part(part: Part, shared: SharedEvents) -> int:
        if not shared.keeps:
            return _raw_size(shared.events[part.start : part.stop])
        ends = shared.once("raw ends", _raw_ends)
        return ends[part.stop] - ends[part.start]

    return sum(pieces(events, of_part, _raw_size))


def _raw_size(events: Sequence[Event]) -> int:
    return sum([len(event.raw) for event in events])


def _raw_ends(events: Sequence[Event]) -> Sequence[int]:
    return [0, *accumulate([len(event.raw) for event in events])]


def once_for_batch(what: str, events: Sequence[Event], make: Callable[[Sequence[Event]], T]) -> T:
    """What `make` makes of a batch's events, once for all destinations whose batches begin and end where this
    one does. It is kept with the first chunk."""
    parts = events.parts if isinstance(events, BatchEvents) else ()
    if not 0 < len(parts) <= MOST_PARTS or None in [part.shared for part in parts]:
        return make(events)
    (first, start, stop), *others = parts
    assert first is not None
    return first.once((what, start, stop, *others), lambda _: make(events))


class Lines(NamedTuple):
    """Events encoded one after the other, and where each of them ends."""

    body: bytes
    ends: Sequence[int]


def encoded(
    events: Sequence[Event],
    form: Hashable,
    encode: Callable[[Sequence[Event]], bytes],
    lines: Callable[[Sequence[Event]], Lines],
) -> bytes:
    """The events as `encode` makes them, joined. Those of a chunk are encoded once for all of that form, by
    `lines`, which makes the same bytes and says where each event ends."""

    def of_part(part: Part, shared: SharedEvents) -> bytes | memoryview:
        if not shared.keeps:
            return encode(shared.events[part.start : part.stop])
        made = shared.once(("lines", form), lines)
        begin = made.ends[part.start - 1] if part.start else 0
        return memoryview(made.body)[begin : made.ends[part.stop - 1]]

    if form is None:
        return encode(events)
    found = pieces(events, of_part, encode)
    return found[0] if len(found) == 1 and isinstance(found[0], bytes) else b"".join(found)
