"""Event ids taken before, packed, in memory and in the journal: what finds duplicates of an event."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest

from transforms.event import Event
from transforms.feed.journal.database import Database
from transforms.feed.journal.ranges import Range
from transforms.feed.journal.schema import has_signature, sign_body, signed_body

Array = npt.NDArray[np.uint64]
# 128 KiB to 8 MiB: a small one stays in the processor's cache. There are 16 bits for each id that it is made
# for, so that 6 % of new ones need a closer look, and a full set has four million ids.
LEAST_BITS, MOST_BITS = 20, 26
_SEVEN = np.uint64(7)
_THREE = np.uint64(3)


class IdFilter:
    """Marks fingerprints by their leading bits. Marks are never taken away one by one."""

    def __init__(self, ids: int = 0) -> None:
        """ids: how many are going to be marked, about."""
        bits = min(max(LEAST_BITS, (16 * ids).bit_length()), MOST_BITS)
        self._shift = np.uint64(64 - bits)
        self._bits = np.zeros(2**bits // 8, np.uint8)  # the system gives the memory as it is used
        self.marked = 0
        self.most = 2**bits // 16 if bits < MOST_BITS else 2**63  # to be marked before a bigger one is better

    def mark(self, keys: Array) -> None:
        """Remember these fingerprints."""
        places = keys >> self._shift
        np.bitwise_or.at(self._bits, places >> _THREE, np.left_shift(1, places & _SEVEN).astype(np.uint8))
        self.marked += len(keys)

    def may_hold(self, keys: Array) -> Array:
        """Those of the fingerprints that may have been marked; one that was is never left out."""
        places = keys >> self._shift
        marks = self._bits[places >> _THREE] >> (places & _SEVEN).astype(np.uint8)
        found: Array = keys[marks & 1 == 1]
        return found


log = logging.getLogger("grantex.journal")
RECENT = 32_768  # ids kept in a dict before they are packed (about 5 MB)
RUN = 262_144  # ids in a full packed run (3 MB)
MOST = 4_194_304  # ids kept at most (48 MiB): 46 minutes at 1,500 events a second
# Each append leaves a row of `ids`, and each row takes some 20 us of every start: small ones are joined.
JOIN_ROWS = 256
JOIN_IDS = 4_096
BIG_ROW = 256  # ids: rows that have as many on average are left as they are
# Of the fingerprint of an event's bytes, which is only asked whether a copy of its id is the same event.
VALUE_BITS = 0xFFFF_FFFF


@dataclass
class _Run:
    """Sifted keys with their values, and the highest offset and youngest age among them."""

    keys: Array
    values: npt.NDArray[np.uint32]
    last_offset: int
    taken: float  # monotonic


@dataclass
class Sifted:
    """What `SeenIds.sort_out` made of some events."""

    fresh: Sequence[Event]
    conflicts: list[Event] = field(default_factory=list)
    duplicates: int = 0
    packed: bytes = b""
    keys: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class JoinedIds:
    """The packed ids of consecutive events, to be one row of `ids` instead of several."""

    first: int
    count: int
    packed: bytes


class SeenIds:
    """Fingerprints (64 bits of the id, 32 bits of the bytes) of what was taken within the horizon.

    Two different ids with one fingerprint (1 in 10^6 for a full set) look like a conflict, which keeps
    the bytes as a dead letter: a collision never loses an event silently. Of conflicts, 1 in 4 billion is
    taken for a copy.
    """

    def __init__(self, horizon: float, most: int = MOST) -> None:
        self.horizon = horizon
        self.dropped_early = 0  # ids forgotten before the horizon because the set was full
        self._early = -math.inf  # monotonic: when the youngest of them was taken
        self._most = most
        self._recent: set[int] = set()  # keys that are in no run yet
        self._recent_packed: list[bytes] = []  # and what their events were packed to
        # Their values, of the first so many of these: only copies of an id are asked for one.
        self._recent_values: dict[int, int] = {}
        self._with_values = 0
        self._recent_last = (-1, 0.0)  # offset, monotonic
        self._runs: list[_Run] = []  # oldest first
        self._filter = IdFilter()  # of the ids in runs, and of some forgotten ones
        self._forgotten = 0  # all ids of offsets below this one are forgotten
        self._rows: list[bytes] = []  # packed, one for each row of the journal since the last were joined
        self._in_rows = 0  # ids
        self._joined: list[JoinedIds] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(len(run.keys) for run in self._runs)

    def sort_out(self, events: Sequence[Event]) -> Sifted:
        """Tell new events from duplicates (same bytes) and conflicts (other bytes); changes nothing."""
        keys, values = _fingerprints(events)
        distinct = set(keys.tolist())
        found = self._find(keys, distinct)
        if not found and len(distinct) == len(keys):
            return Sifted(events, packed=_pack(keys, values), keys=distinct)
        return self._sort_slowly(events, keys, values, found)

    def _sort_slowly(
        self, events: Sequence[Event], keys: Array, values: Array, found: dict[int, int]
    ) -> Sifted:
        fresh: list[Event] = []
        result = Sifted(fresh)
        known = dict(found)
        places = []
        for place, (event, key, value) in enumerate(zip(events, keys.tolist(), values.tolist(), strict=True)):
            seen = known.get(key)
            if seen is None:
                known[key] = value
                fresh.append(event)
                places.append(place)
            elif seen == value:
                result.duplicates += 1
            else:
                result.conflicts.append(event)
        result.packed = _pack(keys[places], values[places])
        result.keys = set(keys[places].tolist())
        return result

    def _find(self, keys: Array, distinct: set[int]) -> dict[int, int]:
        """key -> value of those already known."""
        found: dict[int, int] = {}
        if not self._recent.isdisjoint(distinct):
            self._list_values()
            found = {key: self._recent_values[key] for key in self._recent & distinct}
        if self._runs:
            wanted = self._filter.may_hold(keys)
            for run in self._runs if len(wanted) else ():
                at = np.minimum(np.searchsorted(run.keys, wanted), len(run.keys) - 1)
                for hit in np.nonzero(run.keys[at] == wanted)[0]:
                    found[int(wanted[hit])] = int(run.values[at[hit]])
        return found

    def _list_values(self) -> None:
        for packed in self._recent_packed[self._with_values :]:
            self._recent_values.update(zip(*_pairs([packed]).tolist(), strict=True))
        self._with_values = len(self._recent_packed)

    def known(self, ids: Sequence[str]) -> list[bool]:
        """Whether each of the ids is remembered."""
        keys = _digests([event_id.encode() for event_id in ids])
        listed = keys.tolist()
        found = self._find(keys, set(listed))
        return [key in found for key in listed]

    def reach(self, now: float) -> float:
        """For how many seconds back every id taken is remembered; `now` is monotonic."""
        return min(self.horizon, now - self._early)

    def add(self, taken: Sifted, last_offset: int, now: float) -> None:
        """Remember the fresh ids of `taken`; `now` is monotonic."""
        self._recent |= taken.keys
        self._recent_last = (last_offset, now)
        if taken.keys:
            self._recent_packed.append(taken.packed)
            self._rows.append(taken.packed)
            self._in_rows += len(taken.keys)
        is_full = len(self._recent) >= RECENT
        # not beyond the end of a run: runs are forgotten whole, and the rows of their ids with them
        if is_full or self._in_rows >= JOIN_IDS or len(self._rows) >= JOIN_ROWS:
            self._join_rows(last_offset + 1)
        if is_full:
            self._pack_recent()

    def _join_rows(self, end: int) -> None:
        rows, count = self._rows, self._in_rows
        self._rows, self._in_rows = [], 0
        if count < BIG_ROW * len(rows):
            self._joined.append(JoinedIds(end - count, count, _pairs(rows).tobytes()))

    def joined(self) -> list[JoinedIds]:
        """What `join_rows` is to do, each given once."""
        joined, self._joined = self._joined, []
        return joined

    def load(self, rows: Iterable[tuple[int, bytes | memoryview]], now: float) -> None:
        """Remember ids that earlier processes packed: (last offset, `Sifted.packed`), oldest first.

        Their age starts anew: an id is forgotten too late, never early because a clock was wrong.
        """
        waiting: list[bytes | memoryview] = []
        offset = size = 0
        for offset, packed in rows:
            waiting.append(packed)
            size += len(packed) // PAIR
            if size >= RUN:
                self._load_run(waiting, offset, now)
                waiting, size = [], 0
        if size:
            self._load_run(waiting, offset, now)

    def _load_run(self, packed: list[bytes | memoryview], last_offset: int, now: float) -> None:
        keys, values = _pairs(packed)
        self._runs.append(_sorted_run(keys, values, last_offset, now))
        self._mark_last()
        self._bound()

    def expire(self, now: float, trimmed: int) -> int:
        """Forget runs older than the horizon whose events (below `trimmed`) are gone from the journal.

        Returns the offset below which all ids are forgotten.
        """
        while self._runs and self._old(self._runs[0].last_offset, self._runs[0].taken, now, trimmed):
            self._forget_oldest()
        offset, taken = self._recent_last
        if self._recent and not self._runs and self._old(offset, taken, now, trimmed):
            self._clear_recent()
            self._forgotten = offset + 1
        return self._forgotten

    def _old(self, last_offset: int, taken: float, now: float, trimmed: int) -> bool:
        return now - taken >= self.horizon and last_offset < trimmed

    def _bound(self) -> None:
        while len(self) > self._most and self._runs:
            self._early = max(self._early, self._runs[0].taken)
            self._tell_early(self._forget_oldest())

    def _forget_oldest(self) -> int:
        run = self._runs.pop(0)
        self._forgotten = run.last_offset + 1
        if self._filter.marked > 2 * self._most:  # by now half of its marks are of forgotten ids
            self._renew_filter()
        return len(run.keys)

    def _mark_last(self) -> None:
        self._filter.mark(self._runs[-1].keys)
        if self._filter.marked > self._filter.most:
            self._renew_filter()

    def _renew_filter(self) -> None:
        self._filter = IdFilter(2 * len(self))
        for run in self._runs:
            self._filter.mark(run.keys)

    def _tell_early(self, number: int) -> None:
        if not self.dropped_early:
            log.warning(
                "ids are forgotten before --dedupe_horizon: more than %d events within it; a copy of an "
                "event that comes later than that is not recognised as one",
                self._most,
            )
        self.dropped_early += number

    def _pack_recent(self) -> None:
        keys, values = _pairs(self._recent_packed)
        self._runs.append(_sorted_run(keys, values, *self._recent_last))
        self._mark_last()
        self._clear_recent()
        self._merge()
        self._bound()

    def _clear_recent(self) -> None:
        self._recent, self._recent_packed = set(), []
        self._recent_values, self._with_values = {}, 0

    def _merge(self) -> None:
        """Make one run of the small ones at the end once they fill one: few runs keep look-ups fast."""
        small: list[_Run] = []
        while self._runs and len(self._runs[-1].keys) < RUN // 2:
            small.append(self._runs.pop())
        small.reverse()
        if len(small) > 1 and (sum(len(run.keys) for run in small) >= RUN or len(small) > RUN // RECENT):
            keys = np.concatenate([run.keys for run in small])
            values = np.concatenate([run.values for run in small])
            last = max(run.last_offset for run in small)
            small = [_sorted_run(keys, values, last, max(run.taken for run in small))]
        self._runs.extend(small)


def _sorted_run(
    keys: Array, values: npt.NDArray[np.unsignedinteger[Any]], last_offset: int, taken: float
) -> _Run:
    order = np.argsort(keys)
    # An older journal has all 64 bits of the value.
    return _Run(keys[order], (values[order] & VALUE_BITS).astype(np.uint32), last_offset, taken)


PAIR = 16  # bytes


def _pairs(packed: Sequence[bytes | memoryview]) -> Array:
    """All keys and all values of what `_pack` packed."""
    pairs = [np.frombuffer(each, dtype="<u8").reshape(2, -1) for each in packed]
    return pairs[0] if len(pairs) == 1 else np.concatenate(pairs, axis=1)


def _pack(keys: Array, values: Array) -> bytes:
    return keys.tobytes() + values.tobytes()


def _fingerprints(events: Sequence[Event]) -> tuple[Array, Array]:
    """Key and value of each event, as they are packed."""
    keys = _digests([event.id.encode() for event in events])
    return keys, _digests([event.raw for event in events]) & np.uint64(VALUE_BITS)


def _digests(texts: Iterable[bytes]) -> Array:
    return np.frombuffer(b"".join(map(xxh3_64_digest, texts)), dtype=">u8").astype("<u8")


def pack_ids(events: Sequence[Event]) -> bytes:
    """The ids of events, all new, as `SeenIds.sort_out` packs them."""
    return _pack(*_fingerprints(events))


def insert_ids(connection: sqlite3.Connection, first: int, count: int, packed: bytes) -> None:
    """Keep the ids of `count` events from an offset on, inside the caller's transaction."""
    connection.execute("INSERT INTO ids VALUES (?, ?, ?)", (first, count, sign_body(packed, first)))


