"""What `/status.json` answers: stable names, for the status page and for anyone's own tools.

Times are seconds since the epoch, null for never; ages and lags are seconds; counts are events unless they
say otherwise. Fields may be added, none is removed or changes its meaning. There is no secret in it, and of
an event nothing but the id of one that is a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata

import msgspec

from pipelines.local import verdict
from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from transforms.feed import intake
from transforms.feed.status import ConnectionStatus, State
from transforms.write.delivery.status import DeliveryStatus


class Connection(msgspec.Struct):
    """One stream of the feed. phase: live, connecting, waiting_for_headers, waiting, paused, stopped.

    state: live; suspect (it lacks what another one received); replacing (opened to take another one's
    place); connecting, also while it waits to; paused; stopped."""

    phase: str
    doing: str  # in plain words
    next_try: float | None
    last_event_at: float | None
    last_heard_at: float | None  # an event or a keepalive
    reconnects: int
    last_problem: str  # "" when there was none
    transport: str
    state: str
    age: float | None  # of its open stream


class Gap(msgspec.Struct):
    """An interval in which events may have been published that nobody received; `until` null: still open."""

    since: float
    until: float | None
    reason: str


class Proof(msgspec.Struct):
    """What the service's ledger proves: every event from `since` to `until` was received or is missing."""

    level: str
    says: str
    webhook: str  # an id, or auto while none is chosen
    since: float | None
    until: float | None
    missing: int  # ever, each with a dead letter
    found: int  # of these, those that came after all
    not_covered: list[str]  # types that the ledger does not have
    failure: str  # why nothing is proven for now, "" when it is


class DeadLetter(msgspec.Struct):
    """One of the latest; its bytes and the whole reason are where dead letters are kept."""

    id: str  # "" for what has none
    at: float


class Feed(msgspec.Struct):
    level: str
    doing: str
    received: int  # into the journal, ever
    duplicates: int  # received twice and dropped, since the start
    dead_letters: int  # frames that are no events, since the start
    connections_live: int
    connections_wanted: int
    connections: list[Connection]
    gaps: int  # on record
    gap_open: bool
    gap_seconds: float  # of all that have ended
    latest_gaps: list[Gap]  # newest first
    written_dead_letters: dict[str, int]  # by cause, gaps among them, since the start
    latest_dead_letters: dict[str, list[DeadLetter]]  # of each cause, newest first
    webhooks: dict[str, int] | None  # requests by what became of them, since the start; null: none are taken


class Circuit(msgspec.Struct):
    """Open while a destination is left alone but for one probe at a time."""

    open: bool
    since: float | None
    next_probe: float | None


class Books(msgspec.Struct):
    """balanced: received = delivered + dead_lettered + filtered + pending + lost, since the destination was
    added."""

    received: int
    delivered: int
    dead_lettered: int
    pending: int
    lost: int  # with a damaged journal
    balanced: bool
    filtered: int  # not asked for


class Finding(msgspec.Struct):
    """One thing tried at the start. passed: null when it could not be told."""

    what: str
    passed: bool | None
    cause: str


class Destination(msgspec.Struct):
    """state: delivering, ready, "not tried yet", "dead letters", retrying, behind, down, "needs you",
    restarting, removed, "books wrong"; level: good, watch, trouble. What has no "since the start" beside it
    is of this moment, or in the books."""

    name: str
    target: str  # where its events go
    state: str
    level: str
    heals_itself: bool  # it is not well, and nobody has to do anything
    why: str  # what is wrong, "" when nothing is
    to_do: str
    books: Books
    lag: float  # age of the oldest event that is not settled
    circuit: Circuit
    batches_in_flight: int
    batches_waiting: int
    attempts: int  # requests, since the start
    retries: int  # those that were not a batch's first, since the start
    unknown: int  # events that may have arrived and were sent again, since the start
    dead_letters: dict[str, int]  # by cause, since the start
    latest_dead_letters: dict[str, list[DeadLetter]]  # of each cause, newest first
    restarts: int  # since the start
    preflight: list[Finding]  # empty while it is not known
    last_error: str
    last_error_at: float | None


class Standby(msgspec.Struct):
    """What a standby holds. reaches_back_to: since when it has heard everything, null before its first
    stream; why_not: why it could not take over now, "" while nothing is known against it."""

    events: int
    bytes: int  # of memory
    max_bytes: int
    reaches_back_to: float | None
    why_not: str


class Status(msgspec.Struct):
    version: str
    at: float
    started_at: float
    level: str  # of the whole
    says: str
    feed: Feed
    journal_bytes: int
    journal_max_bytes: int
    journal_full_at: float | None  # at the present rate; null when nothing says that it will be
    proof: Proof | None  # null without --ledger_webhook
    destinations: list[Destination]  # none while it stands by
    standby: Standby | None  # null: this is the process that delivers


