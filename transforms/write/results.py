"""What an attempt gives to others: dead letters, the ledger's settlement, and a receipt."""

from __future__ import annotations

from collections.abc import Iterator

from transforms.dead_letter import DeadLetter
from transforms.write.contract import Receipt
from transforms.write.delivery.ledger import Settlement
from transforms.write.outbox.settling import Settled

# The output of a sink that has them; the other one is "delivered".
DEAD_LETTERS = "dead_letters"


def dead_letters(destination: str, settled: Settled, now: float) -> Iterator[DeadLetter]:
    """One dead letter for each rejected event; `now` in seconds since the epoch."""
    batch = settled.batch
    for index, reason in settled.rejected:
        event = batch.events[index]
        yield DeadLetter("write", destination, reason, event.raw, event.id, batch.attempts, now)


def settlement(settled: Settled) -> Settlement:
    """The outcome in journal offsets."""
    rejected = [index for index, _ in settled.rejected]
    return Settlement(settled.batch, settled.offsets(settled.delivered), settled.offsets(rejected))


def receipt(destination: str, settled: Settled) -> Receipt:
    """What was delivered."""
    batch = settled.batch
    events = batch.events
    ids = [events[index].id for index in settled.delivered]
    return Receipt(destination, batch.id, ids, batch.attempts)
