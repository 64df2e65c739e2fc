"""From a dataclass's fields to settings, and from values back to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest

from transforms.batch import BatchPolicy, batches
from transforms.secret import EnvSecret, Secret
from transforms.setting import BadSettings, Setting, made, setting, settings_of, shared, worded

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Thing:
    url: str = setting("Where.", called="root", url="/v1")
    token: Secret | str = setting("Token.")
    kind: Literal["a", "b"] | None = setting("Kind.", None)
    wait: float = setting("Wait.", 3.0, unit="seconds", at_most=10)
    pairs: dict[str, str] = setting("Pairs.", default_factory=dict, repeatable=True, combine=dict)
    policy: BatchPolicy = batches(BatchPolicy(7, 70, 0.7), "in one parcel", compressed=True, most_events=9)
    ca_file: str | None = shared("ca_file", None)
    plain: int | str = 3
    lists: list[str] = field(default_factory=list)
    derived: int = field(default=0, init=False)


def by_name() -> dict[str, Setting]:
    return {each.name: each for each in settings_of(Thing)}


def test_a_setting_follows_from_its_fields_annotation_and_facts() -> None:
    found = by_name()
    before = ["url", "token", "kind", "wait", "pairs"]
    assert list(found) == [*before, "max_events", "max_bytes", "max_age", "ca_file", "plain", "lists"]
    assert [name for name, each in found.items() if each.required] == ["url", "token"]
    assert [name for name, each in found.items() if not each.declared] == ["plain", "lists"]
    assert [name for name, each in found.items() if each.shared] == ["ca_file"]
    assert (found["url"].called, found["url"].placeholder, found["url"].target) == ("root", "URL", True)
    assert (found["token"].placeholder, found["token"].secret) == ("SECRET", True)
    assert found["kind"].choices == ("a", "b")
    assert (found["wait"].above, found["wait"].at_most, found["wait"].default_in_words) == (0, 10, "3")
    assert found["plain"].value("4") == 4
    assert found["pairs"].default == ()


def test_parts_of_a_field_have_its_default_and_its_facts() -> None:
    found = by_name()
    assert (found["max_events"].help, found["max_events"].default) == ("Events in one parcel.", 7)
    assert (found["max_events"].at_least, found["max_events"].at_most) == (1, 9)
    assert found["max_bytes"].help == "Bytes in one parcel, before compression."
    assert {found[name].part_of for name in ("max_events", "max_bytes", "max_age")} == {"policy"}


def test_what_cannot_be_text_says_so_when_it_is_given() -> None:
    with pytest.raises(ValueError, match="cannot be given as text"):
        by_name()["lists"].value("a")


def test_values_make_the_dataclass_and_the_rest_is_at_its_default() -> None:
    values = {"url": "https://x", "token": EnvSecret("T"), "pairs": (("a", "1"), ("a", "2")), "max_age": 9.0}
    assert made(Thing, settings_of(Thing), {**values, "kind": None}) == Thing(
        "https://x", EnvSecret("T"), None, 3.0, {"a": "2"}, BatchPolicy(7, 70, 9.0)
    )


def test_an_annotation_that_is_nowhere_is_named() -> None:
    @dataclass
    class Odd:
        amount: Decimal

    with pytest.raises(TypeError, match="Odd: name 'Decimal' is not defined"):
        list(settings_of(Odd))


def faults() -> Iterator[tuple[str, str]]:
    yield "id", "needs {role}, too"


def test_faults_are_worded_as_a_person_named_the_fields() -> None:
    assert str(BadSettings(faults())) == "id: needs role, too"
    assert list(worded(faults(), lambda name: f"--s3_{name}")) == ["--s3_id: needs --s3_role, too"]
    assert list(worded(faults(), lambda name: f"--{name}", str.upper)) == ["ID: needs --role, too"]
