"""The benchmark's events: realistic, all different, the same in every run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TYPES = ("token.issued", "token.issued", "token.issued", "grant.created", "grant.revoked")


def ulid(milliseconds: int, entropy: int) -> str:
    """26 characters: 48 bits of time, 80 of `entropy`."""
    number = (milliseconds << 80) | (entropy & ((1 << 80) - 1))
    return "".join(CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def events(count: int) -> Iterator[bytes]:
    """`count` events as JSON without spaces, about 280 bytes each, two a millisecond from a minute ago."""
    chance = random.Random(2026)
    start = int(time.time() * 1000) - 60_000
    for number in range(count):
        at = start + number // 2
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1000))
        own, grant, agent = (chance.getrandbits(80) for _ in range(3))
        yield (
            f'{{"id":"evt_{ulid(at, own)}","type":"{TYPES[own % len(TYPES)]}",'
            f'"createdAt":"{seconds}.{at % 1000:03d}Z",'
            f'"data":{{"grantId":"grnt_{ulid(at, grant)}","agentId":"ag_{ulid(at, agent)}",'
            f'"principalId":"user-{own % 100_000}","scopes":["calendar:read","email:send"],'
            f'"note":"benchmark"}}}}'
        ).encode()
