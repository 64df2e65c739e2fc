"""S3: events as NDJSON objects, one a batch, partitioned by hour; each id once, also after kill -9."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from transforms import readers
from transforms.batch import BatchPolicy, batches
from transforms.preflight import Finding
from transforms.readers import address_fault
from transforms.setting import BadSettings, setting, shared
from transforms.way_out import USUAL, WayOut
from transforms.write.archive import MOST_BYTES, POLICY, Compression, InABucket, Layout, key_prefix
from transforms.write.asked import Asked, asked_for

if TYPE_CHECKING:
    from transforms.write.s3.writer import S3Writer

# Capitals and _ are for older buckets and other services; the second is an access point's ARN.
BUCKET = "([A-Za-z0-9][A-Za-z0-9_.-]{1,61}[A-Za-z0-9]|arn:[A-Za-z0-9_:/.-]+)"
ROLE = "arn:[A-Za-z0-9_-]+:iam::[0-9]*:role/[A-Za-z0-9_+=,.@/-]+"
SIGNS = "[A-Za-z0-9_+=,.@:/-]+"  # STS's AssumeRole: of an external id
LONGEST_EXTERNAL_ID = 1224


def bucket_name(text: str) -> str:
    """A bucket's name, or an access point's ARN."""
    if text.startswith("s3://"):
        raise ValueError("must be the bucket's name without s3://; what follows it goes into --s3_prefix")
    return readers.matching(BUCKET, "a bucket's name, 3 to 63 letters, digits, -, . and _")(text)


def external_id_text(text: str) -> str:
    """An id that a role's owner asks for."""
    right = f"2 to {LONGEST_EXTERNAL_ID} letters, digits and _+=,.@:/-"
    if not 2 <= len(text) <= LONGEST_EXTERNAL_ID:
        raise ValueError(f"must be {right}")
    return readers.matching(SIGNS, right)(text)


@dataclass(frozen=True)
class S3(InABucket):
    """Settings of an S3 bucket, or of one that speaks its protocol (MinIO, SeaweedFS, R2, ...).

    Credentials come from boto3's usual chain: environment, shared files, container or instance role. On top
    of them `role_arn` is assumed when it is given, with `external_id` when its owner asks for one.

    prefix: of the object keys, without slashes around it; "" for none.
    layout: `hive` has a directory for each hour of created_at, which query engines skip by; `flat` has none.
    region: None leaves it to boto3's chain (and to "us-east-1" when that has none).
    endpoint: URL of another service; it is addressed in path style.
    compression: of the objects; `gzip`, `zstd` or `none`.
    storage_class: None leaves it to S3 ("STANDARD").
    kms_key: id, alias or ARN of the KMS key to encrypt with; None leaves it to the bucket's own setting.
    way_out: the proxy, and the authorities to trust beside the usual ones.

    Raises ValueError for an external id without a role.
    """

    bucket: str = setting(
        "Bucket that objects go to; credentials come from boto3's usual chain.",
        read=bucket_name,
        pattern=BUCKET,
        target=True,
        example="my-archive",
    )
    prefix: str = setting("What object keys begin with; / for nothing.", "grantex-events", read=key_prefix)
    layout: Layout = setting(
        "hive: dt=DATE/hour=HH of created_at; flat: no directories, as the Node package.", "hive"
    )
    region: str | None = setting(
        "Region of the bucket.",
        None,
        pattern="[a-z0-9][a-z0-9-]*",
        right="a region's code, such as eu-central-1",
        default_text="boto3's, or us-east-1",
        example="eu-central-1",
    )
    endpoint: str | None = setting(
        "URL of another service with S3's protocol, addressed in path style.",
        None,
        url="",
        example="https://minio.example.com:9000",
    )
    compression: Compression = setting("How objects are compressed.", "gzip")
    role_arn: str | None = setting(
        "Role to assume.",
        None,
        pattern=ROLE,
        right="a role's ARN",
        target=True,
        example="arn:aws:iam::123456789012:role/archive",
    )
    external_id: str | None = setting(
        "External id that the role's owner asks for.",
        None,
        parent=("role_arn",),
        read=external_id_text,
        pattern=SIGNS,
        target=True,
    )
    storage_class: str | None = setting(
        "Storage class of the objects.",
        None,
        pattern="[A-Z][A-Z0-9_]*",
        right="a storage class, such as STANDARD_IA or GLACIER_IR",
        default_text="STANDARD",
        example="STANDARD_IA",
    )
    kms_key: str | None = setting(
        "Id, alias or ARN of the KMS key to encrypt with.",
        None,
        pattern="[A-Za-z0-9_:/-]+",
        right="a KMS key's id, alias/NAME or ARN",
        default_text="the bucket's own",
        example="alias/archive",
    )
    way_out: WayOut = shared("way_out", USUAL)
    # A batch is held in memory until its object is written.
    policy: BatchPolicy = batches(POLICY, "in one object", compressed=True, most_bytes=MOST_BYTES)
    # One object is packed while another is on its way; each one more is a client of 20 MB.
    concurrency: int = 2
    asked: Asked = asked_for()

    name: ClassVar[str] = "s3"
    title: ClassVar[str] = "S3"
    scheme: ClassVar[str] = "s3://"

    def __post_init__(self) -> None:
        if faults := list(self.faults()):
            raise BadSettings(faults)

    def faults(self) -> Iterator[tuple[str, str]]:
        """An external id without a role would be passed over in silence; a password would be shown."""
        if fault := address_fault(self.endpoint):
            yield "endpoint", fault
        if self.external_id and not self.role_arn:
            yield "external_id", "needs {role_arn}, the role that asks for it"

    def check(self) -> Iterator[Finding]:
        """Put one small object, with the conditions, class and key of all others. It stays."""
        with contextlib.closing(self.open()) as writer:
            yield from writer.check()

    def open(self) -> S3Writer:
        """No connection is made yet, and no credential is read."""
        # Here, because boto3 takes a third of a second to import, also from those who do not use it.
        from transforms.write.s3.writer import S3Writer

        return S3Writer(self)
