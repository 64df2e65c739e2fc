"""Three crashes in a row, and no id is in the archive twice: what kept seals are for."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import copy_files, event, events, open_journal, unsealed
from transforms.event import Batch
from transforms.feed.journal import Cursor, Journal
from transforms.write.delivery.ledger import Settlement

RUNS = 40
CRASHES = 3
EVENTS = 300


class Archive:
    """Objects by batch id, written once (`If-None-Match: *`); it outlives every crash."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[str, ...]] = {}

    def put(self, batch: Batch) -> None:
        content = tuple(taken.id for taken in batch.events)
        assert self.objects.setdefault(batch.id, content) == content, "one key, two contents"

    def counts(self) -> Counter[str]:
        return Counter(taken for content in self.objects.values() for taken in content)


def run_until(journal: Journal, archive: Archive, rng: random.Random, steps: int, seals_kept: bool) -> None:
    """A lane's life: recover, then seal, attempt and settle out of order, for `steps` writes."""
    cursor = journal.cursor("s3")
    flying = cursor.recover() if seals_kept else []
    waiting = list(unsealed(cursor, journal)) if seals_kept else whatever_is_past(cursor, journal)
    attempted: list[Batch] = []
    for _ in range(steps):
        size = rng.randint(5, 40)
        batches, waiting = _batch(waiting[:size]), waiting[size:]
        done = rng.sample(attempted, rng.randint(0, len(attempted)))
        cursor.commit([Settlement(batch, batch.offsets) for batch in done if batch.seal], batches)
        attempted = [batch for batch in attempted if batch not in done]
        flying += batches
        rng.shuffle(flying)
        for batch in [flying.pop() for _ in range(rng.randint(0, len(flying)))]:
            archive.put(batch)  # from here to its receipt a crash repeats it
            attempted.append(batch)


def whatever_is_past(cursor: Cursor, journal: Journal) -> list[tuple[int, object]]:
    """What a lane without seals would read again: everything from the cursor on."""
    return [
        (chunk.first + index, taken)
        for chunk in journal.read(cursor.position, 10**6)
        for index, taken in enumerate(chunk.events)
    ]


def _batch(pairs: list) -> list[Batch]:  # type: ignore[type-arg]
    return [Batch([e for _, e in pairs], [o for o, _ in pairs])] if pairs else []


def life_with_crashes(directory: Path, seed: int, seals_kept: bool) -> Counter[str]:
    rng = random.Random(seed)
    archive = Archive()
    directory.mkdir()
    place = directory / "0"
    journal = open_journal(place)
    journal.cursor("s3")
    journal.append(events(0, EVENTS), [])
    for crash in range(1, CRASHES + 1):
        run_until(journal, archive, rng, rng.randint(1, 6), seals_kept)
        copy_files(place, directory / str(crash))
        journal.close()
        place = directory / str(crash)
        journal = open_journal(place)
    run_until(journal, archive, rng, 400, seals_kept)
    if seals_kept:
        assert journal.books()["s3"].balanced
        assert journal.cursor("s3").position == EVENTS
    journal.close()
    return archive.counts()


@pytest.mark.slow
def test_with_kept_seals_no_run_puts_an_id_twice_into_the_archive(tmp_path: Path) -> None:
    for seed in range(RUNS):
        counts = life_with_crashes(tmp_path / str(seed), seed, seals_kept=True)
        assert counts == Counter(event(number).id for number in range(EVENTS))


def test_the_same_crashes_without_seals_would(tmp_path: Path) -> None:
    """The simulation can fail: it is the seals that make the difference."""
    doubled = 0
    for seed in range(8):
        counts = life_with_crashes(tmp_path / str(seed), seed, seals_kept=False)
        doubled += max(counts.values()) > 1
    assert doubled >= 6
