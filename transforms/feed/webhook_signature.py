"""Whether a webhook was sent by the service, and just now: its signature, and the time that it signs.

Both headers are `sha256=` and a hexadecimal HMAC-SHA256 with the webhook's secret: `x-grantex-signature-v2`
of `<x-grantex-timestamp>.<raw body>`, `x-grantex-signature` of the body alone, so that whoever has seen one
request can repeat it for ever (the service's public source and its Python package).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Sequence

TOLERANCE = 300  # seconds, both ways; what the service's own packages allow
# ASCII digits, and no more than int() takes without complaint.
_SECONDS = re.compile(r"[0-9]{1,15}")


class Verdict(enum.Enum):
    """What a signature proves."""

    VALID = "signed with one of the secrets, within the tolerance"
    BAD_SIGNATURE = "signed with none of the secrets, or not at all"
    STALE = "signed with one of the secrets, too long ago or too far ahead"


def judge(body: bytes, signature: str, timestamp: str, secrets: Sequence[str], now: float) -> Verdict:
    """Judge `x-grantex-signature-v2` and `x-grantex-timestamp` ("" when missing); `now` in epoch seconds."""
    if not _SECONDS.fullmatch(timestamp):
        return Verdict.BAD_SIGNATURE
    if not _is_signed(timestamp.encode() + b"." + body, signature, secrets):
        return Verdict.BAD_SIGNATURE
    return Verdict.VALID if abs(int(now) - int(timestamp)) <= TOLERANCE else Verdict.STALE


def judge_v1(body: bytes, signature: str, secrets: Sequence[str]) -> Verdict:
    """Judge the older `x-grantex-signature`, which proves nothing about when it was sent."""
    return Verdict.VALID if _is_signed(body, signature, secrets) else Verdict.BAD_SIGNATURE


def sign(body: bytes, timestamp: str, secret: str) -> str:
    """The value of `x-grantex-signature-v2`."""
    return _signature(timestamp.encode() + b"." + body, secret)


def sign_v1(body: bytes, secret: str) -> str:
    """The value of `x-grantex-signature`."""
    return _signature(body, secret)


def _signature(signed: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _is_signed(signed: bytes, signature: str, secrets: Sequence[str]) -> bool:
    """Takes equally long whichever secret it was, and however much of it is right."""
    given = signature.encode(errors="replace")  # compared as bytes: of text, only ASCII can be
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(_signature(signed, secret).encode(), given)
    return found