def status_json(snapshot: Snapshot) -> bytes:
    """The snapshot as JSON."""
    run, feed = verdict.of_run(snapshot), verdict.of_feed(snapshot)
    return msgspec.json.encode(
        Status(
            version=VERSION,
            at=snapshot.at,
            started_at=snapshot.started_at,
            level=run.level.value,
            says=run.text,
            feed=_feed(snapshot, feed),
            journal_bytes=snapshot.journal_bytes,
            journal_max_bytes=snapshot.journal_max_bytes,
            journal_full_at=snapshot.full_at,
            destinations=[_destination(item) for item in snapshot.destinations],
            proof=_proof(snapshot),
            standby=_standby(snapshot),
        )
    )


def _version() -> str:
    try:
        return metadata.version("grantex-beam")
    except metadata.PackageNotFoundError:
        return ""


VERSION = _version()
LISTED_GAPS = 5
_NO_CIRCUIT = Circuit(False, None, None)


def _feed(snapshot: Snapshot, feed: verdict.Verdict) -> Feed:
    return Feed(
        level=feed.level.value,
        doing=feed.text,
        received=snapshot.received,
        duplicates=snapshot.duplicates,
        dead_letters=snapshot.feed_dead_letters,
        connections_live=snapshot.live,
        connections_wanted=snapshot.connections_wanted,
        connections=[_connection(status, snapshot.at) for status in snapshot.connections],
        gaps=snapshot.gaps,
        gap_open=snapshot.gap_open,
        gap_seconds=snapshot.gap_seconds,
        latest_gaps=[gap_json(gap) for gap in snapshot.latest_gaps[:LISTED_GAPS]],
        written_dead_letters=dict(snapshot.letters),
        latest_dead_letters=_latest(snapshot.latest_letters),
        webhooks=None if snapshot.webhooks is None else dict(snapshot.webhooks),
    )


def gap_json(gap: intake.Gap) -> Gap:
    """For `/history.json` as well."""
    return Gap(gap.since, gap.until, verdict.said(gap.reason))


def _latest(letters: Mapping[str, Sequence[tuple[str, float]]]) -> dict[str, list[DeadLetter]]:
    return {cause: [DeadLetter(verdict.said(i), at) for i, at in each] for cause, each in letters.items()}


def _proof(snapshot: Snapshot) -> Proof | None:
    proof, found = snapshot.proof, verdict.of_proof(snapshot)
    if proof is None or found is None:
        return None
    return Proof(
        level=found.level.value,
        says=found.text,
        webhook=proof.webhook,
        since=proof.since,
        until=proof.until,
        missing=proof.missing,
        found=proof.found,
        not_covered=list(proof.not_covered),
        failure=verdict.said(proof.failure),
    )


def _standby(snapshot: Snapshot) -> Standby | None:
    held = snapshot.standing_by
    if held is None:
        return None
    return Standby(held.events, held.bytes, held.max_bytes, held.reaches_back_to, verdict.said(held.why_not))


def _connection(status: ConnectionStatus, now: float) -> Connection:
    return Connection(
        phase=status.phase.name.lower(),
        doing=verdict.of_connection(status),
        next_try=status.until,
        last_event_at=status.last_event_at,
        last_heard_at=status.last_heard_at,
        reconnects=status.reconnects,
        last_problem=verdict.said(status.last_problem),
        transport=status.transport,
        state=(status.state or State.of(status.phase)).value,
        age=None if status.live_since is None else max(0.0, now - status.live_since),
    )


def _destination(item: DestinationSnapshot) -> Destination:
    found, books = verdict.of_destination(item), item.books
    doing: DeliveryStatus | None = item.delivery
    circuit = doing.circuit if doing else None
    return Destination(
        name=item.name,
        target=verdict.said(item.target),
        state=found.state.value,
        level=found.level.value,
        heals_itself=found.heals_itself,
        why=found.why,
        to_do=found.to_do,
        books=Books(
            received=books.received,
            delivered=books.delivered,
            dead_lettered=books.dead_lettered,
            pending=books.pending,
            lost=books.lost,
            balanced=books.balanced,
            filtered=books.filtered,
        ),
        lag=item.lag,
        circuit=Circuit(circuit.open, circuit.since, circuit.next_probe) if circuit else _NO_CIRCUIT,
        batches_in_flight=doing.in_flight if doing else 0,
        batches_waiting=doing.waiting if doing else 0,
        attempts=doing.attempts if doing else 0,
        retries=doing.retries if doing else 0,
        unknown=doing.unknown if doing else 0,
        dead_letters=dict(doing.dead_lettered) if doing else {},
        latest_dead_letters=_latest(doing.latest_dead_letters) if doing else {},
        restarts=item.restarts,
        preflight=[
            Finding(each.what, each.passed, verdict.said(each.cause)) for each in item.preflight or ()
        ],
        last_error=verdict.said(doing.last_error) if doing else "",
        last_error_at=doing.last_error_at if doing else None,
    )
