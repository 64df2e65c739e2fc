"""Deduplicate: each event id once, for clusters that read the feed through several connections."""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.coders import Coder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp
from xxhash import xxh3_64_intdigest

from transforms import coders, ulid  # noqa: F401 - elements travel by coders
from transforms.dead_letter import DeadLetter, id_conflict
from transforms.event import Chunk, Event
from transforms.feed.status import REPEATED
from transforms.refuse_splits import refuse_splits
from transforms.write.metrics import NAMESPACE

CHUNKS = "chunks"
DEAD_LETTERS = "dead_letters"
# Ids without a time share few keys: a key of its own for each makes a runner slow.
HASHED_KEYS = 16
_VERSION = 1
_ULID = re.compile(r"(?:.*_)?([0-7][0-9A-HJKMNP-TV-Z]{9})[0-9A-HJKMNP-TV-Z]{16}")


class Deduplicated(NamedTuple):
    """What is left: PCollections of Chunk and of DeadLetter (the same id with other bytes)."""

    chunks: Any
    dead_letters: Any


class Deduplicate(beam.PTransform):  # type: ignore[type-arg]
    """Drops events whose id came within the last `horizon` seconds, and of older ones some, up to twice that.

    Chunks in, a Deduplicated out; an event keeps its chunk's arrival time, and a chunk may be cut. Use it
    before any windows: an id is known within its window only. It is state and a timer for each second of
    events, so for runners that have both; the journal of one machine knows the ids of its events itself.
    """

    def __init__(self, horizon: float = 3600.0) -> None:
        super().__init__()
        self._horizon = horizon

    def expand(self, chunks: Any) -> Deduplicated:
        keyed = chunks | "BySecond" >> beam.FlatMap(by_second).with_output_types(tuple[int, Chunk])
        fresh = beam.ParDo(DropSeen(self._horizon)).with_output_types(Chunk)
        outputs = keyed | "DropSeen" >> fresh.with_outputs(DEAD_LETTERS, main=CHUNKS)
        outputs[DEAD_LETTERS].element_type = DeadLetter
        return Deduplicated(outputs[CHUNKS], outputs[DEAD_LETTERS])

    def display_data(self) -> dict[str, Any]:
        """The horizon, for the graph's viewers."""
        return {"horizon": self._horizon}


def by_second(chunk: Chunk) -> Iterator[tuple[int, Chunk]]:
    """The chunk's events by key: the second in their ULID, or a negative hash of an id that is none."""
    parts: dict[int, list[Event]] = {}
    for event in chunk.events:
        parts.setdefault(key_of(event.id), []).append(event)
    for key, events in parts.items():
        yield key, chunk if len(parts) == 1 else replace(chunk, events=events)


def key_of(event_id: str) -> int:
    """Seconds since the epoch when the id's last 26 characters are a ULID, else a number below 0."""
    found = _ULID.fullmatch(event_id)
    if found is None:
        return -1 - zlib.crc32(event_id.encode()) % HASHED_KEYS
    return int(found[1].translate(ulid.TO_PYTHON), 32) // 1000


class PackedIdsCoder(Coder):  # type: ignore[misc]
    """A version byte, then 64 bits of each id, then 64 bits of each event's bytes, little-endian."""

    def encode(self, value: bytes) -> bytes:
        return bytes([_VERSION]) + value

    def decode(self, encoded: bytes) -> bytes:
        """Raises ValueError when another version wrote it."""
        if encoded[:1] != bytes([_VERSION]):
            raise ValueError(
                f"ids packed by version {encoded[:1].hex() or 'nothing'}; this program reads {_VERSION}"
            )
        return encoded[1:]

    def is_deterministic(self) -> bool:
        return True


SEEN = BagStateSpec("seen", PackedIdsCoder())
BEFORE = BagStateSpec("before", PackedIdsCoder())
TURN = TimerSpec("turn", TimeDomain.REAL_TIME)
END = TimerSpec("end", TimeDomain.WATERMARK)
_SEEN, _BEFORE = beam.DoFn.StateParam(SEEN), beam.DoFn.StateParam(BEFORE)
_TURN, _END = beam.DoFn.TimerParam(TURN), beam.DoFn.TimerParam(END)


class DropSeen(beam.DoFn):
    """The ids of one key in two generations. A timer makes the younger the older one, and forgets that:
    keys of a hash are never done, and must forget as they go. When the input ends, the timer would keep
    the pipeline alive for a horizon (Prism waits for it): one for the end of the window clears it.
    """

    def __init__(self, horizon: float) -> None:
        self._horizon = horizon
        self._repeated = Metrics.counter(NAMESPACE, REPEATED)

    def setup(self) -> None:
        refuse_splits()

    def process(
        self,
        element: tuple[int, Chunk],
        window: Any = beam.DoFn.WindowParam,
        seen: Any = _SEEN,
        before: Any = _BEFORE,
        turn: Any = _TURN,
        end: Any = _END,
    ) -> Iterator[Any]:
        _, chunk = element
        known = _unpack(chain(before.read(), seen.read()))
        if not known:
            turn.set(self._next())
            end.set(window.max_timestamp())
        fresh, conflicts, packed = sort_out(chunk.events, known)
        if packed:
            seen.add(packed)
        self._repeated.inc(len(chunk.events) - len(fresh))
        for event in conflicts:
            yield TaggedOutput(DEAD_LETTERS, id_conflict(event, time.time()))
        if fresh:
            yield chunk if len(fresh) == len(chunk.events) else replace(chunk, events=fresh)

    @on_timer(TURN)  # type: ignore[untyped-decorator]
    def grow_older(
        self, seen: Any = _SEEN, before: Any = _BEFORE, turn: Any = _TURN, end: Any = _END
    ) -> None:
        """A horizon has passed."""
        younger = list(seen.read())
        before.clear()
        seen.clear()
        for packed in younger:
            before.add(packed)
        if younger:
            turn.set(self._next())
        else:
            end.clear()

    @on_timer(END)  # type: ignore[untyped-decorator]
    def forget(self, seen: Any = _SEEN, before: Any = _BEFORE, turn: Any = _TURN) -> None:
        """Nothing will come any more."""
        seen.clear()
        before.clear()
        turn.clear()

    def _next(self) -> Timestamp:
        return Timestamp.of(time.time() + self._horizon)


def sort_out(events: Iterable[Event], known: dict[int, int]) -> tuple[list[Event], list[Event], bytes]:
    """New events, those whose id came with other bytes, and the new ones packed; adds them to `known`.

    Two ids with one fingerprint (once in 10^11 seconds of 10,000 events) look like a conflict, which keeps
    the bytes as a dead letter.
    """
    fresh: list[Event] = []
    conflicts: list[Event] = []
    keys: list[int] = []
    values: list[int] = []
    for event in events:
        key, value = xxh3_64_intdigest(event.id.encode()), xxh3_64_intdigest(event.raw)
        if (seen := known.get(key)) is None:
            known[key] = value
            fresh.append(event)
            keys.append(key)
            values.append(value)
        elif seen != value:
            conflicts.append(event)
    return fresh, conflicts, struct.pack(f"<{2 * len(keys)}Q", *keys, *values)


def _unpack(blocks: Iterable[bytes]) -> dict[int, int]:
    known: dict[int, int] = {}
    for block in blocks:
        keys, values = np.frombuffer(block, dtype="<u8").reshape(2, -1).tolist()
        known.update(zip(keys, values, strict=True))
    return known
