"""What BigQuery's answers mean for each event of a batch: gRPC statuses, row errors, insertAll. Pure.

Sources: the reference of google.cloud.bigquery.storage.v1 (AppendRowsResponse, StorageError), of
tabledata.insertAll, and BigQuery's table of error messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from transforms.retry import retry_after
from transforms.secret import shown
from transforms.structs import ready
from transforms.write.advice import BIGQUERY, GOOGLE
from transforms.write.answer import fields
from transforms.write.contract import Outcome
from transforms.write.failure import KEPT, ONCE_FIXED, failed, refused
from transforms.write.google import (
    INVALID_ARGUMENT,
    NAMES,
    RESOURCE_EXHAUSTED,
    Fault,
    RestError,
    is_too_large,
    rest_error,
    said,
)

# Reasons of a 403 that pass by themselves, and of a row that was not to blame.
THROTTLED = frozenset({"rateLimitExceeded", "quotaExceeded", "backendError", "jobRateLimitExceeded"})
INNOCENT = frozenset({"stopped", "backendError", "internalError", "timeout", *THROTTLED})
# A row that fails for its columns fails like every other row: the table is to blame.
MOST_REASON = 100  # a reason is one word
SCHEMA_WORDS = ("no such field", "missing required field")


class Status(NamedTuple):
    """A gRPC status that is not OK. detail: StorageError's code, such as "STREAM_FINALIZED", or "".
    retry_after: seconds that RetryInfo asks for."""

    code: int
    message: str
    detail: str = ""
    retry_after: float | None = None


def status_outcome(where: str, status: Status, count: int) -> Outcome:
    """The outcome of `status` for a batch of `count` events, none of them written.

    Whether an append that got no answer was written is asked of its stream before the next attempt, so
    nothing here is `unknown`.
    """
    code, message, detail, wait = status
    later = range(count)
    answer = f"{NAMES.get(code, f'code {code}')}: {said(message)}"
    if detail in STREAM_IS_OVER:
        return Outcome(later=later, cause=f"{where} answered {answer}. The rows go into a new stream.")
    if advice := BIGQUERY.get(detail):
        return failed(where, advice, later, answer)
    if code in (INVALID_ARGUMENT, RESOURCE_EXHAUSTED) and is_too_large(message):
        cause = f"{where} found the request too large ({answer}). It is sent again in halves."
        return Outcome(later=later, cause=cause, too_large=True)
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return failed(where, GOOGLE["certificate"], later)
    if advice := BIGQUERY.get(NAMES.get(code, "")):
        return failed(where, advice, later, answer)
    return Outcome(later=later, cause=f"{where} answered {answer}. {KEPT}.", retry_after=wait)


# StorageError's codes that are about the stream alone: another one will do.
STREAM_IS_OVER = frozenset(
    {
        "INVALID_STREAM_STATE",
        "INVALID_STREAM_TYPE",
        "OFFSET_ALREADY_EXISTS",
        "OFFSET_OUT_OF_RANGE",
        "STREAM_ALREADY_COMMITTED",
        "STREAM_FINALIZED",
        "STREAM_NOT_FOUND",
    }
)


def row_errors_outcome(where: str, errors: Iterable[tuple[int, str]], count: int) -> Outcome | None:
    """The outcome of an append that failed for some of its rows: these never, the rest again, because
    nothing of that append was written. None when no row of the batch is named."""
    rejected = {index: f"invalid_row: {where} refused it: {said(message)}" for index, message in errors}
    if not rejected:
        return None
    later = [index for index in range(count) if index not in rejected]
    cause = f"{where} refused {len(rejected)} of {count} rows: {next(iter(rejected.values()))}"
    return Outcome(rejected=rejected, later=later, cause=cause)


@ready
class RowFault(msgspec.Struct, frozen=True):
    """What insertAll says of a row that it did not take."""

    index: int
    errors: Sequence[Fault] = ()


class ForeignReply(Exception):
    """A 200 that is not BigQuery's: nobody has said that anything was done."""


def own_reply(status: int, body: bytes) -> dict[str, Any]:
    """What BigQuery said: each of its answers is an object that names its kind. Raises ForeignReply for a
    success that is not its own: a sign-in page, a proxy's `{}`, a body that was cut."""
    found = fields(body)
    if status != 200 or found is None or "error" in found:
        raise ForeignReply
    if not str(found.get("kind", "")).startswith("bigquery#"):
        raise ForeignReply
    return found


# What a status of HTTP is called by gRPC.
_LIKE = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


def rest_outcome(
    where: str, status: int, headers: Mapping[str, str], body: bytes, count: int, now: float
) -> Outcome:
    """The outcome of a REST status outside 2xx for a batch of `count` events."""
    later = range(count)
    error = rest_error(body)
    reason = shown(error.errors[0].reason, MOST_REASON) if error.errors else ""
    answer = f"{status}{f' {reason}' if reason else ''}: {said(error.message)}"
    if status == 403 and reason in THROTTLED:
        wait = retry_after(headers, now)
        return Outcome(later=later, cause=f"{where} answered {answer}. {KEPT}.", retry_after=wait)
    if status == 400 and is_too_large(error.message):
        return refused(where, 413, headers, count, now)
    if body and error == RestError():  # somebody else's words
        return refused(where, status, headers, count, now, body, own=False)
    if advice := BIGQUERY.get(_LIKE.get(status, "")):
        return failed(where, advice, later, answer)
    return refused(where, status, headers, count, now)


def foreign_outcome(where: str, count: int) -> Outcome:
    """The outcome of a success that was not BigQuery's for a batch that was sent: it says nothing about any
    row, so all are sent again and their insertIds remove most repeats."""
    cause = (
        f"{where}: the answer is not BigQuery's, but of something in between (a proxy, a sign-in page), or "
        f"it was cut. {KEPT}: check --bigquery_endpoint and the network."
    )
    return Outcome(later=range(count), cause=cause, unknown=True)


def insert_outcome(where: str, faults: Sequence[RowFault], count: int) -> Outcome | None:
    """The outcome of an insertAll that names the rows that were not inserted."""
    rejected: dict[int, str] = {}
    later: dict[int, str] = {}
    blocked = False
    for fault in faults:
        if not 0 <= fault.index < count:
            continue
        guilty = next((one for one in fault.errors if one.reason not in INNOCENT), None)
        if guilty is None:
            later[fault.index] = shown(fault.errors[0].reason, MOST_REASON) if fault.errors else "no reason"
        elif any(word in guilty.message.lower() for word in SCHEMA_WORDS):
            later[fault.index], blocked = said(guilty.message), True
        else:
            rejected[fault.index] = f"invalid_row: {where} refused it: {said(guilty.message)}"
    later = {index: why for index, why in later.items() if index not in rejected}
    if not (rejected or later):
        return None
    words = next(iter(later.values()), "") or next(iter(rejected.values()))
    cause = f"{where} did not take {len(rejected) + len(later)} of {count} rows: {words}."
    if blocked:
        cause += f" {ONCE_FIXED}: compare the table's columns with --bigquery_schema."
    return Outcome(rejected=rejected, later=sorted(later), cause=cause, blocked=bool(blocked and later))
