"""What a run on one machine looks like at one moment: the one source of metrics, page and terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.local.ages import Ages
from pipelines.local.feed_dead_letters import FeedDeadLetters
from pipelines.local.lane import Lane
from pipelines.local.proof import ContinuousProof, ProofStatus
from pipelines.preflight import Preflight
from transforms.clock import Clock
from transforms.feed.intake import Gap
from transforms.feed.journal import Books, Journal
from transforms.feed.reader import FeedReader
from transforms.feed.status import ConnectionStatus, Phase
from transforms.preflight import Finding
from transforms.write.delivery.status import DeliveryStatus

LATEST_GAPS = 50  # for the charts of an hour; all of them are in the journal and among the dead letters


@dataclass(frozen=True)
class DestinationSnapshot:
    """One destination. `delivery` is None for a removed one that still holds events.

    lag: seconds since the oldest unsettled event was received; 0 when nothing is pending.
    failure: the unexpected error after which its lane restarts, "" while it runs.
    max_age: seconds that an event may wait for others, so that so much lag is no delay.
    target: where events go, for a person.
    preflight: what the preflight found; None while it is not known.
    """

    name: str
    books: Books
    lag: float
    delivery: DeliveryStatus | None = None
    restarts: int = 0
    failure: str = ""
    max_age: float = 0.0
    target: str = ""
    preflight: Sequence[Finding] | None = None


@dataclass(frozen=True)
class StandingBy:
    """What a standby holds while another process delivers.

    reaches_back_to: epoch seconds since when nothing of the feed is missing; None before its first stream.
    why_not: why it could not take over now, "" while nothing is known against it.
    """

    events: int
    bytes: int
    max_bytes: int
    reaches_back_to: float | None
    why_not: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The whole run. Times are seconds since the epoch; counts are in events.

    latest_gaps: the last few on record, newest first, those of earlier runs included.
    by_type: events received since the start, by type.
    letters_failure: why the feed's dead letters cannot be written, "" while they can.
    letters: those of the feed that were written since the start, gaps among them, by cause; latest_letters:
        event id and time of the latest of each, newest first.
    webhooks: how many requests came to what, since the start; None when none are taken.
    proof: what the service's ledger proves; None without --ledger_webhook.
    connections_wanted: streams that are to be open; while one is replaced there is one more.
    gap_seconds: how long all gaps were together.
    full_at: when the journal will be full at the present rate; None when nothing says that it will.
    standing_by: set while another process has the state directory; then there are no destinations here.
    """

    at: float
    received: int
    duplicates: int
    feed_dead_letters: int
    gaps: int
    gap_open: bool
    connections: Sequence[ConnectionStatus]
    journal_bytes: int
    destinations: Sequence[DestinationSnapshot]
    started_at: float = 0.0
    latest_gaps: Sequence[Gap] = ()
    journal_max_bytes: int = 0
    by_type: Mapping[str, int] = field(default_factory=dict)
    letters_failure: str = ""
    letters: Mapping[str, int] = field(default_factory=dict)
    latest_letters: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    webhooks: Mapping[str, int] | None = None
    proof: ProofStatus | None = None
    standing_by: StandingBy | None = None
    connections_wanted: int = 0
    gap_seconds: float = 0.0
    full_at: float | None = None

    @property
    def last_heard_at(self) -> float | None:
        """When anything came by any stream."""
        return max((each.last_heard_at or 0.0 for each in self.connections), default=0.0) or None

    @property
    def last_event_at(self) -> float | None:
        """When an event came by any stream."""
        return max((each.last_event_at or 0.0 for each in self.connections), default=0.0) or None

    @property
    def is_ready(self) -> bool:
        """Events are being received; a standby could take over, too."""
        return self.live > 0 and not (self.standing_by and self.standing_by.why_not)

    @property
    def live(self) -> int:
        """Streams that are open."""
        return sum(status.phase is Phase.LIVE for status in self.connections)


Look = Callable[[], Snapshot]


def take(
    journal: Journal,
    reader: FeedReader,
    lanes: Sequence[Lane],
    clock: Clock,
    ages: Ages,
    started_at: float = 0.0,
    preflight: Preflight | None = None,
    letters: FeedDeadLetters | None = None,
    webhooks: Mapping[str, int] | None = None,
    proof: ContinuousProof | None = None,
) -> Snapshot:
    """Look at everything now. `started_at`: when the run began."""
    running = {lane.name: lane for lane in lanes}
    found = Preflight({}) if preflight is None else preflight
    return Snapshot(
        at=clock.now(),
        received=journal.end,
        duplicates=journal.duplicates,
        feed_dead_letters=journal.feed_dead_letters,
        gaps=journal.gap_total,
        gap_open=journal.gap_open,
        connections=reader.statuses,
        journal_bytes=journal.bytes,
        destinations=[
            _destination(name, books, journal, running.get(name), ages, found.of(name))
            for name, books in sorted(journal.books().items())
        ],
        started_at=started_at,
        latest_gaps=journal.latest_gaps(LATEST_GAPS),
        journal_max_bytes=journal.max_bytes,
        by_type=dict(journal.by_type),
        letters_failure=letters.failure if letters else "",
        letters=dict(letters.written.counts) if letters else {},
        latest_letters=letters.written.latest() if letters else {},
        webhooks=webhooks,
        proof=proof.status if proof else None,
        connections_wanted=reader.wanted,
        gap_seconds=journal.gap_seconds,
    )


def _destination(
    name: str,
    books: Books,
    journal: Journal,
    lane: Lane | None,
    ages: Ages,
    preflight: Sequence[Finding] | None,
) -> DestinationSnapshot:
    return DestinationSnapshot(
        name=name,
        books=books,
        lag=ages.of(journal.cursors[name].position) if books.pending else 0.0,
        delivery=lane.status if lane else None,
        restarts=lane.restarts if lane else 0,
        failure=lane.failure if lane else "",
        max_age=lane.destination.policy.max_age if lane else 0.0,
        target=lane.destination.target() if lane else "",
        preflight=preflight,
    )


SECONDS = 30.0


class Rates:
    """Remembers counts of past snapshots."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, dict[str, int]]] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """The newest snapshot."""
        if self._looks and snapshot.at < self._looks[-1][0]:
            self._looks.clear()  # the wall clock was set back
        counts = {item.name: item.books.delivered for item in snapshot.destinations}
        self._looks.append((snapshot.at, snapshot.received, counts))
        while len(self._looks) > 2 and self._looks[1][0] <= snapshot.at - SECONDS:
            self._looks.popleft()

    @property
    def received(self) -> float:
        """Events received a second."""
        return self._rate(self._looks[0][1], self._looks[-1][1]) if self._looks else 0.0

    def delivered(self, name: str) -> float:
        """Events delivered a second to a destination."""
        if not self._looks:
            return 0.0
        then, now = self._looks[0][2], self._looks[-1][2]
        return self._rate(then.get(name, now.get(name, 0)), now.get(name, 0))

    def _rate(self, then: int, now: int) -> float:
        seconds = self._looks[-1][0] - self._looks[0][0]
        return max(0, now - then) / seconds if seconds > 0 else 0.0
