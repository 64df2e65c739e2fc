"""What became of a window of the delivery ledger: by receipts, or by what a destination has, read back."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pipelines.flags.destinations import destinations
from pipelines.flags.settings import Settings
from transforms.archive import ids as read_back
from transforms.archive.bigquery_rows import BigQueryRows
from transforms.archive.choice import Archive
from transforms.archive.objects import S3Objects
from transforms.archive.sources import Directory
from transforms.event_types import TypeFilter
from transforms.feed.intake import iso
from transforms.feed.journal import JournalError
from transforms.feed.journal.receipts import Found, Receipts
from transforms.feed.ledger import Webhook
from transforms.feed.ledger_window import LedgerWindow, Window
from transforms.id_set import KEY, IdSet, Keys, among, keys_of
from transforms.ulid import pack, seconds

Mask = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.uint16]  # numbers of types, as in LedgerWindow.types
# Told how much was read (0 to 1), and how many events were found; it may raise to end it.
Progress = Callable[[float, int], None]
LAST = 0.001  # seconds; a window's end is part of it, and ids have milliseconds


class Account(msgspec.Struct):
    """What became of the window's events at one destination, in events.

    not_provable: nobody can tell any more, or the ledger has no rows for them: by their type, or because its
    webhook was registered later. unexpected: others that are there and not in the ledger.
    """

    delivered: int = 0
    dead_lettered: int = 0
    pending: int = 0
    filtered: int = 0
    missing: int = 0
    not_provable: int = 0
    unexpected: int = 0


@dataclass
class Accounts:
    """Of each destination; and which of the ledger's keys are missing, with what more is known of some."""

    destinations: dict[str, Account]
    missing: Mask
    known: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


class Missing(msgspec.Struct, omit_defaults=True):
    """A line of the file of missing events. gap: why the feed was not heard then. receipt: where it lay once,
    by a receipt."""

    id: str
    type: str
    created_at: str
    gap: str = ""
    receipt: str = ""


def asked_for(settings: Settings, rows: LedgerWindow) -> tuple[Keys, Kinds]:
    """The ledger's keys, sorted, and their types' numbers: of the types that the job receives."""
    keys, kinds = rows.sorted()
    if settings.feed_types:
        wanted = np.array([each in settings.feed_types for each in rows.types] or [True])
        keys, kinds = keys[wanted[kinds]], kinds[wanted[kinds]]
    return keys, kinds


# By receipts


# What of an event is known at a destination; "" for one that came to be after the event.
STATES = ("", "not_kept", "delivered", "dead_letter", "pending", "filtered")
NOBODY = "(received)"  # in the place of a destination, when there is none
_CODES = {state: code for code, state in enumerate(STATES)}


def by_receipts(
    directory: Path, keys: Keys, rows: LedgerWindow, progress: Progress, all_types: bool
) -> Accounts:
    """The accounts of every destination that the journal knows. Raises JournalError, JournalDamaged.

    all_types: the ledger has all types of events, so that whatever else was received is unexpected.
    """
    with contextlib.closing(Receipts(directory)) as receipts:
        names = receipts.destinations() or [NOBODY]
        there, codes = _received(receipts, names, rows.window, progress)
        absent = ~among(keys, there)
        missing, expired, known = _absent(receipts, keys, absent, rows)
    beside = int(np.count_nonzero(~among(there, keys)))
    at = np.searchsorted(there, keys[~absent])
    accounts = {}
    for number, name in enumerate(names):
        count = Counter(codes[at, number].tolist())
        told = {state: count[code] for state, code in _CODES.items()}
        accounts[name] = Account(
            delivered=told["delivered"],
            dead_lettered=told["dead_letter"],
            pending=told["pending"],
            filtered=told["filtered"],
            missing=_count(missing),
            not_provable=told["not_kept"] + told[""] + expired + (0 if all_types else beside),
            unexpected=beside if all_types else 0,
        )
    return Accounts(accounts, missing, known)


