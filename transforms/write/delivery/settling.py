"""What one attempt's outcome means for its batch: the parts of the outbox that remember nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from transforms.dead_letter import DeadLetter
from transforms.event import Batch, EventIds, Receipt
from transforms.retry import MAX_RETRY_AFTER
from transforms.secret import redact, shown
from transforms.write.contract import Outcome
from transforms.write.delivery.ledger import Settlement


@dataclass(slots=True)
class Entry:
    """A sealed batch on its way. `order` is its place in line; a half keeps its batch's place."""

    order: tuple[int, ...]
    batch: Batch
    size: int
    failures: int = 0
    due: float = 0.0


@dataclass(slots=True)
class Settled:
    """What one attempt came to: indexes into `batch.events`, and what must be tried again.

    `left` is the attempted batch with only its unsettled events; it is tried again after `recorded`, whole
    or, when `halves` are given, as these; `error` is why.
    """

    batch: Batch
    delivered: Sequence[int]
    rejected: list[tuple[int, str]]
    left: Batch | None = None
    halves: tuple[Batch, ...] = ()
    again: list[Entry] = field(default_factory=list)
    error: str = ""

    def offsets(self, indexes: Sequence[int]) -> Sequence[int]:
        """The journal offsets of these events (none for a batch without offsets)."""
        if not indexes:
            return ()
        offsets = self.batch.offsets
        if len(indexes) == len(offsets):  # all of them, the usual case
            return offsets
        return [offsets[index] for index in indexes] if offsets else []


@dataclass(slots=True)
class Verdict:
    """What became of an attempt's refused events, as indexes of its batch.

    rejected: dead letters now, with the reason. suspected: kept, as the destination may refuse everything;
    `why` it refused the last of them. beyond: to blame, and kept because of the limit.
    """

    rejected: list[tuple[int, str]] = field(default_factory=list)
    suspected: list[int] = field(default_factory=list)
    beyond: list[int] = field(default_factory=list)
    why: str = ""


def part(batch: Batch, indexes: list[int], batch_id: str = "") -> Batch:
    """The events of `batch` at `indexes`: the same batch shrunk when given its id, else a new one."""
    return replace(
        batch,
        events=[batch.events[index] for index in indexes],
        offsets=[batch.offsets[index] for index in indexes] if batch.offsets else (),
        id=batch_id,
        seal=batch.seal if batch_id else 0,
        memo=batch.memo if batch_id else None,
    )


def check(name: str, batch: Batch, outcome: Outcome) -> None:
    """Raises ValueError when an outcome names events that are not there, or contradicts itself."""
    count = len(batch.events)
    named = [*outcome.rejected, *outcome.later]
    wrong = [index for index in named if not (isinstance(index, int) and 0 <= index < count)]
    if wrong:
        raise ValueError(f"{name}: the writer's outcome names event {wrong[0]!r} of a batch of {count}")
    both = outcome.rejected.keys() & set(outcome.later)
    if both:
        raise ValueError(f"{name}: the writer's outcome calls event {min(both)} both rejected and later")
    if not outcome.later and (
        outcome.too_large or outcome.unknown or (outcome.blocked and not outcome.rejected)
    ):
        raise ValueError(
            f"{name}: the writer's outcome says too_large, unknown or blocked, but names no event as later, "
            "which would count all of them as delivered"
        )


# No message of ours is longer; a writer of somebody else's may quote whatever its service said.
MOST_SAID = 2000


def in_bounds(outcome: Outcome) -> Outcome:
    """The outcome with words that a log line, a page and a file may show."""
    words = (outcome.cause, *outcome.rejected.values())
    if all(len(each) <= MOST_SAID and each.isprintable() and redact(each) == each for each in words):
        return outcome
    rejected = {index: shown(reason, MOST_SAID) for index, reason in outcome.rejected.items()}
    return replace(outcome, cause=shown(outcome.cause, MOST_SAID), rejected=rejected)


def asked_wait(outcome: Outcome) -> float:
    """Seconds the service asked for, within reason; 0.0 when it did not ask."""
    asked = outcome.retry_after or 0.0
    return min(asked, MAX_RETRY_AFTER) if asked > 0 else 0.0


def too_large(outcome: Outcome) -> str:
    """Why a single event became a dead letter."""
    return f"too_large: {outcome.cause or 'the service refused the event alone as too large'}"


# The output of a sink that has them; the other one is "delivered".
DEAD_LETTERS = "dead_letters"


def dead_letters(destination: str, settled: Settled, now: float) -> Iterator[DeadLetter]:
    """One dead letter for each rejected event; `now` in seconds since the epoch."""
    batch = settled.batch
    for index, reason in settled.rejected:
        event = batch.events[index]
        yield DeadLetter("write", destination, reason, event.raw, event.id, batch.attempts, now)


def place_of(batch: Batch) -> str:
    """Its place, with words that a page may show."""
    place = batch.place
    return place if len(place) <= MOST_SAID and place.isprintable() else shown(place, MOST_SAID)


def settlement(settled: Settled, now: float) -> Settlement:
    """The outcome in journal offsets; `now` in seconds since the epoch."""
    rejected = [index for index, _ in settled.rejected]
    return Settlement(
        settled.batch,
        settled.offsets(settled.delivered),
        settled.offsets(rejected),
        at=now,
        place=place_of(settled.batch),
        causes=[reason for _, reason in settled.rejected],
        error=settled.error,
    )


def receipt(destination: str, settled: Settled, now: float) -> Receipt:
    """What was delivered; `now` in seconds since the epoch."""
    batch = settled.batch
    ids = EventIds(batch.events, settled.delivered)
    return Receipt(destination, batch.id, ids, batch.attempts, now, place_of(batch))
