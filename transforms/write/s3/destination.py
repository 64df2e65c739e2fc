"""S3: events as NDJSON objects, one a batch, partitioned by hour; each id once, also after kill -9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.way_out import USUAL, WayOut
from transforms.write.archive import Compression, hour_partition
from transforms.write.contract import Destination

if TYPE_CHECKING:
    from transforms.write.s3.writer import S3Writer

Layout = Literal["hive", "flat"]

# The peer's and the archive's sizes: a query engine likes few large objects, and five minutes is what people
# wait for an archive. One PUT takes 5 GB; 64 MB are what one batch may hold in memory.
POLICY = BatchPolicy(max_events=10_000, max_bytes=64_000_000, max_age=300.0)


@dataclass(frozen=True)
class S3(Destination):
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
    """

    bucket: str
    prefix: str = "grantex-events"
    region: str | None = None
    endpoint: str | None = None
    compression: Compression = "gzip"
    role_arn: str | None = None
    external_id: str | None = None
    storage_class: str | None = None
    kms_key: str | None = None
    way_out: WayOut = USUAL
    policy: BatchPolicy = POLICY
    # One object is packed while another is on its way; each one more is a client of 20 MB.
    concurrency: int = 2
    layout: Layout = "hive"

    name: ClassVar[str] = "s3"

    def partition(self, event: Event) -> str:
        """The hour of `created_at` in the Hive layout: an object never mixes hours."""
        return hour_partition(event) if self.layout == "hive" else ""

    def open(self) -> S3Writer:
        """No connection is made yet, and no credential is read."""
        # Here, because boto3 takes a third of a second to import, also from those who do not use it.
        from transforms.write.s3.writer import S3Writer

        return S3Writer(self)
