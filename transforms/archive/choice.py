"""What of an archive is sent, and where: events by type, time and id; for each destination what it lacks."""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

from transforms.archive.sources import Damaged, Shard, Source
from transforms.dead_letter import cause_word, decode
from transforms.event import Event
from transforms.event_types import TypeFilter
from transforms.feed.journal.seen_ids import SeenIds
from transforms.parse import parse_frame, parse_frames
from transforms.write.created_at import epoch_text

log = logging.getLogger("grantex.archive")
EVERYWHERE = "*"  # where an archive's events belong; a dead letter's have a destination
IN_DOUBT = "in_doubt"  # the cause of a dead letter that may have been delivered
ID_CONFLICT = "id_conflict"  # that of the one letter of the feed's that is an event
AT_ONCE = 500  # events that travel together
HOUR = re.compile(r"(?:^|/)dt=(\d{4}-\d\d-\d\d)/hour=(\d\d)/", re.ASCII)
MOST_IDS = 2**26  # whose repeats are known: 800 MB of them, which takes an archive of sixty million events


@dataclass(frozen=True)
class Selection:
    """Events that are asked for; all of them unless something is given.

    types: shell patterns; one that begins with "!" excludes. since, until: epoch seconds of `createdAt`,
    from the first up to the second. ids: these and no others.
    """

    types: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    ids: frozenset[str] | None = None

    @property
    def in_time(self) -> bool:
        """Whether the time of an event matters."""
        return self.since is not None or self.until is not None

    @cached_property
    def _asked(self) -> TypeFilter:
        return TypeFilter(self.types)

    def may_hold(self, shard: Shard) -> bool:
        """False for a shard whose directories say that it holds none of the asked time."""
        found = HOUR.search(shard.name) if self.in_time else None
        if found is None:
            return True
        try:
            begin = datetime.fromisoformat(f"{found[1]}T{found[2]}:00:00+00:00")
        except ValueError:
            return True
        end = (begin + timedelta(hours=1)).timestamp()
        return begin.timestamp() < _or(self.until, math.inf) and end > _or(self.since, -math.inf)

    def of(self, events: Sequence[Event], counts: Counter[str]) -> Sequence[Event]:
        """Those of `events` that are asked for; the others are counted by what kept them out."""
        if self.types:
            asked = self._asked
            events = _kept(events, lambda event: asked[event.type], "other types", counts)
        if self.ids is not None:
            known = self.ids
            events = _kept(events, lambda event: event.id in known, "other ids", counts)
        if self.in_time:
            events = _kept(events, self._is_in_time, "other times", counts)
        return events

    def _is_in_time(self, event: Event) -> bool:
        at = epoch(event.created_at)
        return at is not None and _or(self.since, -math.inf) <= at < _or(self.until, math.inf)


def _kept(
    events: Sequence[Event], keep: Callable[[Event], bool], why: str, counts: Counter[str]
) -> Sequence[Event]:
    """Those of `events` that are to be kept; the others are counted as `why`."""
    found = [event for event in events if keep(event)]
    if len(found) < len(events):
        counts[why] += len(events) - len(found)
    return found


def _or(given: float | None, else_: float) -> float:
    return else_ if given is None else given


def epoch(created_at: str) -> float | None:
    """Seconds since the epoch; None for what is no RFC 3339, or before 1970."""
    text = epoch_text(created_at)
    return float(text) if text else None


