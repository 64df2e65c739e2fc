"""What counts as a difference, and what a plan does when something is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.provision.plan import CannotProvision, Refused, Thing, differences, plan_of


@pytest.mark.parametrize(
    ("wanted", "found", "names"),
    [
        ({"a": 1}, {"a": 1, "theirs": 2}, []),
        ({"a": 1}, {"a": 2}, ["a"]),
        ({"a": {"b": [{"c": 1}, {"c": 2}]}}, {"a": {"b": [{"c": 1}, {"c": 3}]}}, ["a.b[1].c"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": None, "b": "", "c": []}, {}, []),
        ({"a": {}}, {"a": "something"}, ["a"]),
        ({"a": None}, {"a": {"b": 1}}, ["a"]),
    ],
)
def test_a_difference_is_named_by_its_path_and_what_is_only_theirs_is_none(
    wanted: Any, found: Any, names: list[str]
) -> None:
    assert [each.setting for each in differences(wanted, found)] == names


def test_what_is_refused_is_told_and_the_others_go_on_but_an_outage_ends_it() -> None:
    done: list[str] = []

    def refused() -> None:
        raise Refused("no right")

    def away() -> None:
        raise CannotProvision("could not be reached")

    things = [Thing("first", {}, None, refused), Thing("second", {}, None, lambda: done.append("second"))]
    act = plan_of("somewhere", things).act
    assert act is not None
    said = iter(act())
    assert [next(said), next(said)] == ["  REFUSED     first: no right", "  made        second"]
    with pytest.raises(CannotProvision, match="one thing is refused"):
        next(said)
    assert done == ["second"]
    act = plan_of("somewhere", [Thing("first", {}, None, away), things[1]]).act
    assert act is not None
    with pytest.raises(CannotProvision, match="could not be reached"):
        list(act())
    assert done == ["second"]


def test_a_long_or_foreign_value_is_shown_short_and_on_one_line() -> None:
    thing = Thing("it", {"text": "x" * 500}, {"text": "y\x1b[31m"}, lambda: None)
    (line,) = [line for line in plan_of("somewhere", [thing]).lines if "text" in line]
    assert len(line) < 250
    assert "\x1b" not in line
