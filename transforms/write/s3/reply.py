"""What S3's refusals and a broken way to it mean for a batch: pure functions.

Codes are those of Amazon's "Error responses" of S3, of STS and of KMS. No refusal is ever an event's own
fault, so nothing is rejected here but a request that is too large even alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from transforms.preflight import Finding
from transforms.retry import retry_after
from transforms.secret import shown
from transforms.write.advice import ANY, HTTP, S3, Advice
from transforms.write.answer import described, is_page
from transforms.write.contract import Outcome, finding
from transforms.write.failure import GATEWAY, failed, is_retryable
from transforms.write.failure import refused as outcome_of_status

PRECONDITION_FAILED = "PreconditionFailed"
CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})
# Passes by itself, whatever its status: throttling, S3's own faults, a body that was damaged on its way.
BUSY = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "BadDigest",
        "IncompleteBody",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
TOO_LARGE = frozenset({"EntityTooLarge", "MaxMessageLengthExceeded"})
# The chain may have something newer by the next attempt.
STALE = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
        "AccessDenied",
    }
)
CLOCK = re.compile(r"signature (expired|not yet current)", re.IGNORECASE)
# Said by STS these are about the role.
ROLE_CODES = frozenset({"AccessDenied", "AccessDeniedException"})
# How an answer in S3's own words begins.
OWN = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,100}\?>)?\s*<(?:Error|[A-Z][A-Za-z]{1,40}Result)\b")
# Headers by which S3, and whoever speaks its protocol, signs what it says.
SIGNED = ("x-amz-request-id", "x-amz-id-2")


class NotS3(Exception):
    """Somebody else has answered in S3's place."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body


