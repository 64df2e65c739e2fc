"""The event types that the Grantex service is known to send; any other passes through all the same.

From the service's public source: the first list is what it sends as of August 2026, the second what newer
versions of it add. For advice only: a filter names types exactly, and a slip in one matches nothing.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from transforms.event import Event

OF_2026 = (
    "grant.created",
    "grant.revoked",
    "token.issued",
    "budget.threshold",
    "budget.exhausted",
    "fido.registered",
    "fido.assertion",
    "vc.issued",
    "sd-jwt.issued",
    "sd-jwt.presented",
    "passport.issued",
    "passport.revoked",
    "passport.token-exchange",
    "sso.login",
    "sso.connection.created",
    "sso.connection.updated",
    "sso.connection.deleted",
    "vault.credential.stored",
    "vault.credential.deleted",
    "vault.credential.exchanged",
    "consent_bundle.created",
    "consent_bundle.synced",
    "consent_bundle.revoked",
    "dpdp.consent.created",
    "dpdp.consent.withdrawn",
    "dpdp.grievance.filed",
    "dpdp.erasure.completed",
    "anomaly.auto_revoked",
)
NEWER = (
    "grant.suspended",
    "grant.resumed",
    "grant.re_evaluation_requested",
    "wallet.payment.reserved",
    "wallet.payment.settled",
    "wallet.payment.released",
    "wallet.payment.denied",
    "wallet.payment.approval_required",
    "wallet.payment.approval_approved",
    "wallet.payment.approval_rejected",
    "wallet.spend_policy.changed",
    "wallet.low_balance",
    "wallet.reload.requested",
    "wallet.reload.approved",
    "wallet.reload.rejected",
    "wallet.reloaded",
    "wallet.blocked",
    "wallet.unblocked",
    "anomaly.detected",
    "irregularity.policy.updated",
)
KNOWN = frozenset({*OF_2026, *NEWER})
OTHER = "other"  # what all types that are not known are counted as: a service could send any number of them
_type = attrgetter("type")


def counted(events: Sequence[Event]) -> Counter[str]:
    """How many of these are of each known type, and of OTHER."""
    counts = Counter(map(_type, events))  # without a step of Python for each event
    for unknown in counts.keys() - KNOWN:
        counts[OTHER] += counts.pop(unknown)
    return counts


def meant(name: str) -> str:
    """The known type that `name` is most likely a slip for, or ""."""
    wanted = name.lower()
    if wanted in KNOWN:
        return wanted
    return next(iter(difflib.get_close_matches(wanted, sorted(KNOWN), n=1, cutoff=0.75)), "")
