"""Every failure of a destination and what a person does about it: one table for messages, page and
docs/runbook.md, which `python -m pipelines.packs` makes of it. The feed's is transforms/feed/advice.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KEPT = "The events are kept and sent again"
ONCE_FIXED = f"{KEPT} once this is fixed"


@dataclass(frozen=True)
class Advice:
    """One failure.

    seen: how the destination says it. what: what has happened, in a message behind the destination's name.
    do: what a person does about it; "" when it passes by itself. `what` and `do` may have {names} in them.
    """

    seen: str
    what: str
    do: str = ""

    def told(self, where: str, said: str = "", **names: str) -> str:
        """The message. where: the destination as a person knows it; said: its own words, fit to be shown."""
        what = self.what.format_map(names) + (f" ({said})" if said else "")
        separator = "" if what.startswith(":") else " "
        if not self.do:
            return f"{where}{separator}{what}. {KEPT}."
        return f"{where}{separator}{what}. {ONCE_FIXED}: {self.do.format_map(names)}."


def parted(cause: str) -> tuple[str, str]:
    """A message of `told` in two, for a reader with no event in hand: what has happened, and what to do
    about it ("" when that passes by itself). Any other text is the first of them."""
    what, _, do = cause.partition(f" {ONCE_FIXED}: ")
    return (what.removesuffix(f" {KEPT}."), do)


CERTIFICATE = Advice(
    "its certificate's authority is unknown here",
    ": its certificate is not trusted",
    "give the authority with --ca_file",
)
IN_BETWEEN = "let this program through the proxy, firewall or sign-in page that stands in between"

# Of every destination.
ANY: Mapping[str, Advice] = {
    "secret": Advice("the key or token cannot be read", ": {why}", "make the secret readable here"),
    "certificate": CERTIFICATE,
    "unreachable": Advice("no connection", "cannot be reached"),
    "no_answer": Advice(
        "the connection broke, or no answer came in time", "did not answer; what was sent may have arrived"
    ),
    "odd_answer": Advice(
        "an answer that cannot be read at all", "answered what cannot be read; what was sent may have arrived"
    ),
    "refuses_all": Advice(
        "every event is refused, and none is taken",
        "refuses every event that it is sent; nothing becomes a dead letter until it takes another one",
        "correct what they have in common, such as the URL or the settings of it; a single event "
        "that is to blame becomes a dead letter by itself as soon as another one is taken",
    ),
}  # fmt: skip

# Of every destination that is spoken to by HTTP, where its own words do not say more.
HTTP: Mapping[str, Advice] = {
    "busy": Advice("408, 429, any 5xx", "is busy or has a fault"),
    "gateway": Advice(
        "502, 504, 520 to 527, 530, 598, 599",
        "did not answer what stands in front of it; what was sent may have arrived",
    ),
    "not_its_words": Advice(
        "2xx with a page, an error or another service's words",
        "did not confirm the events: the answer is not its own",
        f"{IN_BETWEEN}, or correct its URL",
    ),
    "not_its_refusal": Advice(
        "401, 403 or 511 in words that are not the service's",
        "was not reached: something in between refused the request",
        f"{IN_BETWEEN}, or correct its URL (and {{credential}}, if nothing stands in between)",
    ),
    "credential": Advice(
        "401, 403", "refused the credential", "correct the key or token, or give it the rights to write there"
    ),
    "redirect": Advice(
        "3xx",
        "redirects elsewhere",
        "correct its URL; if that is a sign-in page, let this program through what shows it",
    ),
    "path": Advice("404, 405, 410", "does not serve this path", "correct its URL"),
    "proxy": Advice(
        "407", "cannot be reached without signing in to a proxy", "put user and password into the proxy's URL"
    ),
    "compression": Advice("415", "does not accept compressed requests", "set --http_compression=none"),
    "refused": Advice("any other status", "refused the request", "check its URL and what stands in between"),
    "request": Advice(
        "the request cannot be built",
        ": the request cannot be built",
        "look for characters in its URL and token that do not belong there",
    ),
}  # fmt: skip

SPLUNK: Mapping[str, Advice] = {
    "token": Advice(
        "HEC codes 1, 2, 3, 4, 21, 22", "refused the HEC token", "enable or correct --splunk_hec_token"
    ),
    "index": Advice(
        "HEC code 7",
        "has no index {index}, or this token may not write to it",
        "create the index, allow it for the token, or correct --splunk_index (--splunk_index_by_type)",
    ),
    "busy": Advice("HEC codes 8, 9, 18, 19, 20, 23, 26, 27", "is busy"),
    "no_data": Advice(
        "HEC code 5", "received an empty request", "find what drops the bodies of requests on the way"
    ),
    "channel_needed": Advice(
        "HEC code 10",
        "took nothing: this HEC token has indexer acknowledgement",
        "give --splunk_acknowledge=true, or a token without it",
    ),
    "channel_wrong": Advice(
        "HEC code 11",
        "took nothing: it knows no such channel",
        "find what puts a channel of its own into our requests on the way",
    ),
    "no_acknowledgement": Advice(
        "HEC code 14",
        "took nothing: this HEC token has no indexer acknowledgement",
        "turn it on for the token (useACK), or leave --splunk_acknowledge out",
    ),
    "no_ack_path": Advice(
        "404 at /services/collector/ack",
        "offers no acknowledgements (404 at /services/collector/ack; Splunk Cloud has none)",
        "leave --splunk_acknowledge out, or correct --splunk_hec_url",
    ),
}  # fmt: skip

DATADOG: Mapping[str, Advice] = {
    "api_key": Advice("401, 403", "refused the API key", "give a valid --datadog_api_key{and_site}"),
}

_REGION = "correct --s3_region"
S3: Mapping[str, Advice] = {
    code: Advice(code, f": {what}", do)
    for code, (what, do) in {
        "NoSuchBucket": ("the bucket does not exist", "create it, or correct --s3_bucket"),
        "AccessDenied": (
            "these credentials may not write there", "allow s3:PutObject on the bucket and its prefix"
        ),
        "AllAccessDisabled": ("all access to the bucket is switched off", "ask its owner"),
        "AccountProblem": ("the AWS account has a problem", "ask AWS's support"),
        "InvalidAccessKeyId": ("the access key does not exist (any more)", "give boto3 a valid one"),
        "InvalidClientTokenId": ("the access key does not exist (any more)", "give boto3 a valid one"),
        "SignatureDoesNotMatch": (
            "the secret key does not belong to the access key", "correct the credentials"
        ),
        "ExpiredToken": ("the session's token has expired", "refresh the credentials"),
        "ExpiredTokenException": ("the session's token has expired", "refresh the credentials"),
        "InvalidToken": ("the session's token is not valid", "refresh the credentials"),
        "TokenRefreshRequired": ("the session's token must be refreshed", "refresh the credentials"),
        "RequestTimeTooSkewed": (
            "this machine's clock is wrong by more than 15 minutes", "set the clock (NTP)"
        ),
        "PermanentRedirect": ("the bucket is in another region", _REGION),
        "AuthorizationHeaderMalformed": ("the bucket is in another region", _REGION),
        "IllegalLocationConstraintException": ("the bucket is in another region", _REGION),
        "InvalidBucketName": ("this is no bucket's name", "correct --s3_bucket"),
        "InvalidStorageClass": ("the storage class does not exist there", "correct --s3_storage_class"),
        "NotImplemented": (
            "it lacks something that the archive needs (conditional writes)", "use another service"
        ),
        "MethodNotAllowed": ("it does not take objects", "correct --s3_bucket or --s3_endpoint"),
        "QuotaExceeded": ("the bucket's quota is used up", "make room or raise it"),
        "XMinioStorageFull": ("its disks are full", "make room"),
        "KMS.NotFoundException": ("the KMS key does not exist", "correct --s3_kms_key"),
        "KMS.DisabledException": (
            "the KMS key is switched off", "enable it, or correct --s3_kms_key"
        ),
        "KMS.KMSInvalidStateException": ("the KMS key cannot be used now", "see to its state"),
        "no KMS right": ("these credentials may not use the KMS key", "allow kms:GenerateDataKey on it"),
        "no role": (
            "the role cannot be assumed",
            "check --s3_role_arn, --s3_external_id and the role's trust policy",
        ),
        "no credentials": (
            "no usable credentials", "give boto3 some (environment, ~/.aws, or the machine's role)"
        ),
        "no request": ("it cannot be asked like this", "correct the settings of S3 and of boto3"),
        "no ETag": (
            "it did not confirm the object: the answer has no ETag, or is a page",
            f"{IN_BETWEEN}, or correct --s3_endpoint",
        ),
        "a redirect without a region": (
            "the answer leads elsewhere, and is not S3's", f"{_REGION} or --s3_endpoint, or {IN_BETWEEN}"
        ),
        "no words of S3": (
            "something in between answered, not S3", f"{IN_BETWEEN}, or correct --s3_endpoint"
        ),
        "any other code": ("it refused the object", "look the code up in the service's documentation"),
        "ConditionalRequestConflict, OperationAborted": ("another request is writing the same object", ""),
        "SlowDown, InternalError and the like": ("it is busy or has a fault", ""),
        "no TLS connection": ("no TLS connection; nothing is stored twice", ""),
        "no answer in time": ("it did not answer; nothing is stored twice", ""),
    }.items()
}  # fmt: skip

KAFKA: Mapping[str, Advice] = {
    "sign_in": Advice(
        "SASL_AUTHENTICATION_FAILED and the like",
        "refused to sign us in",
        "correct the user, the password and sasl.mechanism in --kafka_config",
    ),
    "token_package": Advice(
        "AWS's signer is not installed (--kafka_token=msk-iam)",
        ": AWS's signer of tokens is not installed",
        "pip install 'grantex-beam[msk]', on workers too",
    ),
    "token_none": Advice(
        "no credentials for --kafka_token",
        ": no credentials to make a token of",
        "give the job AWS's usual credentials, or Google's default ones (ADC) of a service account",
    ),
    "token_region": Advice(
        "servers without a region in their names (--kafka_token=msk-iam)",
        ": no AWS region in the names of its servers",
        "set AWS_REGION where the job runs",
    ),
    "token_way": Advice(
        "no way to AWS's credentials", ": no way to a token", "correct --ca_file or the proxy"
    ),
    "token_service": Advice(
        "the service that gives tokens does not answer", ": no new token, as who gives them does not answer"
    ),
    "token_refused": Advice(
        "SASL_AUTHENTICATION_FAILED with --kafka_token",
        "refused the token that signs us in",
        "allow the job's account kafka-cluster:Connect (AWS), or give it roles/managedkafka.client (Google)",
    ),
    "tls": Advice(
        "_SSL", ": no trusted TLS connection", "give the authority with --ca_file, or correct ssl.* settings"
    ),
    "topic": Advice(
        "UNKNOWN_TOPIC_OR_PART", "has no topic {topic}", "create it, or correct --kafka_topic"
    ),
    "denied": Advice(
        "TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED",
        ": this user may not write to topic {topic}",
        "grant Write (and IdempotentWrite before 3.0)",
    ),
    "configuration": Advice(
        "librdkafka refuses its settings", ": its settings do not fit", "correct --kafka_config"
    ),
    "unreachable": Advice("_TRANSPORT, _RESOLVE", "cannot be reached"),
    "maybe_tls": Advice(
        "_ALL_BROKERS_DOWN",
        "cannot be reached; if it is up, check security.protocol in --kafka_config",
    ),
    "other": Advice("any other code", "did not take everything"),
    "no_report": Advice("no delivery report in time", "has not acknowledged everything within {seconds} s"),
}  # fmt: skip

FILES: Mapping[str, Advice] = {
    name: Advice(name, f": {what}", do)
    for name, (what, do) in {
        "ENOSPC": ("the disk is full", "make room"),
        "EDQUOT": ("the quota is used up", "make room or raise it"),
        "EACCES": ("writing is not permitted", "let this program's user write there"),
        "EPERM": ("writing is not permitted", "let this program's user write there"),
        "EROFS": ("the file system is read-only", "mount it for writing"),
        "ENOENT": (
            "the directory, or .unfinished in it, has gone", "mount what belongs there, or restart"
        ),
        "EEXIST": ("a file stands where a directory should", "move it away"),
        "ENOTDIR": ("a part of the path is not a directory", "correct --files_dir"),
        "EISDIR": ("a directory stands where a file should", "move it away"),
        "ENAMETOOLONG": ("the path is too long", "give a shorter --files_dir"),
        "ELOOP": ("the path has too many symbolic links", "correct the links or --files_dir"),
        "EFBIG": ("a file may not grow that large here", "raise the limit, or give smaller batches"),
        "EIO": ("the disk reports an error", "see to the disk"),
        "ESTALE": ("the network file system has lost the directory", "mount it again"),
        "ETIMEDOUT": ("the network file system does not answer", "see to its server"),
        "ENXIO": ("the device has gone", "bring it back"),
        "ENODEV": ("the device has gone", "bring it back"),
        "EMFILE": ("this process has too many open files", "raise its limit (ulimit -n)"),
        "ENFILE": ("this machine has too many open files", "raise its limit (fs.file-max)"),
    }.items()
}  # fmt: skip

_KEY = "see to the table's encryption key (CMEK) and BigQuery's right to use it"
GOOGLE: Mapping[str, Advice] = {
    "no_token": Advice(
        "no access token",
        ": Google gives no access token",
        "set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth application-default login`, or "
        "run with a service account that may write there",
    ),
    "token_service": Advice("the token service is away", ": Google's token service cannot be reached"),
    "certificate": CERTIFICATE,
}  # fmt: skip
BIGQUERY: Mapping[str, Advice] = {
    code: Advice(code, "answered", do)
    for code, do in {
        "UNAUTHENTICATED": "give a service account or user that is valid",
        "PERMISSION_DENIED": "grant the service account roles/bigquery.dataEditor on the dataset",
        "NOT_FOUND": "create the dataset, or correct --bigquery_table",
        "INVALID_ARGUMENT": "compare the table's columns with --bigquery_schema",
        "UNIMPLEMENTED": "correct --bigquery_storage_endpoint, which does not serve the Storage Write API",
        "SCHEMA_MISMATCH_EXTRA_FIELDS": "add the column that --bigquery_schema writes and the table lacks",
        "CMEK_NOT_PROVIDED": _KEY,
        "INVALID_CMEK_PROVIDED": _KEY,
        "CMEK_ENCRYPTION_ERROR": _KEY,
        "KMS_PERMISSION_DENIED": _KEY,
    }.items()
}  # fmt: skip
GCS: Mapping[str, Advice] = {
    "401": Advice("401", "answered", "give a service account or user that is valid"),
    "403": Advice("403", "answered", "grant the service account roles/storage.objectCreator on the bucket"),
    "404": Advice("404", "answered", "create the bucket, or correct --gcs_bucket"),
    "kms": Advice(
        "400, 403, 404 about Cloud KMS",
        "answered",
        "see to --gcs_kms_key, its state, and the right of Cloud Storage's service agent to use it",
    ),
    "policy": Advice(
        "412 about a constraint",
        "answered",
        "ask who keeps the organization's policies, or choose another bucket, class or key",
    ),
    "conflict": Advice("409", "answered"),
    "damaged": Advice("400 about a checksum", "got other bytes than were sent"),
}  # fmt: skip
PUBSUB: Mapping[str, Advice] = {
    code: Advice(code, "answered", do)
    for code, do in {
        "UNAUTHENTICATED": "give a service account or user that is valid",
        "PERMISSION_DENIED": "grant the service account roles/pubsub.publisher on the topic",
        "NOT_FOUND": "create the topic, or correct --pubsub_topic",
        "FAILED_PRECONDITION": "look at the topic's encryption key and its state",
        "UNIMPLEMENTED": "correct --pubsub_endpoint, which does not serve Pub/Sub over gRPC",
    }.items()
} | {
    "no right": Advice(
        "no right to publish, when asked which rights there are",
        ": these credentials may not publish there, or it does not exist",
        "create the topic, or grant the service account roles/pubsub.publisher on it",
    )
}  # fmt: skip

ADVICE: Mapping[str, Mapping[str, Advice]] = {
    "Every destination": ANY,
    "Every destination behind HTTP": HTTP,
    "Splunk": SPLUNK,
    "Datadog": DATADOG,
    "S3": S3,
    "Kafka": KAFKA,
    "Files": FILES,
    "Google (BigQuery, Cloud Storage and Pub/Sub)": GOOGLE,
    "BigQuery": BIGQUERY,
    "Google Cloud Storage": GCS,
    "Pub/Sub": PUBSUB,
}
