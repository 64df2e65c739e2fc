"""Dead letters read again: from a directory or an object store, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from transforms.dead_letter import DeadLetter, decode
from transforms.write.dead_letters import file, objects


def read_dead_letters(directory: str | Path) -> Iterator[DeadLetter]:
    """The dead letters of a directory, or of a prefix "gs://…" or "s3://…", oldest first.

    Torn lines are skipped, and so is what a crash made appear again: the same event of the same
    destination, or for the feed the same bytes (two frames with one id are two dead letters).
    """
    place = str(directory)
    lines = objects.lines_under(place) if objects.is_prefix(place) else file.lines_in(Path(place))
    seen: set[tuple[str, str, str | bytes]] = set()
    for line in lines:
        letter = decode(line)
        if letter is None:
            continue
        by_id = letter.stage == "write" and letter.event_id
        digest = hashlib.blake2b(letter.raw, digest_size=16).digest()
        key = (letter.stage, letter.destination, letter.event_id if by_id else digest)
        if key not in seen:
            seen.add(key)
            yield letter
