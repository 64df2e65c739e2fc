"""What S3's refusals and a broken way to it mean for a batch: pure functions.

Codes are those of Amazon's "Error responses" of S3, of STS and of KMS. No refusal is ever an event's own
fault, so nothing is rejected here but a request that is too large even alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)

from transforms.write.contract import Outcome
from transforms.write.http_outcome import KEPT, is_retryable, retry_after

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
ROLE = "the role cannot be assumed: check --s3_role_arn, --s3_external_id and the role's trust policy"


def is_delivered(error: Exception) -> bool:
    """Whether the object was there already: an earlier attempt of this batch, as its name is its content."""
    return isinstance(error, ClientError) and (
        code_of(error) == PRECONDITION_FAILED or status_of(error) == 412
    )


def is_stale_credential(error: Exception) -> bool:
    """Whether reading the credentials again may help."""
    return isinstance(error, ClientError) and code_of(error) in STALE


def outcome_of(error: Exception, count: int, where: str) -> Outcome | None:
    """The outcome that `error` stands for in a batch of `count` events; None when it is a bug."""
    if isinstance(error, ClientError):
        return refused(error, count, where)
    if isinstance(error, BotoCoreError):
        return failed(error, count, where)
    return None


def refused(error: ClientError, count: int, where: str) -> Outcome:
    """The service's own refusal."""
    code, status, later = code_of(error), status_of(error), range(count)
    said = f"{code or 'no code'}, status {status}"
    wait = retry_after(headers_of(error), now=0.0)
    if error.operation_name == "AssumeRole" and not is_retryable(status):
        return Outcome(later=later, blocked=True, cause=f"{where}: {ROLE} ({said}). {MENDED}.")
    if code in CONFLICT:
        return Outcome(
            later=later, cause=f"{where}: another request is writing the same object ({said}). {KEPT}."
        )
    if code in TOO_LARGE or status == 413:
        cause = f"{where} found the object too large ({said}). It is sent again in halves."
        return Outcome(later=later, cause=cause, too_large=True)
    if code in ADVICE:
        return Outcome(later=later, blocked=True, cause=f"{where}: {ADVICE[code]} ({said}). {MENDED}.")
    if code in BUSY or is_retryable(status):
        return Outcome(
            later=later, cause=f"{where} is busy or has a fault ({said}). {KEPT}.", retry_after=wait
        )
    message = printable(str(error.response.get("Error", {}).get("Message", "")))
    cause = f"{where} refused the object ({said}{': ' + message if message else ''}). {MENDED}."
    return Outcome(later=later, blocked=True, cause=cause)


def failed(error: BotoCoreError, count: int, where: str) -> Outcome | None:
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
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)):
        return Outcome(later=later, cause=f"{where} cannot be reached; retrying")
    if isinstance(error, (HTTPClientError, ConnectionClosedError)):
        cause = f"{where} did not answer ({type(error).__name__}); retrying, nothing is stored twice"
        return Outcome(later=later, unknown=True, cause=cause)
    if type(error).__module__ == "botocore.exceptions" and type(error).__name__ in CONFIGURATION:
        return Outcome(later=later, blocked=True, cause=f"{where}: {printable(str(error))}. {MENDED}.")
    return None


# A profile, region or file that is wrong.
CONFIGURATION = frozenset(
    {
        "ConfigNotFound",
        "ConfigParseError",
        "InvalidConfigError",
        "InvalidEndpointConfigurationError",
        "InvalidRegionError",
        "NoRegionError",
        "ProfileNotFound",
        "SSOError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def headers_of(error: ClientError) -> Mapping[str, str]:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers if isinstance(headers, dict) else {}


def printable(text: str) -> str:
    return "".join(letter for letter in text[:200] if letter.isprintable())
