"""AWS's signature version 4 as a service checks it: who signed a request, and whether that is true.

What is signed is in AWS's reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime, timedelta, timezone

from pipelines.local.practice.http_wire import Request

ALGORITHM = "AWS4-HMAC-SHA256"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^/]+)/(\d{{8}}/[^/]+/[^/]+/aws4_request), ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
MAX_SKEW = timedelta(minutes=15)


def fault(request: Request, access_key: str, secret_key: str, now: datetime | None = None) -> str:
    """Amazon's code for what is wrong with the signature, "" when it is good."""
    found = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return "AccessDenied"
    key, scope, names, signature = found.groups()
    if key != access_key:
        return "InvalidAccessKeyId"
    stamp = request.headers.get("x-amz-date", "")
    if not _is_near(stamp, now or datetime.now(timezone.utc)):
        return "RequestTimeTooSkewed"
    text = "\n".join((ALGORITHM, stamp, scope, _hash(_canonical(request, names).encode())))
    right = hmac.new(_signing_key(secret_key, scope), text.encode(), hashlib.sha256).hexdigest()
    return "" if hmac.compare_digest(right, signature) else "SignatureDoesNotMatch"


def _canonical(request: Request, names: str) -> str:
    headers = request.headers
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in names.split(";")]
    # Parameters without a value are signed with an empty one.
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in request.query.split("&") if pair)
    payload = headers.get("x-amz-content-sha256") or _hash(request.body)
    return "\n".join((request.method, request.path, "&".join(pairs), *lines, "", names, payload))


def _signing_key(secret_key: str, scope: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_near(stamp: str, now: datetime) -> bool:
    try:
        signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return abs(now - signed) <= MAX_SKEW
