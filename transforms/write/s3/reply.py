"""What S3's refusals and a broken way to it mean for a batch: pure functions.

Codes are those of Amazon's "Error responses" of S3, of STS and of KMS. No refusal is ever an event's own
fault, so nothing is rejected here but a request that is too large even alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from transforms.retry import retry_after
from transforms.write.contract import Outcome
from transforms.write.failure import KEPT, is_retryable

MENDED = f"{KEPT} when this is mended"
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
# What a person can do about it, by code.
ADVICE: Mapping[str, str] = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct --s3_bucket",
    "AccessDenied": "these credentials may not write there: allow s3:PutObject on the bucket and its prefix",
    "AllAccessDisabled": "all access to the bucket is switched off: ask its owner",
    "AccountProblem": "the AWS account has a problem: ask AWS's support",
    "InvalidAccessKeyId": "the access key does not exist (any more): give boto3 a valid one",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: correct the credentials",
    "ExpiredToken": "the session's token has expired: refresh the credentials",
    "InvalidToken": "the session's token is not valid: refresh the credentials",
    "ExpiredTokenException": "the session's token has expired: refresh the credentials",
    "InvalidClientTokenId": "the access key does not exist (any more): give boto3 a valid one",
    "TokenRefreshRequired": "the session's token must be refreshed: refresh the credentials",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than 15 minutes: set it (NTP)",
    "PermanentRedirect": "the bucket is in another region: correct --s3_region",
    "AuthorizationHeaderMalformed": "the bucket is in another region: correct --s3_region",
    "IllegalLocationConstraintException": "the bucket is in another region: correct --s3_region",
    "InvalidBucketName": "this is no bucket's name: correct --s3_bucket",
    "InvalidStorageClass": "the storage class does not exist there: correct --s3_storage_class",
    "NotImplemented": "it lacks something that the archive needs (conditional writes): use another service",
    "MethodNotAllowed": "it does not take objects: correct --s3_bucket or --s3_endpoint",
    "QuotaExceeded": "the bucket's quota is used up: make room or raise it",
    "XMinioStorageFull": "its disks are full: make room",
    "KMS.NotFoundException": "the KMS key does not exist: correct --s3_kms_key",
    "KMS.DisabledException": "the KMS key is switched off: enable it, or correct --s3_kms_key",
    "KMS.KMSInvalidStateException": "the KMS key cannot be used now: see to its state",
}
CLOCK = re.compile(r"signature (expired|not yet current)", re.IGNORECASE)
# Said by STS these are about the role.
ROLE_CODES = frozenset({"AccessDenied", "AccessDeniedException"})
KMS = "these credentials may not use the KMS key: allow kms:GenerateDataKey on it"
ROLE = "the role cannot be assumed: check --s3_role_arn, --s3_external_id and the role's trust policy"


def is_delivered(error: Exception) -> bool:
    """Whether the object was there already: an earlier attempt of this batch, as its name is its content."""
    return isinstance(error, ClientError) and (
        code_of(error) == PRECONDITION_FAILED or status_of(error) == 412
    )


def is_stale_credential(error: Exception) -> bool:
    """Whether reading the credentials again may help."""
    return isinstance(error, ClientError) and code_of(error) in STALE


def outcome_of(error: Exception, count: int, where: str, now: float) -> Outcome | None:
    """The outcome that `error` stands for in a batch of `count` events; None when it is a bug. `now`: seconds
    since the epoch."""
    if isinstance(error, ClientError):
        return refused(error, count, where, now)
    if isinstance(error, ResponseParserError):
        cause = f"{where}: something in between answered what is not AWS's. {KEPT}."
        return Outcome(later=range(count), cause=cause)
    if isinstance(error, BotoCoreError):
        return failed(error, count, where)
    return None


def refused(error: ClientError, count: int, where: str, now: float) -> Outcome:
    """The service's own refusal."""
    code, status, later = code_of(error), status_of(error), range(count)
    said, message = f"{code or 'no code'}, status {status}", message_of(error)
    if mends := advice(error, code, message):
        return Outcome(later=later, blocked=True, cause=f"{where}: {mends} ({said}). {MENDED}.")
    if code in CONFLICT:
        return Outcome(
            later=later, cause=f"{where}: another request is writing the same object ({said}). {KEPT}."
        )
    if code in TOO_LARGE or status == 413:
        cause = f"{where} found the object too large ({said}). It is sent again in halves."
        return Outcome(later=later, cause=cause, too_large=True)
    if code in BUSY or is_retryable(status):
        wait = retry_after(headers_of(error), now)
        return Outcome(
            later=later, cause=f"{where} is busy or has a fault ({said}). {KEPT}.", retry_after=wait
        )
    cause = f"{where} refused the object ({said}{': ' + message if message else ''}). {MENDED}."
    return Outcome(later=later, blocked=True, cause=cause)


def advice(error: ClientError, code: str, message: str) -> str:
    """What a person can do about a refusal; "" when nobody needs to, or nobody knows."""
    # STS has no code of its own for a wrong clock: "Signature expired: … is now earlier than …".
    if code == "SignatureDoesNotMatch" and CLOCK.search(message):
        return ADVICE["RequestTimeTooSkewed"]
    if error.operation_name == "AssumeRole":
        own = "" if code in ROLE_CODES else ADVICE.get(code, "")
        return own or (
            "" if code in BUSY or is_retryable(status_of(error)) else f"{ROLE}; STS says: {message}"
        )
    if code == "AccessDenied" and "kms:" in message:
        return (
            f"these credentials may not use the KMS key: allow kms:GenerateDataKey on it; it says: {message}"
        )
    if code == "AccessDenied" and message not in ("", "Access Denied", "Access Denied."):
        return f"{ADVICE[code]}; it says: {message}"
    return ADVICE.get(code, "")


def failed(error: BotoCoreError, count: int, where: str) -> Outcome:
    """What happened on the way there. `unknown` is harmless here: the second attempt finds the first."""
    later = range(count)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        cause = (
            f"{where}: no usable credentials ({printable(str(error))}). {MENDED}: give boto3 some "
            "(environment, ~/.aws, or the machine's role)."
        )
        return Outcome(later=later, blocked=True, cause=cause)
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        cause = f"{where}: its certificate is not trusted. {MENDED}: give the authority with --ca_file."
        return Outcome(later=later, blocked=True, cause=cause)
    if isinstance(error, SSLError):  # mostly in the handshake, but nobody can tell
        cause = f"{where}: no TLS connection ({printable(str(error))}); retrying, nothing is stored twice"
        return Outcome(later=later, unknown=True, cause=cause)
    if isinstance(error, ConnectionError):
        return Outcome(later=later, cause=f"{where} cannot be reached; retrying")
    if isinstance(error, HTTPClientError):
        cause = f"{where} did not answer ({type(error).__name__}); retrying, nothing is stored twice"
        return Outcome(later=later, unknown=True, cause=cause)
    # What is left is what boto3 finds wrong with its configuration: a profile, a region, a name, a file.
    return Outcome(later=later, blocked=True, cause=f"{where}: {printable(str(error))}. {MENDED}.")


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def headers_of(error: ClientError) -> Mapping[str, str]:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers if isinstance(headers, dict) else {}


def message_of(error: ClientError) -> str:
    return printable(str(error.response.get("Error", {}).get("Message") or ""))


def printable(text: str) -> str:
    return "".join(letter for letter in text[:300] if letter.isprintable())
