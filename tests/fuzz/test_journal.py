"""300 random damages and 20 kills during repair: a journal always starts (`make fuzz-journal` for more)."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import journal as fuzz

pytestmark = pytest.mark.slow

BLOCK = 50


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> list[fuzz.Truth]:
    return fuzz.make_truths(tmp_path_factory.mktemp("truths"))


@pytest.mark.parametrize("first", range(0, 300, BLOCK))
def test_damages(truths: list[fuzz.Truth], first: int) -> None:
    kinds = Counter(fuzz.one(truths, seed) for seed in range(first, first + BLOCK))
    assert sum(kinds.values()) == BLOCK
    assert len(kinds) > len(fuzz.DAMAGES) / 2


def test_kills_during_repair(truths: list[fuzz.Truth]) -> None:
    for seed in range(500_000, 500_020):
        fuzz.one(truths, seed, kill=True)


def test_the_fuzzer_sees_a_seal_that_was_forgotten(
    truths: list[fuzz.Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would prove nothing: without the checks at the start it must fail."""
    monkeypatch.setattr("transforms.feed.journal.repair.check", lambda _: None)

    def forget(place: Path, _: object) -> None:
        with contextlib.closing(sqlite3.connect(place / fuzz.DATABASE, isolation_level=None)) as connection:
            connection.execute("DELETE FROM seals WHERE settled != x''")

    monkeypatch.setattr(fuzz, "DAMAGES", {"a row deleted": forget})
    for seed in range(5):
        with pytest.raises(fuzz.Failure, match=r"do not balance|twice"):
            fuzz.one(truths, seed)
