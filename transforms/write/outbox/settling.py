"""What one attempt's outcome means for its batch: the parts of the outbox that remember nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from transforms.event import Batch
from transforms.write.contract import Outcome

# A service that asks for more than this is wrong or broken; it is asked again then.
RETRY_AFTER_CAP = 3600.0
# Different cause words that are counted apart, so that a custom writer cannot grow the metrics.
MAX_CAUSES = 50
_CAUSE = re.compile(r"([a-z][a-z0-9_]{0,39})(?::|$)")


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
    or, when `halves` are given, as these.
    """

    batch: Batch
    delivered: Sequence[int]
    rejected: list[tuple[int, str]]
    left: Batch | None = None
    halves: tuple[Batch, ...] = ()
    again: list[Entry] = field(default_factory=list)

    def offsets(self, indexes: Sequence[int]) -> list[int]:
        """The journal offsets of these events (none for a batch without offsets)."""
        offsets = self.batch.offsets
        if len(indexes) == len(offsets):  # all of them, the usual case
            return list(offsets)
        return [offsets[index] for index in indexes] if offsets else []


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


def asked_wait(outcome: Outcome) -> float:
    """Seconds the service asked for, within reason; 0.0 when it did not ask."""
    asked = outcome.retry_after or 0.0
    return min(asked, RETRY_AFTER_CAP) if asked > 0 else 0.0


def too_large(outcome: Outcome) -> str:
    """Why a single event became a dead letter."""
    return f"too_large: {outcome.cause or 'the service refused the event alone as too large'}"


def cause_word(reason: str) -> str:
    """The machine word that a reason begins with, or "rejected"."""
    word = _CAUSE.match(reason)
    return word.group(1) if word else "rejected"


def counted_as(reason: str, known: Collection[str]) -> str:
    """The word a reason is counted under, beside those `known` already; "other" when they are too many."""
    word = cause_word(reason)
    return word if word in known or len(known) < MAX_CAUSES else "other"


def worded(reason: str) -> str:
    """The reason, with a machine word in front where the writer gave none."""
    return reason if _CAUSE.match(reason) else f"rejected: {reason}"
