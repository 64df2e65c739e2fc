"""Realistic Grantex events without end, the same for the same seed."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_SCOPES = [
    '"calendar:read"',
    '"calendar:read","email:send"',
    '"files:read","files:write"',
    '"payments:initiate","calendar:read"',
]


def generate(seed: int | None = None, now: float | None = None) -> Iterator[bytes]:
    """Events of the documented types as the service writes them, about 300 bytes each, without end.

    seed: the same seed gives the same events when `now` is given too; None gives ids never seen before.
    now: epoch seconds that every event is stamped with; None reads the clock for each.
    """
    dice = random.Random(seed)  # noqa: S311  practice data
    for number in itertools.count():
        at = time.time() if now is None else now
        millis = int(at * 1000)
        stamp = _rfc3339(millis)
        kind, data = _KINDS[number % len(_KINDS)](millis, dice, number)
        event_id = _ulid(millis, dice)
        yield (f'{{"id":"evt_{event_id}","type":"{kind}","createdAt":"{stamp}","data":{{{data}}}}}').encode()


def _granted(millis: int, dice: random.Random, number: int) -> tuple[str, str]:
    return "grant.created", _grant(millis, dice, number)


def _issued(millis: int, dice: random.Random, number: int) -> tuple[str, str]:
    return "token.issued", f'"tokenId":"tok_{_ulid(millis, dice)}",' + _grant(millis, dice, number)


def _threshold(millis: int, dice: random.Random, number: int) -> tuple[str, str]:
    percent = dice.choice((50, 80))
    left = f'"pct":{percent},"remaining":"{dice.randrange(1, 10000) / 100:.4f}"'
    return "budget.threshold", f'"grantId":"grnt_{_ulid(millis, dice)}",{left}'


def _exhausted(millis: int, dice: random.Random, number: int) -> tuple[str, str]:
    return "budget.exhausted", f'"grantId":"grnt_{_ulid(millis, dice)}","remaining":"0"'


def _revoked(millis: int, dice: random.Random, number: int) -> tuple[str, str]:
    cascade = "true" if number % 2 else "false"
    return "grant.revoked", f'"grantId":"grnt_{_ulid(millis, dice)}","cascade":{cascade}'


# Tokens and grants are most of a real stream, as in the captured one.
_KINDS = [_granted, _issued, _issued, _threshold, _granted, _issued, _revoked, _granted, _issued, _exhausted]


def _grant(millis: int, dice: random.Random, number: int) -> str:
    return (
        f'"grantId":"grnt_{_ulid(millis, dice)}","agentId":"ag_{_ulid(millis, dice)}",'
        f'"principalId":"user-{number % 997}","scopes":[{_SCOPES[number % len(_SCOPES)]}],'
        f'"expiresAt":"{_rfc3339(millis + 86_400_000)}"'
    )


def _ulid(millis: int, dice: random.Random) -> str:
    """26 Crockford characters: 48 bits of time and 80 of chance, written two characters at a time."""
    value = millis << 80 | dice.getrandbits(80)
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


def _rfc3339(millis: int) -> str:
    seconds, rest = divmod(millis, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"
