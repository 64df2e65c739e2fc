"""How much a delivery takes in ahead of its destination: the bound on what an outage keeps in memory."""

from __future__ import annotations

from transforms.batch import BatchPolicy

# Enough to keep the writers busy between two ticks, whatever the size of a batch.
MAX_UNSETTLED_BATCHES = 64
# As Python objects twice as much; each destination that is away holds so much of its own, whatever waits
# for it in the journal. Two files or S3 objects of 10,000 events, one on its way and one to follow.
MAX_UNSETTLED_BYTES = 6_000_000
# An event of the feed is about so long; used until events have been seen.
USUAL_BYTES = 300.0


def max_unsettled(concurrency: int) -> int:
    """The most batches, sealed or about to be, that may be unsettled before reading pauses."""
    return max(MAX_UNSETTLED_BATCHES, 4 * concurrency)


def room(
    policy: BatchPolicy, max_batches: int, batches: int, size: int, mean: float, *, waiting: bool
) -> int:
    """How many more events may be taken in; 0 means wait for the writers.

    batches, size: how many and how many bytes are unsettled now. mean: bytes an event, 0 when none has
    been seen. waiting: whether anything is unsettled: if not, there is room for one batch at least.
    """
    mean = mean or USUAL_BYTES
    capacity = min(max_batches * policy.max_events, int(MAX_UNSETTLED_BYTES / mean))
    free = min((max_batches - batches) * policy.max_events, int((MAX_UNSETTLED_BYTES - size) / mean))
    if not waiting:
        return max(free, max(1, min(policy.max_events, int(policy.max_bytes / mean))))
    # Rather wait until half is free than creep along the limit with a bundle for every batch: a bundle
    # costs as much as delivering several.
    return free if free >= capacity / 2 else 0
