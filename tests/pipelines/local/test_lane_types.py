"""A lane whose destination asks for some types only: what it is sent, and what its books and receipts say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local.lane import Lane
from tests.pipelines.local.test_lane import FEED, end, eventually, lane
from tests.pipelines.practice.remembering import Other, Remembering, Taken
from transforms.event import Chunk, Event
from transforms.feed.journal import Journal
from transforms.feed.journal.receipts import Receipts
from transforms.write.asked import Asked
from transforms.write.delivery.delivery import Delivery

GRANTS = Asked(types=("grant.*", "!grant.revoked"))
TYPES = ("grant.created", "token.issued", "grant.revoked", "grant.suspended", "budget.exhausted")


def of_all_types(start: int, stop: int) -> list[Event]:
    return [
        Event(f"evt_{n:05d}", TYPES[n % 5], "2026-03-01T12:00:00Z", b'{"n":%d}' % n)
        for n in range(start, stop)
    ]


def tokens(start: int, stop: int) -> list[Event]:
    return [Event(f"evt_{n:05d}", "token.issued", "", b"{}") for n in range(start, stop)]


def opened(place: Path) -> Journal:
    return Journal(place / "state", feed_url=FEED, receipt_retention=3600.0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = opened(tmp_path)
    yield made
    made.close()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each chunk had that went through a graph."""
    seen: list[int] = []
    original = Delivery.add_chunk

    def add(self: Delivery, chunk: Chunk, window_end: float = 0.0) -> None:
        seen.append(len(chunk.events))
        original(self, chunk, window_end)

    monkeypatch.setattr(Delivery, "add_chunk", add)
    return seen


def drained(one: Lane) -> None:
    end(one)
    assert one.drained


def test_each_lane_is_sent_what_it_asks_for_and_its_books_and_receipts_tell_of_the_rest(
    journal: Journal, tmp_path: Path
) -> None:
    some, everything = Taken(), Taken()
    lanes = [
        lane(journal, Remembering(some, asked=GRANTS), tmp_path / "letters"),
        lane(journal, Other(everything), tmp_path / "letters"),
    ]
    for one in lanes:
        one.start()
    for start in range(0, 100, 10):
        journal.append(of_all_types(start, start + 10), [])
    assert everything.wait_for(100)
    assert some.wait_for(40)
    for one in lanes:
        drained(one)

    sent = of_all_types(0, 100)
    asked = [each.id for each in sent if each.type in ("grant.created", "grant.suspended")]
    assert sorted(some.ids) == asked
    assert sorted(everything.ids) == [each.id for each in sent]
    books = journal.books()
    assert (books["shelved"].delivered, books["shelved"].filtered, books["shelved"].pending) == (40, 60, 0)
    assert (books["other"].delivered, books["other"].filtered) == (100, 0)
    assert all(each.balanced for each in books.values())
    with contextlib.closing(Receipts(tmp_path / "state")) as receipts:
        found = {each.id: each.destinations for each in receipts.find(each.id for each in sent)}
    states = {name: each["shelved"].state for name, each in found.items()}
    assert states == {each.id: "delivered" if each.id in asked else "filtered" for each in sent}
    assert all(each["shelved"].at for each in found.values())
    assert {each["other"].state for each in found.values()} == {"delivered"}


def test_what_is_not_asked_for_goes_through_no_graph_and_is_settled_within_a_second_or_two(
    journal: Journal, tmp_path: Path, passes: list[int]
) -> None:
    taken = Taken()
    one = lane(journal, Remembering(taken, asked=GRANTS), tmp_path / "letters")
    one.start()
    journal.append(tokens(0, 3000), [])
    assert eventually(lambda: journal.cursors["shelved"].position == 3000, 10)
    assert passes == []
    journal.append(of_all_types(3000, 3005), [])
    assert taken.wait_for(2)
    journal.append(tokens(3005, 3010), [])
    assert eventually(lambda: journal.cursors["shelved"].position == 3010, 10)
    assert passes == [5]
    drained(one)
    books = journal.books()["shelved"]
    assert (books.delivered, books.filtered) == (2, 3008)


def test_what_was_filtered_stays_so_when_a_later_run_asks_for_it(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    away = Taken(down=True)
    one = lane(journal, Remembering(away, asked=GRANTS), tmp_path / "letters")
    one.start()
    journal.append(of_all_types(0, 10), [])
    assert away.wait_for_attempts(1)
    assert eventually(lambda: journal.books()["shelved"].filtered == 6, 10)
    end(one, within=0.1)
    assert not one.drained
    assert journal.cursors["shelved"].position == 0
    before = journal.books()
    journal.close()

    again = opened(tmp_path)
    assert again.books() == before
    back = Taken()
    one = lane(again, Remembering(back), tmp_path / "letters")
    one.start()
    again.append(of_all_types(10, 15), [])
    assert back.wait_for(4 + 5)
    drained(one)
    books = again.books()["shelved"]
    assert (books.delivered, books.filtered, books.pending, books.balanced) == (9, 6, 0, True)
    assert set(back.ids) == {"evt_00000", "evt_00003", "evt_00005", "evt_00008"} | {
        f"evt_{n:05d}" for n in range(10, 15)
    }
    again.close()


def test_a_destination_that_is_away_leaves_one_seal_for_all_that_was_filtered_meanwhile(
    journal: Journal, tmp_path: Path
) -> None:
    away = Taken(down=True)
    one = lane(journal, Remembering(away, asked=GRANTS), tmp_path / "letters")
    one.start()
    journal.append(of_all_types(0, 5), [])
    assert away.wait_for_attempts(1)
    for start in range(5, 25, 5):
        journal.append(tokens(start, start + 5), [])
        assert eventually(lambda start=start: journal.books()["shelved"].filtered == 3 + start, 10)  # type: ignore[misc]
    seals = journal._database.rows("SELECT batch, count(*) FROM seals GROUP BY batch = 'filtered'")
    assert sorted(int(str(count)) for _, count in seals) == [1, 1]
    end(one, within=0.1)
    assert all(each.balanced for each in journal.books().values())
