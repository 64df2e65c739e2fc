"""Until when every event is accounted for, and which are missing: in the journal, so each is told once."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from transforms.dead_letter import DeadLetter
from transforms.feed.journal.database import Database, note, put_note
from transforms.feed.journal.letters import FeedLetters
from transforms.structs import ready

NOTE, MISSING_NOTE = "ledger", "ledger_missing"
MOST = 10_000  # missing ids that are looked for again; of more, the oldest are not
T = TypeVar("T")


@ready
class Proof(msgspec.Struct, frozen=True):
    """What a walk of the ledger came to. Times are epoch seconds by the service's clock.

    Each event of the webhook's types from `since` to `until` was received, or is among the `missing` (counted
    from the first walk on); of those `found` came after all.
    """

    webhook: str = ""
    since: float = 0.0
    until: float = 0.0
    missing: int = 0
    found: int = 0


class ProofLog:
    """The journal's record of the proof. The journal's lock guards all calls."""

    def __init__(self, database: Database, letters: FeedLetters) -> None:
        self._database, self._letters = database, letters
        self.proof = _read(note(database, NOTE), Proof) or Proof()
        self.missing: list[str] = _read(note(database, MISSING_NOTE), list[str]) or []  # oldest first

    def keep(self, proof: Proof, letters: Sequence[DeadLetter], found: Collection[str]) -> None:
        """Record it and what is new: `letters` of missing events, ids that were missing and are `found`."""
        missing = [each for each in self.missing if each not in found]
        missing = (missing + [letter.event_id for letter in letters])[-MOST:]
        changed = missing != self.missing

        def also(connection: sqlite3.Connection) -> None:
            put_note(connection, NOTE, _encode(proof))
            if changed:
                put_note(connection, MISSING_NOTE, _encode(missing))

        self._letters.keep(letters, also)
        self.proof, self.missing = proof, missing


def missing_letter(
    event_id: str, event_type: str, created_at: str, now: float, unheard: str = ""
) -> DeadLetter:
    """A published event that nobody of ours received; the ledger has no payload.

    unheard: why the feed was not heard then, "" when it was.
    """
    heard = f"while the feed was not heard ({unheard})" if unheard else "although the feed was being heard"
    cause = f"missing: published {created_at or 'at a time not told'} and never received, {heard}"
    # No `id`: it must not be taken for the event itself by whoever replays dead letters.
    record = {"event_id": event_id, "event_type": event_type, "created_at": created_at}
    return DeadLetter("feed", "", cause, msgspec.json.encode(record), event_id, at=now)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: object, kind: type[T]) -> T | None:
    """A note that another version wrote otherwise, or that is not there, is none."""
    try:
        return msgspec.json.decode(str(text), type=kind)
    except msgspec.MsgspecError:
        return None
