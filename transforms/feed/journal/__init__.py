"""The journal: durable offsets for a feed that has none."""

from transforms.feed.intake import Gap
from transforms.feed.journal.cursor import Books, Cursor
from transforms.feed.journal.database import (
    DirectoryInUse,
    JournalDamaged,
    JournalError,
    JournalUnavailable,
    NewerSchema,
)
from transforms.feed.journal.journal import Journal

__all__ = [
    "Books",
    "Cursor",
    "DirectoryInUse",
    "Gap",
    "Journal",
    "JournalDamaged",
    "JournalError",
    "JournalUnavailable",
    "NewerSchema",
]
