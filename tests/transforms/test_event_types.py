"""The known event types, and what a slip in one is taken for."""

from __future__ import annotations

import pytest

from transforms.event_types import KNOWN, NEWER, OF_2026, meant


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
