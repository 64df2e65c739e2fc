"""What of an archive is sent: by type, time and id, to which destination, and each id once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.transforms.write.encodings import event
from transforms.archive.choice import EVERYWHERE, Archive, Choice, Selection, instant
from transforms.archive.sources import Directory
from transforms.dead_letter import DeadLetter, encode, id_conflict
from transforms.event import Event
from transforms.event_types import wanted
from transforms.feed.intake import Gap, as_dead_letter


@pytest.mark.parametrize(
    ("patterns", "asked"),
    [
        (("grant.*",), "grant.created grant.revoked"),
        (("grant.*", "!grant.revoked"), "grant.created"),
        (("!grant.*",), "budget.exhausted "),
        (("budget.exhausted", "grant.created"), "budget.exhausted grant.created"),
        (("Grant.*",), "-"),
    ],
)
def test_patterns_of_types(patterns: tuple[str, ...], asked: str) -> None:
    kinds = ("budget.exhausted", "grant.created", "grant.revoked", "")
    expected = set(asked.split(" "))
    assert {kind for kind in kinds if wanted(kind, patterns)} == expected - {"-"}


def test_time_is_from_the_first_moment_up_to_the_second_and_needs_a_time() -> None:
    times = (
        "2026-03-01T11:59:59.999Z",
        "2026-03-01T13:00:00+01:00",
        "2026-03-01T12:59:59Z",
        "2026-03-01T13:00:00Z",
        "x",
    )
    events = [event(number, at) for number, at in enumerate(times)]
    counts: Counter[str] = Counter()
    selection = Selection(since=instant("2026-03-01T12:00:00Z"), until=instant("2026-03-01T13:00:00Z"))
    assert [one.created_at for one in selection.of(events, counts)] == list(times[1:3])
    assert counts == {"other times": 3}


@pytest.mark.parametrize(
    "text", ["2026-03-01", "2026-03-01T00:00:00", "2026-03-01T01:00:00+01:00", "2026-03-01T00:00Z"]
)
def test_a_moment_is_utc_unless_it_says_otherwise(text: str) -> None:
    assert instant(text) == 1772323200.0


@pytest.mark.parametrize("text", ["yesterday", "1772323200", "2026-13-01", ""])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="must be a moment"):
        instant(text)


def test_ids() -> None:
    counts: Counter[str] = Counter()
    events = [event(number) for number in range(3)]
    assert Selection(ids=frozenset({events[1].id})).of(events, counts) == [events[1]]
    assert counts == {"other ids": 2}


def letters(place: Path, *found: DeadLetter, torn: bytes = b"") -> Archive:
    place.mkdir(exist_ok=True)
    lines = b"".join(encode(letter, 1.0) + b"\n" for letter in found)
    (place / "2026-03-01.ndjson").write_bytes(lines + torn)
    return Archive(Directory(str(place), letters=True))


def refused(number: int, destination: str = "splunk", cause: str = "invalid_field: x") -> DeadLetter:
    one = event(number)
    return DeadLetter("write", destination, cause, one.raw, one.id, 3, 5.0)


def read(archive: Archive) -> tuple[list[tuple[str, list[Event]]], Counter[str]]:
    counts: Counter[str] = Counter()
    found = [
        (where, list(events)) for shard in archive.shards() for where, events in archive.read(shard, counts)
    ]
    return found, counts


def test_dead_letters_say_where_they_belong_and_what_is_no_event_is_counted(tmp_path: Path) -> None:
    archive = letters(
        tmp_path,
        refused(1),
        as_dead_letter(Gap(1.0, 2.0, "cut")),
        refused(2, "kafka"),
        DeadLetter("feed", "", "not_json: at byte 1", b"\xff", at=1.0),
        DeadLetter("feed", "", "missing: of the ledger", b'{"id":"evt_9","type":"t"}', "evt_9", at=1.0),
        DeadLetter("write", "splunk", "no_id: the JSON is not an object", b"[]", at=1.0),
        id_conflict(event(3), 1.0),
        refused(4, "s3", "in_doubt: it may have been delivered"),
        torn=encode(refused(5), 1.0)[:50],
    )
    found, counts = read(archive)
    assert found == [("splunk", [event(1)]), ("kafka", [event(2)]), ("", [event(3)])]
    assert counts == {
        "events": 3,
        "no event: feed_gap": 1,
        "no event: not_json": 1,
        "no event: missing": 1,
        "no event: no_id": 1,
        "in_doubt": 1,
        "torn last lines": 1,
    }
    forced, _ = read(Archive(archive.source, doubtful=True))
    assert ("s3", [event(4)]) in forced


def test_files_of_one_day_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["2026-03-01.ndjson", "2026-03-01.2.ndjson", "2026-03-01.10.ndjson", "2026-03-02.ndjson"]
    for name in names:
        (tmp_path / name).write_bytes(encode(refused(1), 1.0) + b"\n")
    assert [shard.name for shard in Directory(str(tmp_path), letters=True).shards()] == names


def test_a_dead_letter_goes_back_to_its_destination_unless_all_are_asked_for() -> None:
    events = [event(1)]
    splunk, everything = Choice("splunk"), Choice("splunk", to_all=True)
    assert [splunk.of(where, events)[0] for where in ("kafka", "", "splunk")] == [(), (), events]
    assert splunk.counts == {"of kafka": 1, "of no destination": 1, "chosen": 1}
    assert everything.of("kafka", events)[0] == events
    assert Choice("splunk").of(EVERYWHERE, events)[0] == events


def test_each_id_once_and_another_event_of_that_id_is_not_lost() -> None:
    choice = Choice("splunk")
    other = Event(event(1).id, "t", "", b'{"id":"%s","other":1}' % event(1).id.encode())
    assert choice.of("*", [event(1), event(2), event(1)]) == ([event(1), event(2)], [])
    assert choice.of("*", [event(2), other, event(3)]) == ([event(3)], [other])
    assert choice.counts == {"chosen": 3, "repeats": 2, "id_conflict": 1}


def test_what_is_there_already_is_left_out() -> None:
    events = [event(number) for number in range(4)]
    choice = Choice("splunk", delivered=lambda ids: {events[0].id} & set(ids), earlier={events[1].id})
    assert choice.of("*", events)[0] == events[2:]
    assert choice.counts == {"chosen": 2, "have a receipt": 1, "sent by an earlier run": 1}