def only_s3(operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
    """botocore's event "before-parse": raises NotS3 before botocore takes another's answer for S3's (it makes
    a 500 of a page under 200), or asks again, without end, where a redirect without a region leads."""
    status, body = response_dict["status_code"], response_dict["body"]
    headers = {name.lower(): value for name, value in response_dict["headers"].items()}
    own = OWN.match(body) is not None
    foreign = not own and bool(body.strip())
    if status < 300 and "etag" in headers and not is_page(headers, body):
        foreign = False
    if 300 <= status < 400 and not ("x-amz-bucket-region" in headers or b"<Region>" in body):
        # S3 itself may leave it out, and is asked for it once.
        foreign = not own or operation_model.name == "HeadBucket"
    if foreign:
        raise NotS3(status, headers, body)


def is_receipt(response: Mapping[str, Any]) -> bool:
    """Whether S3 itself confirms the object: only it knows its ETag. A page that has one is no receipt."""
    about = response.get("ResponseMetadata", {})
    headers = about.get("HTTPHeaders", {})
    page = "html" in headers.get("content-type", "").lower() and headers.get("content-length") != "0"
    return about.get("HTTPStatusCode") in (200, 201) and bool(response.get("ETag")) and not page


def is_delivered(error: Exception) -> bool:
    """Whether the object was there already: an earlier attempt of this batch, as its name is its content.
    S3 itself must say so, by its code or under its own headers."""
    if not isinstance(error, ClientError):
        return False
    if code_of(error) == PRECONDITION_FAILED:
        return True
    return status_of(error) == 412 and any(name in headers_of(error) for name in SIGNED)


def is_stale_credential(error: Exception) -> bool:
    """Whether reading the credentials again may help."""
    return isinstance(error, ClientError) and code_of(error) in STALE


def outcome_of(error: Exception, count: int, where: str, now: float) -> Outcome:
    """The outcome that `error` stands for in a batch of `count` events: whatever botocore may raise, as it
    parses and follows what any answer says. `now`: seconds since the epoch."""
    later = range(count)
    if isinstance(error, ClientError):
        return refused(error, count, where, now)
    if isinstance(error, NotS3):
        return of_another(error, count, where, now)
    if isinstance(error, ResponseParserError):  # of the token service
        return failed(where, S3["no words of S3"], later)
    if isinstance(error, BotoCoreError):
        return on_the_way(error, count, where)
    return failed(where, ANY["odd_answer"], later, type(error).__name__, unknown=True)


def of_another(error: NotS3, count: int, where: str, now: float) -> Outcome:
    """An answer in words that are not S3's."""
    status, later = error.status, range(count)
    said = f"{status}, {described(error.headers, error.body)}"
    if status < 300:
        return failed(where, S3["no ETag"], later, said, unknown=True)
    if status < 400:
        target = shown(error.headers.get("location", ""))
        return failed(where, S3["a redirect without a region"], later, f"{status} to {target!r}")
    return outcome_of_status(where, status, error.headers, count, now, error.body, False, "the credentials")


def not_confirmed(response: Mapping[str, Any], count: int, where: str) -> Outcome:
    """The outcome of a 2xx that is no receipt."""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return failed(where, S3["no ETag"], range(count), f"status {status}", unknown=True)


def looked(error: Exception, what: str, where: str) -> Finding:
    """What a failed HeadBucket says. A refusal has no body, and so no code but the status."""
    if not isinstance(error, ClientError):
        return finding(what, outcome_of(error, 0, where, time.time()))
    status = status_of(error)
    if status == 404:
        return Finding(what, False, f"{where} is not there: create it, or correct --s3_bucket.")
    if status == 403:
        return Finding(what, None, f"{where} may not be looked at (403), which says nothing about writing.")
    if 300 <= status < 400:
        region = headers_of(error).get("x-amz-bucket-region", "another")
        return Finding(what, False, f"{where} is in region {region}: give it with --s3_region.")
    return Finding(what, None, f"{where} answered {status} when it was looked at.")


def refused(error: ClientError, count: int, where: str, now: float) -> Outcome:
    """The service's own refusal."""
    code, status, later = code_of(error), status_of(error), range(count)
    message = message_of(error)
    said = f"{code or 'no code'}, status {status}{': ' + message if message else ''}"
    if found := advice(error, code, message):
        return failed(where, found, later, said)
    if code in CONFLICT:
        return failed(where, S3["ConditionalRequestConflict, OperationAborted"], later, said)
    if code in TOO_LARGE or status == 413:
        cause = f"{where} found the object too large ({said}). It is sent again in halves."
        return Outcome(later=later, cause=cause, too_large=True)
    if code in BUSY or is_retryable(status):
        wait, unknown = retry_after(headers_of(error), now), status in GATEWAY
        return failed(
            where,
            S3["SlowDown, InternalError and the like"],
            later,
            said,
            unknown=unknown,
            wait=wait,
        )
    if 300 <= status < 400:
        return failed(where, S3["a redirect without a region"], later, said)
    return failed(where, S3["any other code"], later, said)


def advice(error: ClientError, code: str, message: str) -> Advice | None:
    """What a person can do about a refusal; None when nobody needs to, or nobody knows."""
    # STS has no code of its own for a wrong clock: "Signature expired: … is now earlier than …".
    if code == "SignatureDoesNotMatch" and CLOCK.search(message):
        return S3["RequestTimeTooSkewed"]
    if error.operation_name == "AssumeRole":
        if code not in ROLE_CODES and (own := S3.get(code)):
            return own
        return None if code in BUSY or is_retryable(status_of(error)) else S3["no role"]
    if code == "AccessDenied" and "kms:" in message:
        return S3["no KMS right"]
    return S3.get(code)


def on_the_way(error: BotoCoreError, count: int, where: str) -> Outcome:
    """What happened on the way there. `unknown` is harmless here: the second attempt finds the first."""
    later, said = range(count), shown(str(error))
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return failed(where, S3["no credentials"], later, said)
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return failed(where, ANY["certificate"], later)
    if isinstance(error, SSLError):  # mostly in the handshake, but nobody can tell
        return failed(where, S3["no TLS connection"], later, said, unknown=True)
    if isinstance(error, ProxyConnectionError):
        proxy = str(error.kwargs.get("proxy_url", "")).rpartition("//")[2].rpartition("@")[2]
        said = shown(f"the proxy {proxy}: {error.kwargs.get('error', '')}")
        return failed(where, HTTP["proxy"] if " 407 " in said else ANY["unreachable"], later, said)
    if isinstance(error, ConnectionError):
        return failed(where, ANY["unreachable"], later)
    if isinstance(error, HTTPClientError):
        return failed(where, S3["no answer in time"], later, type(error).__name__, unknown=True)
    # What is left is what boto3 finds wrong with its configuration: a profile, a region, a name, a file.
    return failed(where, S3["no request"], later, said)


def code_of(error: ClientError) -> str:
    return shown(str(error.response.get("Error", {}).get("Code", "")), 100)


def status_of(error: ClientError) -> int:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def headers_of(error: ClientError) -> Mapping[str, str]:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers if isinstance(headers, dict) else {}


def message_of(error: ClientError) -> str:
    message = shown(str(error.response.get("Error", {}).get("Message") or ""))
    return "" if message.rstrip(".") == "Access Denied" else message
