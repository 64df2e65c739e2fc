"""What each monitor of Datadog must count in the events of the cases, reckoned from the events themselves."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from tests.pipelines.packs.cases import Cases, moment
from transforms.event import Event

Given = Mapping[str, Any]
Groups = Mapping[tuple[str, ...], int]

# By detection: which events, and what of their data they are grouped by.
COUNTED: Mapping[str, tuple[Callable[[Given], bool], tuple[str, ...]]] = {
    "revocation_spike": (lambda one: one["type"] == "grant.revoked", ()),
    "cascade_revocation": (
        lambda one: one["type"] == "grant.revoked" and one["data"]["cascade"] is True,
        ("grantId",),
    ),
    "grant_suspended_or_resumed": (
        lambda one: one["type"] in ("grant.suspended", "grant.resumed"),
        ("grantId",),
    ),
    "deep_delegation": (
        lambda one: one["type"] == "grant.created" and one["data"].get("delegationDepth", 0) >= 3,
        ("grantId",),
    ),
    "budget_exhausted": (lambda one: one["type"] == "budget.exhausted", ("grantId",)),
    "budget_nearing": (lambda one: one["type"] == "budget.threshold", ("grantId", "pct")),
    "token_issuance_spike": (lambda one: one["type"] == "token.issued", ("agentId",)),
    "anomalies": (lambda one: one["type"] in ("anomaly.detected", "anomaly.auto_revoked"), ()),
    "vault_exchange_burst": (lambda one: one["type"] == "vault.credential.exchanged", ("principalId",)),
}


def recent(cases: Cases, hours: float) -> list[Event]:
    """Those that Datadog still keeps: it drops what is older than 18 h."""
    since = cases.now - hours * 3600
    return [one for one in cases.events() if moment({"createdAt": one.created_at}) > since]


def counted(events: list[Event], name: str) -> Groups:
    """Different ids by group."""
    matches, keys = COUNTED[name]
    ids = defaultdict(set)
    for event in events:
        one = json.loads(event.raw)
        if matches(one):
            ids[tuple(str(one["data"][key]) for key in keys)].add(one["id"])
    return {group: len(found) for group, found in ids.items()}
