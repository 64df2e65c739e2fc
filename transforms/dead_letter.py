"""Dead letters: rejected events with their original bytes and cause, and how each is a line of NDJSON."""

from __future__ import annotations

import base64
import re
import threading
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone

import msgspec

from transforms.event import Event


def id_conflict(event: Event, now: float) -> DeadLetter:
    """An event whose id came before with other bytes."""
    return DeadLetter(
        stage="feed",
        destination="",
        cause="id_conflict: this id came before with other bytes; the first ones were delivered",
        raw=event.raw,
        event_id=event.id,
        at=now,
    )


# Different cause words that are counted apart, so that a custom writer cannot grow the metrics.
MAX_CAUSES = 50
_CAUSE = re.compile(r"([a-z][a-z0-9_]{0,39})(?::|$)")


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


LATEST = 5  # of each cause, whose ids are shown


class Tally:
    """Dead letters by the first word of their cause: how many, and the latest of each, for a person. It
    keeps ids and times and nothing else of them, and is bounded. Safe for threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._latest: dict[str, deque[tuple[str, float]]] = {}

    def add(self, reason: str, event_id: str, at: float) -> None:
        """Count one; `at` in the caller's seconds."""
        with self._lock:
            cause = counted_as(reason, self.counts)
            self.counts[cause] += 1
            self._latest.setdefault(cause, deque(maxlen=LATEST)).append((event_id, at))

    def latest(self, ahead: float = 0.0) -> Mapping[str, Sequence[tuple[str, float]]]:
        """Event id ("" for what has none) and time of the latest of each cause, newest first; `ahead` is
        added to the times."""
        with self._lock:
            found = {cause: list(each) for cause, each in self._latest.items()}
        return {cause: [(i, at + ahead) for i, at in reversed(each)] for cause, each in found.items()}


class DeadLetterError(Exception):
    """A dead letter could not be made safe; its event stays undelivered and comes again."""


class DeadLetter(msgspec.Struct, frozen=True):
    """One event or frame that no retry can deliver, kept so that a person can replay it."""

    stage: str  # "feed" or "write"
    destination: str  # "" for the feed
    cause: str  # machine word, then detail: "not_json: unexpected character at byte 3"
    raw: bytes  # the original bytes
    event_id: str = ""
    attempts: int = 0
    at: float = 0.0  # seconds since the epoch


class _Line(msgspec.Struct, omit_defaults=True):
    """A dead letter as a line of NDJSON. `raw` when the bytes are UTF-8, else `raw_base64`."""

    destination: str
    stage: str
    cause: str
    attempts: int
    at: datetime
    event_id: str
    raw: str | None = None
    raw_base64: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


def encode(letter: DeadLetter, now: float) -> bytes:
    """The letter as a line of NDJSON, without its end; `now` (epoch) stands for a time it does not have."""
    at = datetime.fromtimestamp(letter.at or now, timezone.utc)
    line = _Line(letter.destination, letter.stage, letter.cause, letter.attempts, at, letter.event_id)
    try:
        line.raw = letter.raw.decode()
    except UnicodeDecodeError:
        line.raw_base64 = base64.b64encode(letter.raw).decode()
    return msgspec.json.encode(line)


def decode(text: bytes) -> DeadLetter | None:
    """The letter that a line holds; None when the line is torn or no letter."""
    try:
        line = _decode(text)
        raw = base64.b64decode(line.raw_base64) if line.raw_base64 else (line.raw or "").encode()
    except (msgspec.DecodeError, ValueError):
        return None
    at = line.at.timestamp()
    return DeadLetter(line.stage, line.destination, line.cause, raw, line.event_id, line.attempts, at)
