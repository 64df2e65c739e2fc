"""Finds events in the receipts that a job on a cluster wrote to --receipts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone

from transforms.feed.journal.id_blocks import Wanted
from transforms.feed.journal.receipts import Found, Standing
from transforms.write.receipt_objects import read_receipts


def find(prefix: str, ids: Iterable[str]) -> Iterator[Found]:
    """What the receipts say of each id, in the order given. Raises BeamIOError."""
    texts = list(ids)
    wanted, found = set(texts), {each: dict[str, Standing]() for each in texts}
    for line in read_receipts(prefix, _first_day(texts)):
        for event_id in wanted.intersection(line.ids):
            standing = Standing(line.state, line.at, line.place, line.cause, line.attempts)
            before = found[event_id].get(line.destination)
            if before is None or before.state != "delivered":  # a bundle that came again says it again
                found[event_id][line.destination] = standing
    for each in texts:
        yield Found(each, destinations=dict(sorted(found[each].items())))


def _first_day(ids: list[str]) -> str:
    """The day (UTC) before the oldest of the ids was made: nothing was delivered earlier."""
    times = Wanted(ids).milliseconds
    if len(times) < len(set(ids)):
        return ""  # of some nobody can tell
    oldest = datetime.fromtimestamp(min(times.values(), default=0) / 1000, timezone.utc)
    return f"{oldest - timedelta(days=1):%Y-%m-%d}"
