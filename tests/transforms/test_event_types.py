"""The known event types, and what a slip in one is taken for."""

from __future__ import annotations

import pytest

from transforms.event import Event
from transforms.event_types import KNOWN, NEWER, OF_2026, counted, meant


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
