"""What is found at the end: lines in files, dead letters, and every event that the journal ever accepted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from transforms.event import Event
from transforms.feed.journal import Journal

# A destination that nobody delivers to: its cursor never moves, so the journal keeps every event accepted.
WITNESS = "witness"


def lines_in_files(directory: Path) -> list[bytes]:
    """Every line of the archive, in no particular order."""
    lines: list[bytes] = []
    for path in sorted(directory.glob("dt=*/hour=*/*.ndjson.gz")):
        lines += gzip.decompress(path.read_bytes()).splitlines()
    return lines


def ids_in_files(directory: Path) -> list[str]:
    """Every event id in the archive."""
    return [json.loads(line)["id"] for line in lines_in_files(directory)]


def call_witness(state: Path, feed_url: str) -> None:
    """Make the journal, with a destination for which it keeps everything. Before the first start."""
    journal = Journal(state, feed_url=feed_url)
    journal.cursor(WITNESS)
    journal.close()


def accepted(state: Path, feed_url: str) -> list[Event]:
    """Every event that the journal took since `call_witness`, in order; checks that the books balance."""
    journal = Journal(state, feed_url=feed_url)
    try:
        for name, books in journal.books().items():
            assert books.balanced, f"the books of {name} do not balance: {books}"
        position = journal.cursors[WITNESS].position
        found = list(_events(journal, position))
        assert len(found) == journal.books()[WITNESS].received
        return found
    finally:
        journal.close()


def _events(journal: Journal, position: int) -> Iterator[Event]:
    while position < journal.end:
        for chunk in journal.read(position, 5_000):
            yield from chunk.events
            position = chunk.end