def join_rows(connection: sqlite3.Connection, joined: JoinedIds) -> None:
    """Put one row in the place of those that hold exactly these ids, inside the caller's transaction."""
    offsets = joined.first, joined.first + joined.count
    query = "SELECT min(first), total(count) FROM ids WHERE first >= ? AND first < ?"
    if connection.execute(query, offsets).fetchone() == (joined.first, joined.count):
        connection.execute("DELETE FROM ids WHERE first >= ? AND first < ?", offsets)
        insert_ids(connection, joined.first, joined.count, joined.packed)


def unknown_ids(holes: Sequence[Range]) -> list[tuple[object, ...]]:
    """Rows of `ids` for events whose ids a damaged journal lost."""
    return [(first, stop - first, sign_body(b"", first)) for first, stop in holes]


def stored_pairs(first: int, stored: bytes) -> bytes | memoryview:
    """The packed ids in a row of `ids`, empty when they are not known. Raises BadChecksum.

    Rows of schema 1 have no checksum; their length is a multiple of 16, which the others' never is.
    """
    return signed_body(stored, first) if has_signature(stored) and len(stored) % 16 else stored


def stored_ids(database: Database) -> Iterator[tuple[int, bytes | memoryview]]:
    """(last offset, packed ids), oldest first, a few megabytes at a time."""
    first = -1
    query = "SELECT first, count, packed FROM ids WHERE first > ? ORDER BY first LIMIT 500"
    while rows := database.rows(query, first):
        for row in rows:
            first = int(str(row[0]))
            assert isinstance(row[2], bytes)
            yield first + int(str(row[1])) - 1, stored_pairs(first, row[2])
