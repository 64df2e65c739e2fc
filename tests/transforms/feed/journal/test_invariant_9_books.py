"""From a cursor's birth on, received = delivered + dead-lettered + pending after every step."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.transforms.feed.journal.random_lane import RandomLane
from tests.transforms.feed.journal.support import events, open_journal
from transforms.feed.journal import Books


@pytest.mark.parametrize("seed", range(6))
def test_the_books_balance_after_every_step_of_a_random_history(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    journal = open_journal(tmp_path)
    lanes = [RandomLane(journal, "first", rng)]
    for step in range(150):
        if rng.random() < 0.3:
            end = journal.end + rng.randint(1, 80)
            for lane in lanes:
                lane.truth.end = end
            journal.append([*events(journal.end, end), *events(0, min(3, journal.end))], [])
        if step % 50 == 20:
            lanes.append(RandomLane(journal, f"born-at-{step}", rng))
        rng.choice(lanes).step()
        if rng.random() < 0.2:
            journal.trim()
        for lane in lanes:
            truth, books = lane.truth, journal.books()[lane.cursor.name]
            assert books.balanced
            assert books == Books(
                received=journal.end - truth.born,
                delivered=len(truth.delivered),
                dead_lettered=len(truth.dead),
                pending=journal.end
                - truth.born
                - sum(map(len, (truth.delivered, truth.dead, truth.filtered))),
                filtered=len(truth.filtered),
            )
    before = journal.books()
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.books() == before
    journal.close()


def test_pending_is_counted_by_itself_so_that_a_wrong_total_shows(tmp_path: Path) -> None:
    assert not Books(received=10, delivered=5, dead_lettered=0, pending=4).balanced
    assert Books(received=10, delivered=5, dead_lettered=0, pending=4, lost=1).balanced
    assert Books(received=10, delivered=5, dead_lettered=0, pending=4, filtered=1).balanced
