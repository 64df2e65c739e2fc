"""The feed's own dead letters stay in the journal until they are written: they may repeat, never vanish."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import copy_files, events, open_journal
from transforms.dead_letter import DeadLetter
from transforms.feed.intake import JournalFull


def letter(number: int) -> DeadLetter:
    return DeadLetter("feed", "", f"not_json: frame {number}", b"{%d" % number, at=1.5)


def test_a_letter_comes_back_until_it_is_dropped(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "a")
    letters = [letter(number) for number in range(3)]
    journal.append(events(0, 1), letters)
    assert [letter for _, letter in journal.dead_letters()] == letters

    crashed = open_journal(copy_files(tmp_path / "a", tmp_path / "b"))
    numbered = crashed.dead_letters()
    assert [letter for _, letter in numbered] == letters
    crashed.drop_dead_letters(numbered[1][0])
    crashed.close()
    crashed = open_journal(tmp_path / "b")
    assert [letter for _, letter in crashed.dead_letters()] == letters[2:]
    crashed.drop_dead_letters(crashed.dead_letters()[-1][0])
    assert crashed.dead_letters() == []
    for opened in (journal, crashed):
        opened.close()


def test_letters_come_a_hundred_at_a_time_in_order(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append([], [letter(number) for number in range(250)])
    found: list[DeadLetter] = []
    sizes = []
    while numbered := journal.dead_letters():
        sizes.append(len(numbered))
        found += [letter for _, letter in numbered]
        journal.drop_dead_letters(numbered[-1][0])
    assert found == [letter(number) for number in range(250)]
    assert sizes == [100, 100, 50]
    assert journal.feed_dead_letters == 250
    journal.close()


def test_large_ones_are_read_back_some_megabytes_at_a_time(tmp_path: Path) -> None:
    large = [DeadLetter("feed", "", f"too_large: {n}", bytes(3_000_000)) for n in range(7)]
    journal = open_journal(tmp_path)
    journal.append([], [large[0], DeadLetter("feed", "", "too_large: 10", bytes(9_000_000)), *large[1:]])
    journal.close()
    journal = open_journal(tmp_path)
    sizes = []
    while numbered := journal.dead_letters():
        sizes.append([len(found.raw) // 1_000_000 for _, found in numbered])
        journal.drop_dead_letters(numbered[-1][0])
    assert sizes == [[3], [9], [3, 3], [3, 3], [3, 3]]
    journal.close()


def test_they_count_among_what_the_journal_may_hold(tmp_path: Path) -> None:
    large = DeadLetter("feed", "", "too_large: frame", bytes(600_000))
    journal = open_journal(tmp_path, max_bytes=1_000_000)
    journal.append([], [large])
    assert 600_000 < journal.bytes < 601_000
    journal.append([], [large])
    with pytest.raises(JournalFull, match="journal_max_bytes"):
        journal.append(events(0, 1), [])
    journal.close()
    journal = open_journal(tmp_path, max_bytes=1_000_000)
    with pytest.raises(JournalFull, match="journal_max_bytes"):
        journal.append(events(0, 1), [])
    journal.drop_dead_letters(journal.dead_letters()[-1][0])
    assert journal.bytes == 0
    assert len(journal.append(events(0, 1), [])) == 1
    journal.close()
