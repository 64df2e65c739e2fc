"""Google Cloud Storage: events as NDJSON objects, laid out as in S3; each id once, also after kill -9."""

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
    from transforms.write.gcs.writer import GCSWriter

# "Buckets: requirements for names"; with dots, of domains, up to 222 characters.
BUCKET = "[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]"
KEY = "projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+"


def bucket_name(text: str) -> str:
    """A bucket's name."""
    if text.startswith("gs://"):
        raise ValueError("must be the bucket's name without gs://; what follows it goes into --gcs_prefix")
    return readers.matching(BUCKET, "a bucket's name, 3 to 222 small letters, digits, -, . and _")(text)


@dataclass(frozen=True)
class GCS(InABucket):
    """Settings of a bucket of Google Cloud Storage.

    prefix: of the objects' names, without slashes around it; "" for none.
    layout: `hive` has a directory for each hour of created_at, which query engines skip by; `flat` has none.
    compression: of the objects; `gzip`, `zstd` or `none`. They carry no Content-Encoding: Cloud Storage would
        unpack such an object for some readers and not for others, under one name.
    storage_class: None leaves it to the bucket.
    kms_key: of Cloud KMS, to encrypt with; None leaves it to the bucket.
    endpoint: another root of the service; http:// means an emulator, for which no credentials are read.
        Otherwise they are Google's application default credentials.
    way_out: the proxy, and the authorities to trust beside the usual ones.
    """

    bucket: str = setting(
        "Bucket that objects go to; credentials are Google's application default ones.",
        read=bucket_name,
        pattern=BUCKET,
        target=True,
        example="my-archive",
    )
    prefix: str = setting("What objects' names begin with; / for nothing.", "grantex-events", read=key_prefix)
    layout: Layout = setting("hive: dt=DATE/hour=HH of created_at; flat: no directories.", "hive")
    endpoint: str | None = setting(
        "Root of another service with Cloud Storage's JSON API; http:// is an emulator without credentials.",
        None,
        url="/storage/v1",
        example="http://127.0.0.1:9023",
    )
    compression: Compression = setting("How objects are compressed.", "gzip")
    storage_class: str | None = setting(
        "Storage class of the objects.",
        None,
        pattern="[A-Z][A-Z_]*",
        right="a storage class, such as NEARLINE or ARCHIVE",
        default_text="the bucket's own",
        example="NEARLINE",
    )
    kms_key: str | None = setting(
        "Cloud KMS key to encrypt with.",
        None,
        pattern=KEY,
        right="projects/P/locations/L/keyRings/R/cryptoKeys/K",
        default_text="the bucket's own",
        example="projects/my-project/locations/eu/keyRings/audit/cryptoKeys/archive",
    )
    way_out: WayOut = shared("way_out", USUAL)
    # A batch is held in memory until its object is written.
    policy: BatchPolicy = batches(POLICY, "in one object", compressed=True, most_bytes=MOST_BYTES)
    # One object is packed while another is on its way.
    concurrency: int = 2
    asked: Asked = asked_for()

    name: ClassVar[str] = "gcs"
    title: ClassVar[str] = "Google Cloud Storage"
    scheme: ClassVar[str] = "gs://"

    def __post_init__(self) -> None:
        if faults := list(self.faults()):
            raise BadSettings(faults)

    def faults(self) -> Iterator[tuple[str, str]]:
        """A password would be shown."""
        if fault := address_fault(self.endpoint):
            yield "endpoint", fault

    @property
    def anonymous(self) -> bool:
        """Talks to an emulator, which asks for no credentials."""
        return (self.endpoint or "").startswith("http://")

    def check(self) -> Iterator[Finding]:
        """Put one small object, with the conditions, class and key of all others. It stays."""
        with contextlib.closing(self.open()) as writer:
            yield from writer.check()

    def open(self) -> GCSWriter:
        """Raises OSError when an authority cannot be read."""
        from transforms.write.gcs.writer import GCSWriter  # which brings Google's checksums

        return GCSWriter(self)
