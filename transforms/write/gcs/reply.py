"""What Cloud Storage's answers mean for a batch: pure functions.

Statuses and reasons are those of its "HTTP status and error codes for JSON". No refusal is ever an event's
own fault, so nothing is rejected here but a request that is too large even alone.
"""

from __future__ import annotations

from transforms.preflight import Finding
from transforms.retry import retry_after
from transforms.secret import shown
from transforms.write.advice import GCS, HTTP
from transforms.write.answer import fields
from transforms.write.contract import Outcome, finding
from transforms.write.failure import KEPT, failed, refused
from transforms.write.google import RestError, rest_error, said
from transforms.write.over_http.reply import Reply

# Reasons of a 403 that pass by themselves.
THROTTLED = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "backendError"})
# What is said of bytes that were damaged on their way.
DAMAGED = ("hash", "checksum", "crc32c", "md5")


def outcome_of(reply: Reply, bucket: str, key: str, count: int, where: str, now: float) -> Outcome | None:
    """The outcome of an insert of an object with a batch of `count` events."""
    if 200 <= reply.status < 300:
        if is_receipt(reply, bucket, key):
            return None
        return failed(where, HTTP["not_its_words"], range(count), f"{reply.status}", unknown=True)
    error = rest_error(reply.body)
    if is_delivered(reply.status, error):
        return None
    return _refusal(reply, error, count, where, now)


def is_receipt(reply: Reply, bucket: str, key: str) -> bool:
    """Whether the service itself confirms this very object: only it knows the generation."""
    members = fields(reply.body)
    if members is None or members.get("kind") != "storage#object":
        return False
    return (members.get("bucket"), members.get("name")) == (bucket, key) and bool(members.get("generation"))


def is_delivered(status: int, error: RestError) -> bool:
    """Whether the object was there already: an earlier attempt of this batch, as its name is its content.
    An organization's policy refuses by the same status and reason."""
    message = error.message.lower()
    said_so = "pre-condition" in message or "precondition" in message
    reasons = {one.reason for one in error.errors}
    return status == 412 and "conditionNotMet" in reasons and said_so and "constraint" not in message


def _refusal(reply: Reply, error: RestError, count: int, where: str, now: float) -> Outcome:
    status, later = reply.status, range(count)
    if error == RestError():  # nobody's words, or somebody else's
        return refused(where, status, reply.headers, count, now, reply.body, own=not reply.body)
    reason = shown(error.errors[0].reason, 100) if error.errors else ""
    answer = f"{status}{f' {reason}' if reason else ''}: {said(error.message)}"
    message = error.message.lower()
    if reason in THROTTLED:
        wait = retry_after(reply.headers, now)
        return Outcome(later=later, cause=f"{where} answered {answer}. {KEPT}.", retry_after=wait)
    if status == 400 and any(word in message for word in DAMAGED):
        return failed(where, GCS["damaged"], later, answer)
    if "kms" in message and status in (400, 403, 404):
        return failed(where, GCS["kms"], later, answer)
    if status == 412:
        return failed(where, GCS["policy"], later, answer)
    if status in (401, 403, 404):
        return failed(where, GCS[str(status)], later, answer)
    if status == 409:
        return failed(where, GCS["conflict"], later, answer)
    return refused(where, status, reply.headers, count, now)


def looked(reply: Reply, what: str, right: str, where: str, now: float) -> Finding:
    """What an answer to `testPermissions` says of the bucket."""
    if not 200 <= reply.status < 300:
        return finding(what, _refusal(reply, rest_error(reply.body), 0, where, now))
    members = fields(reply.body)
    if members is None or members.get("kind") != "storage#testIamPermissionsResponse":
        return finding(what, failed(where, HTTP["not_its_words"], (), f"{reply.status}"))
    if right not in (members.get("permissions") or ()):
        return finding(what, failed(where, GCS["403"], (), f"no {right}"))
    return Finding(what, True)
