"""What a process knows of its keys' state, so that it need not be read again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from transforms.write.keyed.backlog import Backlog, Opened
from transforms.write.keyed.inbox import Inbox
from transforms.write.keyed.packing import Remembered
from transforms.write.keyed.state import BeamState, InboxEvents, KeyState

# What is known of all keys of a destination, packed, and what each of them and each part takes beside.
KNOWN_BYTES = 4_000_000
OVERHEAD = 200


@dataclass(frozen=True)
class _Known:
    """parts: what is in the inbox, and `count` how many they were; None when that is not known.
    opened: of blocks, by cell."""

    version: bytes
    parts: list[InboxEvents] | None
    count: int
    opened: Mapping[int, Opened]

    @property
    def size(self) -> int:
        inbox = sum([len(part.body) + OVERHEAD for part in self.parts or ()])
        blocks = sum([each.size + OVERHEAD for opened in self.opened.values() for each in opened.batches])
        return OVERHEAD + inbox + blocks


class KnownKeys:
    """Inboxes and beginnings of blocks of a destination's keys. Safe for threads.

    They are known by the version of the key's state, which is written with what its bundle did to them, and
    never again: a bundle that failed, or another process in between, leaves another version.
    """

    def __init__(self) -> None:
        self._known: Remembered[_Known] = Remembered(KNOWN_BYTES)

    def open(self, key: str, beam_state: BeamState, key_state: KeyState) -> tuple[Inbox, Backlog]:
        """A key's inbox and backlog, as a bundle finds them."""
        known = self._known.get(key)
        if known is None or known.version != key_state.version:
            return Inbox(beam_state.inbox, key_state), Backlog(beam_state.cells, key_state)
        parts = known.parts
        if parts is not None and len(parts) != known.count:
            parts = parts[: known.count]  # what a bundle that failed has added is not there
        return Inbox(beam_state.inbox, key_state, parts), Backlog(beam_state.cells, key_state, known.opened)

    def keep(self, key: str, inbox: Inbox, backlog: Backlog, key_state: KeyState) -> None:
        """The bundle leaves the key's state so; gives it its version."""
        key_state.version = os.urandom(8)
        known = _Known(key_state.version, inbox.known, len(inbox.known or ()), backlog.known)
        self._known.put(key, known, known.size)