def _received(
    receipts: Receipts, names: Sequence[str], window: Window, progress: Progress
) -> tuple[Keys, npt.NDArray[np.uint8]]:
    """What was received: keys, sorted, and for each and each destination a code of STATES."""
    ids: list[str] = []
    packed, codes = bytearray(), bytearray()
    for found in receipts.received(window.since, window.until + LAST):
        ids.append(found.id)
        codes += bytes([_code(found, name) for name in names])
        if len(ids) == read_back.ROWS_AT_ONCE:
            packed += keys_of(ids).tobytes()
            ids.clear()
            at = pack(found.id)
            passed = (seconds(at) if at else window.since) - window.since
            progress(passed / max(1.0, window.until - window.since), len(packed) // KEY.itemsize)
    packed += keys_of(ids).tobytes()
    keys, first = np.unique(np.frombuffer(bytes(packed), KEY), return_index=True)
    progress(1.0, len(keys))
    return keys, np.frombuffer(bytes(codes), np.uint8).reshape(-1, len(names))[first]


def _code(found: Found, name: str) -> int:
    if name == NOBODY:
        return _CODES["delivered"]
    standing = found.destinations.get(name)
    return 0 if standing is None else _CODES[standing.state]


def _absent(
    receipts: Receipts, keys: Keys, absent: Mask, rows: LedgerWindow
) -> tuple[Mask, int, dict[str, dict[str, object]]]:
    """Of the keys that were not received: which are missing, of how many nobody can tell any more, and the
    gaps that they fell into."""
    missing, expired = absent.copy(), 0
    known: dict[str, dict[str, object]] = {}
    for place, found in _looked_up(receipts, keys, absent, rows):
        if found.expired or found.received_at is not None:
            missing[place] = False
            expired += 1
        elif found.gap is not None:
            known[found.id] = {"gap": found.gap.reason}
    return missing, expired, known


def _looked_up(
    receipts: Receipts, keys: Keys, which: Mask, rows: LedgerWindow
) -> Iterator[tuple[int, Found]]:
    """For each of the keys that are asked for its place, and what the receipts know of it."""
    places = np.nonzero(which)[0]
    ids = (rows.event(keys[place])[0] for place in places)
    return zip(places, receipts.find(ids), strict=True)


def receipts_since(directory: Path) -> float:
    """When the receipts begin, in epoch seconds: from then on it can be told that an event was not received.
    Raises JournalError, JournalDamaged."""
    with contextlib.closing(Receipts(directory)) as receipts:
        first = next(receipts.received(0.0, 1e11), None)
        begun = 0.0 if first is None or first.received_at is None else first.received_at
        return max(receipts.kept_since(), begun)


# By what a destination has


def by_reading_back(
    settings: Settings, webhook: Webhook, keys: Keys, kinds: Kinds, rows: LedgerWindow, progress: Progress
) -> Accounts:
    """The account of the destination --against, kinds: the numbers of the keys' types. Raises ArchiveError,
    and JournalDamaged."""
    name, window = settings["against"], rows.window
    there = There(webhook, window, min(settings["since"] or np.inf, window.since))
    for some, part in found_in(settings, there.since, window.until):
        there.add(some)
        progress(part, len(there))
    present = among(keys, there.keys)
    missing = ~present
    standing = _standing(settings, name, keys, missing, rows)
    dead = missing & standing.of("dead_letter")
    if missing.any():
        dead |= missing & among(keys, dead_lettered(settings, name))
    pending = standing.of("pending") & ~dead
    types = TypeFilter(settings[f"{name}_types"])
    not_asked_for = np.array([not types[each] for each in rows.types] or [False])
    filtered = standing.of("filtered") | (missing & not_asked_for[kinds] & ~standing.of("delivered"))
    filtered &= ~dead & ~pending
    missing &= ~dead & ~pending & ~filtered
    account = Account(
        delivered=_count(present),
        dead_lettered=_count(dead),
        pending=_count(pending),
        filtered=_count(filtered),
        missing=_count(missing),
        not_provable=there.not_provable,
        unexpected=_count(~among(there.keys, keys)),
    )
    return Accounts({name: account}, missing, standing.known)


@dataclass
class _Standing:
    """What the journal says of keys that are not there."""

    codes: npt.NDArray[np.uint8]
    known: dict[str, dict[str, object]] = field(default_factory=dict)

    def of(self, state: str) -> Mask:
        found: Mask = self.codes == _CODES[state]
        return found


def _standing(settings: Settings, name: str, keys: Keys, absent: Mask, rows: LedgerWindow) -> _Standing:
    """What the journal in --state_dir says of them, if there is one."""
    result = _Standing(np.zeros(len(keys), np.uint8))
    if not absent.any():
        return result
    try:
        receipts = Receipts(settings.state_dir)
    except JournalError:
        return result
    with contextlib.closing(receipts):
        for place, found in _looked_up(receipts, keys, absent, rows):
            result.codes[place] = _code(found, name)
            standing = found.destinations.get(name)
            if standing is not None and standing.state == "delivered":
                result.known[found.id] = {"receipt": standing.place or "by a receipt"}
            elif found.gap is not None:
                result.known[found.id] = {"gap": found.gap.reason}
    return result


class There:
    """What was found of a window: events that the ledger must have, and others.

    since: what was asked for, which may be before the ledger begins.
    """

    def __init__(self, webhook: Webhook, window: Window, since: float) -> None:
        self.since = since
        self._webhook, self._window = webhook, window
        self._inside, self._beside = IdSet(), IdSet()
        self._number = 0
        self._keys: Keys | None = None

    def __len__(self) -> int:
        return self._number

    def add(self, some: Sequence[read_back.Found]) -> None:
        """Events that are there."""
        inside: list[str] = []
        beside: list[str] = []
        for found in some:
            packed = pack(found.id)
            at = found.created_at if packed is None else seconds(packed)
            if not self.since <= at <= self._window.until:
                continue
            covered = not found.type or self._webhook.covers(found.type)
            (inside if covered and at >= self._window.since else beside).append(found.id)
        self._inside.add(inside)
        self._beside.add(beside)
        self._number += len(inside)

    @property
    def keys(self) -> Keys:
        """Those that the ledger must have, sorted."""
        if self._keys is None:
            self._keys = self._inside.keys()
        return self._keys

    @property
    def not_provable(self) -> int:
        """How many are there that the ledger has no row for."""
        return len(self._beside.keys())


def found_in(settings: Settings, since: float, until: float) -> Iterator[read_back.Some]:
    """What is there of a window. Raises ArchiveError."""
    name = settings["against"]
    to: Any = next(each for each in destinations(settings) if each.name == name)
    if name == "files":
        return read_back.in_archive(Archive(Directory(to.dir)), since, until)
    if name == "s3":
        return read_back.in_archive(Archive(S3Objects(to)), since, until)
    if name == "kafka":
        return read_back.in_topic(to, since)
    return read_back.in_table(BigQueryRows(to.table, to.endpoint, to.way_out), since, until)


def dead_lettered(settings: Settings, destination: str) -> Keys:
    """Events that are dead letters of a destination, as far as they lie in a directory of this machine."""
    found = IdSet()
    place = Path(settings.dead_letters_place)
    if place.is_dir():
        letters = Archive(Directory(str(place), letters=True), doubtful=True)
        for shard in letters.shards():
            for where, events in letters.read(shard, Counter()):
                found.add(event.id for event in events if where == destination)
    return found.keys()


def missing_lines(accounts: Accounts, keys: Keys, kinds: Kinds, rows: LedgerWindow) -> Iterator[bytes]:
    """NDJSON of the missing events."""
    which = accounts.missing
    for key, kind in zip(keys[which], kinds[which], strict=True):
        event_id, at = rows.event(key)
        line = Missing(event_id, rows.types[kind], iso(at), **accounts.known.get(event_id, {}))  # type: ignore[arg-type]
        yield msgspec.json.encode(line) + b"\n"


def _count(which: Mask) -> int:
    return int(np.count_nonzero(which))
