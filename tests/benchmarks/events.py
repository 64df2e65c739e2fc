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


def events(count: int, size: int = 0) -> Iterator[bytes]:
    """`count` events as JSON without spaces, two a millisecond from a minute ago; of `size` bytes (at least
    some 110), without it about 280."""
    for raw in _usual(count):
        yield raw if not size else _sized(raw, size)


def _sized(raw: bytes, size: int) -> bytes:
    """The event with other data, so that it has `size` bytes."""
    head = raw[: raw.index(b'"data":')] + b'"data":{"note":"'
    return head + b"x" * max(0, size - len(head) - 3) + b'"}}'


def _usual(count: int) -> Iterator[bytes]:
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
