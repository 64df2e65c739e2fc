"""S3: its parameters, the rule between them, and the destination they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.flags import parameter
from pipelines.flags.command_line import Arrived
from pipelines.flags.parameter import Group, byte_count, choice, seconds, text, url, whole
from transforms.write.s3.destination import S3

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

GROUP = Group("S3", destination="s3", first="s3_bucket")


def bucket(text: str) -> str:
    """A bucket's name (capitals and _ are for older ones and other services), or an access point's ARN."""
    if text.startswith("s3://"):
        raise ValueError("must be the bucket's name without s3://; what follows it goes into --s3_prefix")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{1,61}[A-Za-z0-9]|arn:[\w:/.-]+", text, re.ASCII):
        raise ValueError("must be a bucket's name, 3 to 63 letters, digits, -, . and _")
    return text


def prefix(text: str) -> str:
    """What object keys begin with, without slashes around it; a "/" alone is none."""
    found = parameter.line(text).strip("/")
    # Keys have 1024 bytes, and hour, time and hash take up to a hundred.
    if "//" in found or len(found.encode()) > 900:
        raise ValueError("must be at most 900 bytes without two slashes in a row")
    return found


def _matching(pattern: str, right: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"must be {right}")
        return text

    return read


@dataclass(frozen=True, kw_only=True)
class S3Parameters:
    s3_bucket: str = text(
        GROUP,
        "",
        "Bucket that objects go to; credentials come from boto3's usual chain.",
        read=bucket,
        pattern=r"([A-Za-z0-9][\w.-]{1,61}[A-Za-z0-9]|arn:[\w:/.-]+)",
        in_demo=False,
        example="my-archive",
    )
    s3_prefix: str = text(GROUP, "grantex-events", "What object keys begin with; / for nothing.", read=prefix)
    s3_layout: Literal["hive", "flat"] = choice(
        GROUP,
        "hive",
        "hive: dt=DATE/hour=HH of created_at; flat: no directories, as the Node package.",
        ("hive", "flat"),
    )
    s3_region: str = text(
        GROUP,
        "",
        "Region of the bucket.",
        read=_matching(r"[a-z0-9][a-z0-9-]*", "a region's code, such as eu-central-1"),
        default_text="boto3's, or us-east-1",
        example="eu-central-1",
    )
    s3_endpoint: str = url(
        GROUP,
        "",
        "URL of another service with S3's protocol, addressed in path style.",
        ours="",
        example="https://minio.example.com:9000",
    )
    s3_compression: Literal["gzip", "zstd", "none"] = choice(
        GROUP, "gzip", "How objects are compressed.", ("gzip", "zstd", "none")
    )
    s3_role_arn: str = text(
        GROUP,
        "",
        "Role to assume.",
        read=_matching(r"arn:[\w-]+:iam::\d*:role/[\w+=,.@/-]+", "a role's ARN"),
        in_demo=False,
        example="arn:aws:iam::123456789012:role/archive",
    )
    s3_external_id: str = text(
        GROUP,
        "",
        "External id that the role's owner asks for.",
        parent=("s3_role_arn",),
        # STS's AssumeRole
        read=_matching(r"[\w+=,.@:/-]{2,1224}", "2 to 1224 letters, digits and _+=,.@:/-"),
        in_demo=False,
    )
    s3_storage_class: str = text(
        GROUP,
        "",
        "Storage class of the objects.",
        read=_matching(r"[A-Z][A-Z0-9_]*", "a storage class, such as STANDARD_IA or GLACIER_IR"),
        default_text="STANDARD",
        example="STANDARD_IA",
    )
    s3_kms_key: str = text(
        GROUP,
        "",
        "Id, alias or ARN of the KMS key to encrypt with.",
        read=_matching(r"[\w:/-]{1,2048}", "a KMS key's id, alias/NAME or ARN"),
        default_text="the bucket's own",
        example="alias/archive",
    )
    s3_max_events: int = whole(GROUP, 10_000, "Events in one object.", at_least=1)
    # A batch is held in memory until its object is written; S3 takes 5 GB in one request.
    s3_max_bytes: int = byte_count(
        GROUP, 64_000_000, "Bytes in one object, before compression.", at_most=5_000_000_000
    )
    s3_max_age: float = seconds(GROUP, 300, "How long an event waits for others.")


def faults(settings: Settings, arrived: Arrived) -> Iterator[str]:
    """An external id without a role would be passed over in silence."""
    given = settings.given
    if "s3_external_id" in given and "s3_role_arn" not in given:
        yield f"{arrived.source('s3_external_id')}: needs --s3_role_arn, the role that asks for it"


def destination(settings: Settings) -> S3:
    """What `settings` ask for."""
    return S3(
        bucket=settings.s3_bucket,
        prefix=settings.s3_prefix,
        layout=settings.s3_layout,
        region=settings.s3_region or None,
        endpoint=settings.s3_endpoint or None,
        compression=settings.s3_compression,
        role_arn=settings.s3_role_arn or None,
        external_id=settings.s3_external_id or None,
        storage_class=settings.s3_storage_class or None,
        kms_key=settings.s3_kms_key or None,
        way_out=settings.way_out,
        policy=settings.batch_policy(GROUP.destination),
    )
