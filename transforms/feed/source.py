"""Reading a journal through Beam: the splittable DoFn, its restriction, and the source that paces it."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
from apache_beam.coders import Coder
from apache_beam.io.iobase import RestrictionProgress
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.pvalue import PBegin, TaggedOutput
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms import coders  # noqa: F401 - elements travel by them
from transforms.dead_letter import DeadLetter
from transforms.direct_runner import Local
from transforms.event import Chunk
from transforms.feed.journal import Journal
from transforms.feed.reader import FeedReader
from transforms.feed.request import FeedSettings
from transforms.feed.watch import SPARE_SLOT, SpareSlot
from transforms.in_process import Ticket, acquire, release


@dataclass(frozen=True)
class Turn:
    """What a source wants done now: read about `events` events, then tick.

    flush: the stages behind are asked to send what they hold.
    done: nothing will come any more; the reading ends after this turn.
    """

    events: int = 0
    flush: bool = False
    done: bool = False


class Source(Protocol):
    """Paces the reading of one pipeline."""

    def position(self, restriction_start: int) -> int:
        """The offset to read from, given that a bundle starts (or resumes) at `restriction_start`."""

    def first_turn(self, position: int) -> Turn:
        """Block until there is something to do."""

    def next_turn(self, position: int, bundle_seconds: float) -> Turn | None:
        """What comes next in a bundle that has run for `bundle_seconds`: like `wait`, but None ends it."""

    def read(self, position: int, events: int) -> Iterable[Chunk]:
        """Chunks from `position` on, about `events` events; those that are not wanted are left out. Each is
        asked for when the one before has gone through."""

    def dead_letters(self) -> Sequence[tuple[int, DeadLetter]]:
        """Numbered dead letters of the feed that this pipeline is to carry."""

    def drop_dead_letters(self, up_to: int) -> None:
        """They went through the pipeline."""

    def finished(self, position: int) -> None:
        """The last turn is over; everything below `position` went through."""

    def caught_up(self, position: int) -> bool:
        """Whether nothing waits at `position`: then the watermark is the present."""

    def pending_bytes(self, position: int) -> int:
        """About how many raw bytes wait from `position` on."""


OPEN_END = 2**63 - 1  # the feed has no last offset
_VERSION = 1
_HEADER = struct.Struct(">Bqq")


class FeedRestriction(OffsetRange):  # type: ignore[misc]
    """Offsets [start, stop) of the journal that the source of that name reads."""

    def __init__(self, source: str, start: int = 0, stop: int = OPEN_END) -> None:
        super().__init__(start, stop)
        self.source = source

    def split_at(self, split_pos: int) -> tuple[FeedRestriction, FeedRestriction]:
        return (
            FeedRestriction(self.source, self.start, split_pos),
            FeedRestriction(self.source, split_pos, self.stop),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeedRestriction) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.source, self.start, self.stop))


class FeedRestrictionCoder(Coder):  # type: ignore[misc]
    """A version byte, two big-endian 64-bit offsets, the source's name.

    Beam's default pickles class paths, which breaks updates of a running job.
    """

    def encode(self, value: FeedRestriction) -> bytes:
        return _HEADER.pack(_VERSION, value.start, value.stop) + value.source.encode()

    def decode(self, encoded: bytes) -> FeedRestriction:
        """Raises ValueError when another version wrote it."""
        version, start, stop = _HEADER.unpack_from(encoded)
        if version != _VERSION:
            raise ValueError(f"a feed restriction of version {version}; this program reads {_VERSION}")
        return FeedRestriction(encoded[_HEADER.size :].decode(), start, stop)

    def is_deterministic(self) -> bool:
        return True


class FeedRestrictionTracker(OffsetRestrictionTracker):  # type: ignore[misc]
    """Claims the last offset of each chunk; splits at fraction 0 only.

    A runner that split a running restriction (Prism does) would read the feed twice. Claiming a chunk's
    first offset would make the residual begin inside the chunk.
    """

    def __init__(self, restriction: FeedRestriction, pending_bytes: Callable[[int], int]) -> None:
        """pending_bytes: how many bytes wait from an offset on."""
        super().__init__(restriction)
        self._pending_bytes = pending_bytes

    def is_bounded(self) -> bool:
        return False

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None

    def current_progress(self) -> RestrictionProgress:
        """Bytes waiting in the journal: an open range of offsets would report 9e18 and scale a cluster up."""
        at = self._range.start if self._last_claim_attempt is None else self._last_claim_attempt + 1
        return RestrictionProgress(completed=0, remaining=self._pending_bytes(at))


HEARTBEAT = 5.0  # seconds after which a bundle ends with nothing read
TICK_SECONDS = 0.5  # between looks at the clock, and at whether the input is to end
BUNDLE_SECONDS = 0.5
READ_EVENTS = 5_000


@dataclass(frozen=True)
class StandaloneSource:
    """Picklable settings of the source; `open` makes it live in this process, once."""

    feed: FeedSettings
    state_dir: str
    name: str
    connections: int = 1
    max_events: int | None = None
    max_seconds: float | None = None

    @property
    def key(self) -> str:
        """What the source is called in this process, and in restrictions."""
        return f"{self.state_dir}/{self.name}"

    def open(self, shared: Local) -> LiveSource:
        """The live source. Raises JournalError."""
        return acquire(self.key, lambda: LiveSource(self, shared))

    def close(self, source: LiveSource) -> None:
        """One copy of the DoFn less; the last one ends the reading."""
        if release(self.key):
            source.close()


class LiveSource:
    """Reads on while its pipeline asks. Its cursor moves when a bundle resumes behind what was read: the
    runner resumes a restriction only once the bundle before is committed."""

    def __init__(self, settings: StandaloneSource, shared: Local) -> None:
        self._settings, self._shared = settings, shared
        self._closed = self._gathers = False
        self._wake = threading.Event()
        self._journal = Journal(Path(settings.state_dir), feed_url=settings.feed.root)
        self._journal.listeners.append(self._wake.set)
        self._cursor = self._journal.cursor(settings.name)
        self._first = self._cursor.position
        self._until = None if settings.max_seconds is None else time.monotonic() + settings.max_seconds
        self._reader = FeedReader(
            settings.feed,
            self._journal,
            connections=settings.connections,
            spare=SpareSlot(self._journal.directory / SPARE_SLOT),
            on_end=self._wake.set,
        )
        self._reader.start()

    def position(self, restriction_start: int) -> int:
        self._shared.reads()
        self._gathers = False
        if restriction_start > self._cursor.position:
            self._cursor.advance(restriction_start)
            self._journal.trim()
        return max(restriction_start, self._cursor.position)

    def first_turn(self, position: int) -> Turn:
        heartbeat = time.monotonic() + HEARTBEAT
        while True:
            self._wake.clear()
            if self._shared.stopped:
                self._reader.stop()
            if self._enough(position):
                return Turn(done=True)
            if self._journal.end > position:
                return Turn(READ_EVENTS)
            if self._over():
                return Turn(done=True)
            timeout = TICK_SECONDS if self._until is None else max(0.0, self._until - time.monotonic())
            self._wake.wait(min(TICK_SECONDS, timeout))
            if self._until is None and time.monotonic() >= heartbeat:
                return Turn()

    def _enough(self, position: int) -> bool:
        most = self._settings.max_events
        return most is not None and position - self._first >= most

    def _over(self) -> bool:
        if self._reader.failure is not None:
            raise self._reader.failure
        ended = self._reader.ended or self._shared.stopped
        return ended or (self._until is not None and time.monotonic() >= self._until)

    def finished(self, position: int) -> None:
        self._reader.stop()
        self._cursor.advance(position)
        self.close()

    def close(self) -> None:
        """Stop reading; what did not go through stays in the journal."""
        if not self._closed:
            self._closed = True
            self._shared.ended()
            self._reader.stop()
            self._journal.close()

    def next_turn(self, position: int, bundle_seconds: float) -> Turn | None:
        gather = self._shared.gather if self._gathers else 0.0
        if self._enough(position) or bundle_seconds >= max(BUNDLE_SECONDS, gather):
            return None
        if self._journal.end == position:
            if not gather or self._over():
                return None
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
        return Turn(READ_EVENTS)

    def read(self, position: int, events: int) -> Sequence[Chunk]:
        chunks = self._journal.read(position, events)
        self._gathers = self._gathers or bool(chunks)
        return chunks

    def dead_letters(self) -> Sequence[tuple[int, DeadLetter]]:
        return self._journal.dead_letters()

    def drop_dead_letters(self, up_to: int) -> None:
        self._journal.drop_dead_letters(up_to)

    def caught_up(self, position: int) -> bool:
        return self._journal.end <= position

    def pending_bytes(self, position: int) -> int:
        return 0 if self._closed else self._journal.pending_bytes(position)


CHUNKS = "chunks"
DEAD_LETTERS = "dead_letters"


class Feed(NamedTuple):
    """What reading gives: PCollections of Chunk and of DeadLetter."""

    chunks: Any
    dead_letters: Any


def with_dead_letters(read: beam.DoFn) -> Any:
    """A DoFn that gives Chunks, and DeadLetters under their tag."""
    return beam.ParDo(read).with_output_types(Chunk).with_outputs(DEAD_LETTERS, main=CHUNKS)


def read_journal(
    pbegin: PBegin,
    name: str,
    source: Ticket[Source] | StandaloneSource,
    shared: Ticket[Local] | None = None,
) -> Feed:
    """The stages of a ReadFromGrantex over a journal; `shared` with a runner inside this process."""
    outputs = (
        pbegin
        | "Source" >> beam.Create([name], reshuffle=False)
        | "Journal" >> with_dead_letters(ReadJournal(source, shared))
    )
    outputs[DEAD_LETTERS].element_type = DeadLetter
    return Feed(outputs[CHUNKS], outputs[DEAD_LETTERS])


_FEED = beam.DoFn.RestrictionParam()  # the DoFn itself says what its restriction is
_WATERMARK = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider())


class ReadJournal(beam.DoFn, RestrictionProvider):  # type: ignore[misc]
    """The splittable DoFn: a bundle is some turns of the source, then the remainder is deferred.

    Its element is the source's name; the restriction is all its offsets, sized by the bytes that are pending.
    The in-process runner ignores the delay of a deferred remainder, so waiting happens in here.
    """

    _source: Source | None = None  # between setup and teardown

    def __init__(
        self, source: Ticket[Source] | StandaloneSource, shared: Ticket[Local] | None = None
    ) -> None:
        self._from, self._shared = source, shared

    def setup(self) -> None:
        shared = Local() if self._shared is None else self._shared.live
        self._source = self._from.live if isinstance(self._from, Ticket) else self._from.open(shared)

    def teardown(self) -> None:
        source, self._source = self._source, None
        if isinstance(self._from, StandaloneSource) and isinstance(source, LiveSource):
            self._from.close(source)

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(self, element: str, tracker: Any = _FEED, watermark: Any = _WATERMARK) -> Iterator[Any]:
        assert self._source is not None
        yield from _bundle(self._source, tracker, watermark)

    def initial_restriction(self, element: str) -> FeedRestriction:
        return FeedRestriction(element)

    def create_tracker(self, restriction: FeedRestriction) -> FeedRestrictionTracker:
        return FeedRestrictionTracker(restriction, self._pending_bytes)

    def restriction_size(self, element: str, restriction: FeedRestriction) -> int:
        return self._pending_bytes(restriction.start)

    def split(self, element: str, restriction: FeedRestriction) -> Iterator[FeedRestriction]:
        yield restriction

    def restriction_coder(self) -> Coder:
        return FeedRestrictionCoder()

    def _pending_bytes(self, position: int) -> int:
        return 0 if self._source is None else self._source.pending_bytes(position)


def _bundle(source: Source, tracker: Any, watermark: Any) -> Iterator[Any]:
    """Chunks while there is something to do, each turn ended by a tick."""
    position = source.position(tracker.current_restriction().start)
    turn: Turn | None = source.first_turn(position)
    began = time.monotonic()
    while turn is not None:
        yield from _dead_letters(source)
        for chunk in source.read(position, turn.events) if turn.events else ():
            if not tracker.try_claim(chunk.end - 1):
                return  # checkpointed: the chunk stays in the journal for whoever resumes
            position = chunk.end
            yield TimestampedValue(chunk, chunk.taken_at)
        now = time.time()
        yield TimestampedValue(Chunk((), position, now, turn.flush), now)
        _advance(watermark, now if source.caught_up(position) else None)
        if turn.done:
            tracker.try_claim(OPEN_END - 1)
            source.finished(position)
            return
        turn = source.next_turn(position, time.monotonic() - began)
    tracker.defer_remainder()


def _dead_letters(source: Source) -> Iterator[TaggedOutput]:
    """The feed's dead letters. In a fused bundle they are written when the generator is resumed."""
    letter: DeadLetter
    letters = source.dead_letters()
    for _, letter in letters:
        yield TaggedOutput(DEAD_LETTERS, letter)
    if letters:
        source.drop_dead_letters(letters[-1][0])


def _advance(watermark: Any, now: float | None) -> None:
    """Move the watermark to the present once nothing older waits; it never goes back."""
    if now is not None:
        current = watermark.current_watermark()
        watermark.set_watermark(max(Timestamp.of(now), current) if current else Timestamp.of(now))
