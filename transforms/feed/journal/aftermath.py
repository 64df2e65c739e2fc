"""What a repaired journal still has to do: a gap on record, every cursor past what is lost."""

from __future__ import annotations

from collections.abc import Mapping

from transforms.feed.journal.chunks import ChunkStore
from transforms.feed.journal.cursor import Cursor
from transforms.feed.journal.database import Database
from transforms.feed.journal.gaps import GapLog
from transforms.feed.journal.meta import note, set_note


def settle_damage(
    database: Database, gaps: GapLog, chunks: ChunkStore, cursors: Mapping[str, Cursor]
) -> int | None:
    """Draw the consequences of a repair, if there was one; done again when the process dies in it.

    Returns the offset from which events belong to nobody, because the cursors were lost: those that are
    born now begin there. None as a rule.
    """
    written = note(database, "salvaged")
    if written is not None:
        gaps.heard_by(float(str(written)))
        gaps.begin("the journal was damaged", None)
        for cursor in cursors.values():
            cursor.lose(chunks.missing(cursor.position))
        if not cursors:  # or what was read would belong to nobody and be trimmed
            set_note(database, "orphans", chunks.trimmed)
        set_note(database, "salvaged", None)
    elif cursors:
        set_note(database, "orphans", None)
    orphans = note(database, "orphans")
    return None if orphans is None else int(str(orphans))
