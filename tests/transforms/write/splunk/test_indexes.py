"""Splunk's index by an event's type: the first pattern that matches, else the usual one."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipelines.flags.settings import parse
from pipelines.practice.splunk import PracticeSplunk
from tests.pipelines.flags.refusing import ENVIRON, FEED, refused
from tests.transforms.write.encodings import CREATED_AT
from transforms.event import Batch, Event
from transforms.event_types import MOST_REMEMBERED
from transforms.shared_events import BatchEvents, SharedEvents
from transforms.write.splunk.destination import TIME_SIZE, Splunk
from transforms.write.splunk.indexes import ByType, Indexes, pairs

RULES = ("grant.revoked=alerts", "grant.*=identity", "wallet.[a-p]*=payments")
WHERE = {
    "grant.revoked": "alerts",
    "grant.created": "identity",
    "grant.": "identity",
    "wallet.payment.settled": "payments",
    "wallet.reloaded": "main",
    "Grant.created": "main",
    "": "main",
}


def of_types(types: Sequence[str]) -> list[Event]:
    times = [CREATED_AT, "never"]
    return [Event(f"evt_{n}", kind, times[n % 2], b'{"n":%d}' % n) for n, kind in enumerate(types)]


@pytest.fixture
def by_type(settings: Splunk) -> Splunk:
    return replace(settings, index_by_type=RULES)


@pytest.fixture
def all_indexes(server: PracticeSplunk) -> None:
    server.indexes |= {"alerts", "identity", "payments"}


@pytest.mark.usefixtures("all_indexes")
def test_the_first_pattern_that_matches_names_the_index(server: PracticeSplunk, by_type: Splunk) -> None:
    events = Batch(of_types(list(WHERE)))
    assert by_type.open().write(events) is None
    assert {one.event_id: one.index for one in server.events} == {
        event.id: WHERE[event.type] for event in events.events
    }
    assert [bytes(one.event) for one in server.events] == [event.raw for event in events.events]
    assert events.place == "index alerts, identity, main, payments"


def test_without_rules_nothing_is_different(settings: Splunk, by_type: Splunk) -> None:
    events = of_types(["wallet.reloaded", "", "x"])  # which no rule matches
    assert by_type.encode(events) == settings.encode(events)
    assert settings.encode(events).count(b'"index":"main","fields"') == 3
    assert settings.target().startswith("index main at ")
    assert by_type.target().startswith("index alerts, identity, payments or main at ")


def test_a_body_is_no_larger_than_its_sizes(settings: Splunk, by_type: Splunk) -> None:
    far = replace(settings, index_by_type=(f"grant.*={'x' * 60}",))
    for one in of_types(list(WHERE)):
        assert 0 <= by_type.size(one) - len(by_type.encode([one])) <= TIME_SIZE + len("payments")
        assert len(far.encode([one])) <= far.size(one) == next(iter(far.sizes([one])))


def test_a_part_of_a_shared_chunk_is_cut_where_its_events_end(settings: Splunk, by_type: Splunk) -> None:
    """Two that differ in their rules alone share no encoded lines."""
    chunk = of_types(list(WHERE))
    shared = SharedEvents(chunk)
    for destination in (settings, by_type, replace(by_type, index_by_type=RULES[1:])):
        for start, stop in ((0, 3), (3, 5), (5, len(chunk))):
            part = BatchEvents()
            part.add(chunk, start, stop, shared)
            assert destination.encode(part) == destination.encode(chunk[start:stop])


def test_settings_with_rules_pickle(by_type: Splunk) -> None:
    events = of_types(list(WHERE))
    by_type.encode(events)
    again = pickle.loads(pickle.dumps(by_type))
    assert (again, again.encode(events)) == (by_type, by_type.encode(events))


def test_types_that_a_service_makes_up_are_not_all_remembered() -> None:
    found = ByType(pairs(RULES), "main")
    assert {found[f"grant.{number}"] for number in range(3 * MOST_REMEMBERED)} == {"identity"}
    assert len(found) == MOST_REMEMBERED


def test_an_index_to_which_nothing_is_left_to_go_is_none_of_them() -> None:
    assert Indexes("main", ["grant.*=a", "*=b"]).names == ("a", "b")
    assert Indexes("main", ["grant.*=a", "b=a", "c=main"]).names == ("a", "main")


@pytest.mark.parametrize(("missing", "refused_at"), [("alerts", 0), ("payments", 3), ("main", 4)])
@pytest.mark.usefixtures("all_indexes")
def test_an_index_that_is_missing_blocks_and_is_named(
    server: PracticeSplunk, by_type: Splunk, missing: str, refused_at: int
) -> None:
    server.indexes.remove(missing)
    outcome = by_type.open().write(Batch(of_types(list(WHERE))))
    assert outcome is not None
    assert outcome.blocked
    assert not outcome.rejected
    assert list(outcome.later) == list(range(refused_at, len(WHERE)))
    assert f"has no index '{missing}', or this token" in outcome.cause


def test_a_number_that_makes_no_sense_names_all_of_the_batch(server: PracticeSplunk, by_type: Splunk) -> None:
    server.answer_code(7, number=99)
    outcome = by_type.open().write(Batch(of_types(["grant.created", "x", "grant.created"])))
    assert outcome is not None
    assert "has no index 'identity' or 'main', or this token" in outcome.cause


@pytest.mark.usefixtures("all_indexes")
def test_check_tries_each_index(server: PracticeSplunk, by_type: Splunk) -> None:
    server.indexes.remove("identity")
    found = {each.what: each for each in by_type.check()}
    tried = {what.removeprefix("an event to index "): each.passed for what, each in found.items()}
    assert {name: tried[name] for name in by_type.indexes.names} == {
        "alerts": True,
        "identity": False,
        "payments": True,
        "main": True,
    }
    assert "has no index 'identity'" in found["an event to index identity"].cause
    assert [one.index for one in server.events] == ["alerts", "payments", "main"]


def test_acknowledged_events_go_to_their_indexes(settings: Splunk) -> None:
    indexes = ("main", "alerts", "identity", "payments")
    with PracticeSplunk(ack_seconds=0.0, indexes=indexes) as server:
        own = replace(settings, url=server.url, acknowledge=True, index_by_type=RULES)
        writer = own.open()
        sent = Batch(of_types(["grant.created", "x"]))
        assert writer.write(sent) is None
        writer.close()
        assert [one.index for one in server.events] == ["identity", "main"]
        assert sent.place.startswith("index identity, main, ack 0 in channel ")


def test_a_missing_index_is_named_with_acknowledgement_too(settings: Splunk) -> None:
    with PracticeSplunk(ack_seconds=0.0, indexes=("main", "alerts", "identity")) as server:
        writer = replace(settings, url=server.url, acknowledge=True, index_by_type=RULES).open()
        outcome = writer.write(Batch(of_types(list(WHERE))))
        writer.close()
    assert outcome is not None
    assert outcome.blocked
    assert list(outcome.later) == list(range(len(WHERE)))
    assert "has no index 'payments', or this token" in outcome.cause


# The flag

SPLUNK = ("--splunk_hec_url=https://splunk.test:8088", "--splunk_hec_token=env:DD_KEY")
HINT = "; for example --splunk_index_by_type=grant.*=identity,wallet.*=payments"


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("grant.*", "must be TYPE=INDEX, where TYPE is an event type or a pattern of it"),
        ("=main", "must be TYPE=INDEX, where TYPE is an event type or a pattern of it"),
        ("a=b,,c=d", "has an empty name between its commas"),
        ("!grant.*=a", "must not have a !: the first pattern that matches counts"),
        *(
            (f"grant.*={index}", "must have an index behind each =: lower-case letters, digits, _ and -, as "
             "Splunk's index names are")
            for index in ("", "Main", "-a", "a/b")
        ),
        ("a=b,a=c", "has a pattern twice, of which only the first would count"),
        ("*=b,a=c", "has a pattern behind *, which matches everything"),
    ],
)  # fmt: skip
def test_a_wrong_rule_gets_one_line(given: str, wrong: str) -> None:
    assert refused(*SPLUNK, f"--splunk_index_by_type={given}") == [f"--splunk_index_by_type: {wrong}{HINT}"]
    with pytest.raises(ValueError, match=r"^(must|has) "):
        Splunk("https://splunk.test:8088", None, index_by_type=tuple(given.split(",")))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["flag", "environment", "list", "text"])
def test_it_arrives_by_flag_environment_and_file(how: str, tmp_path: Any) -> None:
    rules, environ, flags = ",".join(RULES), dict(ENVIRON), [FEED, *SPLUNK]
    file = tmp_path / "grantex.yaml"
    if how == "flag":
        flags.append(f"--splunk_index_by_type={rules}")
    elif how == "environment":
        environ["GRANTEX_SPLUNK_INDEX_BY_TYPE"] = rules
    else:
        written = f'"{rules}"' if how == "text" else "[" + ", ".join(f'"{rule}"' for rule in RULES) + "]"
        file.write_text(f"destinations:\n  splunk: {{kind: splunk, index_by_type: {written}}}\n")
        flags.append(f"--config={file}")
    assert parse(flags, environ)["splunk_index_by_type"] == RULES
