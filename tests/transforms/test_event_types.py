"""The known event types, what a slip in one is taken for, and patterns of them."""

from __future__ import annotations

import pytest

from transforms.event import Event
from transforms.event_types import (
    KNOWN,
    MOST_REMEMBERED,
    NEWER,
    OF_2026,
    TypeFilter,
    counted,
    meant,
    read_patterns,
    runs_left_out,
    warnings,
)


def test_both_generations_are_known_and_each_type_once() -> None:
    assert (len(OF_2026), len(NEWER)) == (28, 20)
    assert len(KNOWN) == 48


@pytest.mark.parametrize(
    ("slip", "right"),
    [
        ("grants.created", "grant.created"),
        ("grant_created", "grant.created"),
        ("Grant.Created", "grant.created"),
        ("budget.treshold", "budget.threshold"),
        ("vault.credentials.stored", "vault.credential.stored"),
        ("wallet.reload.approve", "wallet.reload.approved"),
        ("*", ""),
        ("something.else", ""),
    ],
)
def test_a_slip_is_taken_for_the_nearest(slip: str, right: str) -> None:
    assert meant(slip) == right


def test_events_are_counted_by_known_type_and_all_others_as_one() -> None:
    types = ["grant.created", "grant.created", "token.issued", "its.own", "another", ""]
    found = counted([Event(str(n), each, "", b"{}") for n, each in enumerate(types)])
    assert found == {"grant.created": 2, "token.issued": 1, "other": 3}
    assert counted([]) == {}


@pytest.mark.parametrize(
    ("patterns", "asked", "not_asked"),
    [
        (("grant.*",), ["grant.created", "grant."], ["token.issued", "grants.created", "Grant.created", ""]),
        (("grant.*", "!grant.created"), ["grant.revoked"], ["grant.created", "token.issued"]),
        (("!grant.created", "grant.*"), ["grant.revoked"], ["grant.created"]),  # in any order
        (("!token.*",), ["grant.created", ""], ["token.issued"]),
        (("*",), ["grant.created", ""], []),
        (("!*",), [], ["grant.created", ""]),
        (("sso.connection.?pdated", "[dv]*"), ["sso.connection.updated", "vc.issued"], ["sso.login"]),
        (("grant.created",), ["grant.created"], ["grant.createdX", "xgrant.created"]),
    ],
)
def test_patterns_ask_for_types(patterns: tuple[str, ...], asked: list[str], not_asked: list[str]) -> None:
    types = TypeFilter(patterns)
    for _ in range(2):  # what is remembered, too
        assert [kind for kind in [*asked, *not_asked] if types[kind]] == asked


def test_a_filter_remembers_so_many_types_and_answers_for_all() -> None:
    types = TypeFilter(("a*",))
    made_up = [Event(str(n), f"{'a' if n % 2 else 'b'}{n}", "", b"{}") for n in range(3 * MOST_REMEMBERED)]
    assert list(types.mask(made_up)) == [n % 2 for n in range(3 * MOST_REMEMBERED)]
    assert types.asked(made_up) == made_up[1::2]
    assert len(types) == MOST_REMEMBERED


def test_what_a_mask_leaves_out_in_runs() -> None:
    assert runs_left_out(bytes([0, 0, 1, 0, 1, 1]), 10) == [(10, 12), (13, 14)]
    assert runs_left_out(bytes([1, 1]), 10) == runs_left_out(b"", 10) == []


def test_what_is_read_as_patterns() -> None:
    assert read_patterns("grant.*, !grant.created") == ("grant.*", "!grant.created")
    for text in ("grant.*,!", "grant.*,,x", "a b"):
        with pytest.raises(ValueError):
            read_patterns(text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("grant.craeted", "grant.craeted is no event type {}; did you mean grant.created?"),
        ("!grant.craeted", "!grant.craeted is no event type {}; did you mean grant.created?"),
        ("grants.*", "grants.* matches no event type {}"),
        ("3f9aSECRET", "one of them is no event type {}"),
        ("grant.*", ""),
        ("wallet.blocked", ""),
        ("*", ""),
    ],
)
def test_what_matches_no_known_type_is_warned_of(pattern: str, said: str) -> None:
    line = f"--x_types: {said}".format("that this version knows")
    assert list(warnings("--x_types", [pattern])) == ([line] if said else [])