@dataclass(frozen=True)
class Archive:
    """A source, and what of it is asked for.

    doubtful: also dead letters of events that may have been delivered (`in_doubt`).
    """

    source: Source
    selection: Selection = Selection()
    doubtful: bool = False

    def shards(self) -> list[Shard]:
        """Those that may hold something. Raises ArchiveError."""
        return [shard for shard in self.source.shards() if self.selection.may_hold(shard)]

    def read(self, shard: Shard, counts: Counter[str]) -> Iterator[tuple[str, Sequence[Event]]]:
        """The asked events of a shard in their order, some at a time, with where they belong.

        counts: "events" that were found, and why others are none or were left out. What is damaged is read
        up to there, said and counted. Raises ArchiveError.
        """
        try:
            yield from self._read(shard, counts)
        except Damaged as error:
            counts["damaged"] += 1
            log.error("%s", error)

    def _read(self, shard: Shard, counts: Counter[str]) -> Iterator[tuple[str, Sequence[Event]]]:
        read = self._letters if self.source.letters else self._events
        for lines, ended in self.source.lines(shard, self.selection, counts):
            for start in range(0, len(lines), AT_ONCE):
                some = [line for line in lines[start : start + AT_ONCE] if line.strip()]
                for where, events in read(some, "torn last lines" if not ended else "no events", counts):
                    counts["events"] += len(events)
                    if chosen := self.selection.of(events, counts):
                        yield where, chosen

    def _events(
        self, lines: Sequence[bytes], else_: str, counts: Counter[str]
    ) -> Iterator[tuple[str, Sequence[Event]]]:
        events, letters = parse_frames(lines, 0.0)
        if letters:
            counts[else_] += len(letters)
        if events:
            yield EVERYWHERE, events

    def _letters(
        self, lines: Sequence[bytes], else_: str, counts: Counter[str]
    ) -> Iterator[tuple[str, Sequence[Event]]]:
        found: dict[str, list[Event]] = {}
        for line in lines:
            letter = decode(line)
            if letter is None:
                counts[else_] += 1
                continue
            word = cause_word(letter.cause)
            if letter.stage != "write" and word != ID_CONFLICT:
                counts[f"no event: {word}"] += 1
            elif word == IN_DOUBT and not self.doubtful:
                counts[IN_DOUBT] += 1
            elif isinstance(event := parse_frame(letter.raw, 0.0), Event):
                found.setdefault(letter.destination, []).append(event)
            else:
                counts[f"no event: {word}"] += 1
        yield from found.items()


class Choice:
    """What of an archive goes to one destination: what belongs there, each id once, and not what it has.

    to_all: dead letters of other destinations, and of the feed, as well. delivered: of some ids those that
    the destination has already, by its receipts; earlier: the same, by an earlier run of this replay.
    once: whether repeats are looked for here. types: tells which are asked for there; None when all are.
    """

    def __init__(
        self,
        name: str,
        *,
        to_all: bool = False,
        delivered: Callable[[Sequence[str]], Collection[str]] | None = None,
        earlier: Collection[str] = (),
        once: bool = True,
        types: TypeFilter | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._name, self._to_all = name, to_all
        self._delivered, self._earlier = delivered, earlier
        self._types = types
        self._seen = SeenIds(math.inf, MOST_IDS) if once else None

    def of(self, where: str, events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
        """Those of `events`, which belong `where`, that are to be sent; and those whose id came before with
        other bytes, which are not."""
        if not (where in (EVERYWHERE, self._name) or self._to_all):
            self.counts[f"of {where}" if where else "of no destination"] += len(events)
            return (), ()
        conflicts: Sequence[Event] = ()
        if self._seen is not None:
            sifted = self._seen.sort_out(events)
            self._seen.add(sifted, 0, time.monotonic())
            events, conflicts = sifted.fresh, sifted.conflicts
            self._left_out("repeats", sifted.duplicates)
            self._left_out(ID_CONFLICT, len(conflicts))
        if (types := self._types) is not None:
            events = _kept(events, lambda event: types[event.type], "not asked for there", self.counts)
        if self._earlier:
            events = self._without(events, self._earlier, "sent by an earlier run")
        if self._delivered is not None and events:
            events = self._without(events, self._delivered([event.id for event in events]), "have a receipt")
        self.counts["chosen"] += len(events)
        return events, conflicts

    def _without(self, events: Sequence[Event], known: Collection[str], why: str) -> Sequence[Event]:
        return _kept(events, lambda event: event.id not in known, why, self.counts) if known else events

    def _left_out(self, why: str, number: int) -> None:
        if number:
            self.counts[why] += number


def instant(text: str) -> float:
    """A moment as a person gives it, in epoch seconds: "2026-03-01", "2026-03-01T12:00:00Z"; UTC unless it
    says otherwise."""
    try:
        found = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text))
    except ValueError:
        raise ValueError("must be a moment, such as 2026-03-01 or 2026-03-01T12:00:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
