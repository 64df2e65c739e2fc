"""Event types: those that the Grantex service is known to send, and patterns that say which are asked for.

The lists are from the service's public source: the first is what it sends as of August 2026, the second what
newer versions of it add. They are for advice only: any other type passes through all the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import compress
from operator import attrgetter
from typing import Generic, TypeVar

from transforms import readers
from transforms.event import Event

T = TypeVar("T")
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
    import difflib  # for a slip only, and workers that never see one import this module

    wanted = name.lower()
    if wanted in KNOWN:
        return wanted
    return next(iter(difflib.get_close_matches(wanted, sorted(KNOWN), n=1, cutoff=0.75)), "")


def read_patterns(text: str) -> tuple[str, ...]:
    """Shell patterns of types between commas. Raises ValueError with what would be right."""
    found = readers.names(text)
    if "!" in found:
        raise ValueError("has a ! with no type behind it")
    return found


def warnings(source: str, patterns: Iterable[str]) -> Iterator[str]:
    """What to say of patterns that match no known type; a warning, as the service may send types that this
    version has not heard of. source: how they were given, "--splunk_types"."""
    for pattern in patterns:
        kind = pattern.removeprefix("!")
        if any(fnmatchcase(known, kind) for known in KNOWN):
            continue
        literal = not re.search(r"[*?\[]", kind)
        likely = meant(kind) if literal else ""
        # What looks like nothing of ours may be a secret that was given to the wrong flag.
        shown = pattern if likely or re.fullmatch(r"!?[a-z_*?-]+(\.[a-z_*?-]+)*", pattern) else "one of them"
        what = "is no event type" if literal else "matches no event type"
        hint = f"; did you mean {likely}?" if likely else ""
        yield f"{source}: {shown} {what} that this version knows{hint}"


def wanted(kind: str, patterns: Sequence[str]) -> bool:
    """Whether patterns ask for a type: any of those without "!" (or all, where there are none), and none of
    those with it."""
    asked = [each for each in patterns if not each.startswith("!")]
    if any(fnmatchcase(kind, each[1:]) for each in patterns if each.startswith("!")):
        return False
    return not asked or any(fnmatchcase(kind, each) for each in asked)


MOST_REMEMBERED = 1_000  # types; the service has some fifty, and a broken one may make up any number


class PerType(dict[str, T], Generic[T]):
    """An answer for each type. It is remembered: an event costs one look-up."""

    def answer(self, kind: str) -> T:
        """What is right for a type."""
        raise NotImplementedError

    def __missing__(self, kind: str) -> T:
        answer = self.answer(kind)
        if len(self) < MOST_REMEMBERED:
            self[kind] = answer
        return answer


class TypeFilter(PerType[bool]):
    """Whether `patterns` ask for a type."""

    def __init__(self, patterns: Sequence[str]) -> None:
        super().__init__()
        self._patterns = patterns

    def answer(self, kind: str) -> bool:
        return wanted(kind, self._patterns)

    def asked(self, events: Sequence[Event]) -> Sequence[Event]:
        """Those of them that are asked for."""
        mask = self.mask(events)
        return events if all(mask) else list(compress(events, mask))

    def mask(self, events: Sequence[Event]) -> bytes:
        """For each event 1 when it is asked for, else 0."""
        return bytes([self[event.type] for event in events])


def runs_left_out(mask: bytes, first: int) -> list[tuple[int, int]]:
    """The runs of 0 in a mask whose first item has the number `first`: first and behind the last."""
    return [(first + run.start(), first + run.end()) for run in _LEFT_OUT.finditer(mask)]


_LEFT_OUT = re.compile(b"\0+")
