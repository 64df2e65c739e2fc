"""A journal that an older schema wrote, caught by kill -9 at work, opens and is drained to the last event."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import tarfile
from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.transforms.feed.journal.random_lane import Sealed, Truth
from tests.transforms.feed.journal.support import events, open_journal, unsealed
from transforms.dead_letter import DeadLetter
from transforms.event import Batch
from transforms.feed.journal import Gap, Journal
from transforms.feed.journal.receipts import Receipts
from transforms.feed.journal.schema import VERSION
from transforms.write.delivery.ledger import Settlement

DATA = Path(__file__).parent / "data"  # made by make_old_version.py there


@pytest.fixture(params=[1, 2])
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The old journal's directory."""
    with tarfile.open(DATA / f"version_{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / f"version_{request.param}"


def truth_of(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place / "truth.json").read_bytes())
    content["letters"] = [
        msgspec.msgpack.decode(b64decode(text), type=DeadLetter) for text in content["letters"]
    ]
    content["gaps"] = [Gap(**gap) for gap in content["gaps"]]
    content["lanes"] = {
        name: Truth(
            lane["born"],
            content["end"],
            set(lane["delivered"]),
            set(lane["dead"]),
            {
                int(number): Sealed(
                    **{
                        **seal,
                        "left": tuple(seal["left"]),
                        "memo": b64decode(seal["memo"]) if seal["memo"] else None,
                    }
                )
                for number, seal in lane["sealed"].items()
            },
        )
        for name, lane in content["lanes"].items()
    }
    return content


def drain(journal: Journal, name: str) -> None:
    cursor = journal.cursor(name)
    batches = cursor.recover()
    rest = list(unsealed(cursor, journal))
    fresh = [Batch([found for _, found in rest], [offset for offset, _ in rest])] if rest else []
    cursor.commit([Settlement(batch, batch.offsets) for batch in batches], fresh)
    cursor.commit([Settlement(batch, batch.offsets) for batch in fresh], [])
    assert (cursor.position, cursor.pending) == (journal.end, 0)
    assert journal.books()[name].balanced


def test_all_of_it_is_there_and_is_drained(old: Path) -> None:
    truth = truth_of(old)
    for _ in range(2):  # the first start makes it a present one, the second finds that
        journal = open_journal(old)
        assert not list(old.glob("journal.damaged*"))
        assert (journal.end, journal.gaps()) == (truth["end"], truth["gaps"])
        assert [letter for _, letter in journal.dead_letters()] == truth["letters"]
        for name, lane in truth["lanes"].items():
            lane.check(journal, journal.cursor(name))
        idle = journal.cursor("idle")
        assert [idle.born, idle.pending] == truth["idle"]
        assert len(journal.append(events(2_900, 3_000, 12), [])) == 0, "their ids are known"
        journal.close()
    assert version_of(old) == VERSION
    journal = open_journal(old)
    for name in ("s3", "kafka", "idle"):
        drain(journal, name)
    journal.trim()
    assert len(journal.append(events(3_000, 3_010), [])) == 10
    journal.close()
    journal = open_journal(old)
    assert [books.pending for books in journal.books().values()] == [10, 10, 10]
    assert not list(old.glob("journal.damaged*"))
    journal.close()


def test_what_it_held_is_found_and_what_it_had_forgotten_is_not_called_never_received(old: Path) -> None:
    truth = truth_of(old)
    journal = open_journal(old, receipt_retention=86_400.0)
    trimmed = journal._chunks.trimmed
    drain(journal, "s3")
    with contextlib.closing(Receipts(old)) as receipts:
        found = list(receipts.find(f"evt_{number:08d}" for number in range(truth["end"])))
    assert [each.expired for each in found] == [number < trimmed for number in range(truth["end"])]
    settled = truth["lanes"]["s3"].delivered | truth["lanes"]["s3"].dead
    for number, each in enumerate(found[trimmed:], trimmed):
        if number < journal.cursor("s3").born:
            assert "s3" not in each.destinations
            continue
        state = each.destinations["s3"].state
        assert state == ("not_kept" if number in settled else "delivered")
        assert each.destinations["idle"].state == "pending"
    journal.close()


def version_of(place: Path) -> int:
    with contextlib.closing(sqlite3.connect(place / "journal.sqlite3")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@pytest.mark.parametrize("page", [0, 5, 9, 14, 20])
def test_a_damaged_one_is_repaired_into_a_present_one(old: Path, page: int) -> None:
    with open(old / "journal.sqlite3", "r+b") as file:
        file.seek(page * 4096)
        file.write(random.Random(page).randbytes(4096))
    journal = open_journal(old)
    for name in ("s3", "kafka", "idle"):
        drain(journal, name)
    journal.close()
    journal = open_journal(old)
    assert len([found for found in old.glob("journal.damaged-*") if "." not in found.name[8:]]) <= 1
    assert version_of(old) == VERSION
    journal.close()
