"""The journal's notes about itself: whose feed it holds, what a repair left to do."""

from __future__ import annotations

from transforms.feed.journal.database import Database, JournalError


def note(database: Database, key: str) -> object:
    """The note under `key`, or None."""
    rows = database.rows("SELECT value FROM meta WHERE key = ?", key)
    return rows[0][0] if rows else None


def set_note(database: Database, key: str, value: object) -> None:
    """Write a note; None removes it."""
    if value is None:
        database.write(lambda db: db.execute("DELETE FROM meta WHERE key = ?", (key,)))
    else:
        database.write(lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)))


def check_identity(database: Database, key: str, value: str, what: str) -> None:
    """Note whose journal this is at the first call. Raises JournalError when it was another's."""
    known = note(database, key)
    if known is None:
        set_note(database, key, value)
    elif known != value:
        raise JournalError(
            f"{database.path.parent} holds the journal of another {key} ({known}), this run {what} {value}: "
            "choose another --state_dir, so that two feeds are never mixed"
        )
