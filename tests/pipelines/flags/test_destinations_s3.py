"""S3's flags: what they take, refuse and mean together."""

from __future__ import annotations

import pytest

from pipelines.flags.settings import parse
from tests.pipelines.flags.refusing import ENVIRON, FEED, refused

BUCKET = "--s3_bucket=my-archive"


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--s3_bucket=s3://my-archive/grantex",
            "--s3_bucket: must be the bucket's name without s3://; what follows it goes into --s3_prefix; "
            "for example --s3_bucket=my-archive",
        ),
        (
            "--s3_bucket=my/archive",
            "--s3_bucket: must be a bucket's name, 3 to 63 letters, digits, -, . and _; "
            "for example --s3_bucket=my-archive",
        ),
        (
            "--s3_prefix=a//b",
            "--s3_prefix: must be at most 900 bytes without two slashes in a row; "
            "the default is grantex-events",
        ),
        (
            "--s3_region=Frankfurt",
            "--s3_region: must be a region's code, such as eu-central-1; "
            "the default is boto3's, or us-east-1",
        ),
        (
            "--s3_compression=lz4",
            "--s3_compression: must be one of gzip, zstd, none; the default is gzip",
        ),
        (
            "--s3_role_arn=archive",
            "--s3_role_arn: must be a role's ARN; "
            "for example --s3_role_arn=arn:aws:iam::123456789012:role/archive",
        ),
        (
            "--s3_storage_class=cold",
            "--s3_storage_class: must be a storage class, such as STANDARD_IA or GLACIER_IR; "
            "the default is STANDARD",
        ),
        ("--s3_external_id=x-42", "--s3_external_id: needs --s3_role_arn, the role that asks for it"),
        (
            "--s3_max_bytes=6GB",
            "--s3_max_bytes=6GB: must be from 1 to 5000000000 bytes; the default is 64 MB",
        ),
        (
            "--s3_endpoint=minio:9000",
            "--s3_endpoint: must be a URL that begins with https:// or http:// and a host; "
            "for example --s3_endpoint=https://minio.example.com:9000",
        ),
    ],
)
def test_a_wrong_flag_gets_one_line(argument: str, line: str) -> None:
    flags = [argument] if argument.startswith("--s3_bucket") else [BUCKET, argument]
    assert refused(*flags, "--files_dir=./out") == [line]


def test_every_flag_but_the_first_needs_the_first() -> None:
    lines = refused("--s3_region=eu-central-1", "--s3_max_age=60", "--files_dir=./out")
    assert lines == [
        "--s3_region: needs --s3_bucket, which switches S3 on",
        "--s3_max_age: needs --s3_bucket, which switches S3 on",
    ]


@pytest.mark.parametrize(("given", "prefix"), [("/a/b/", "a/b"), ("/", ""), ("dt", "dt"), ("a b", "a b")])
def test_slashes_around_a_prefix_are_not_part_of_it(given: str, prefix: str) -> None:
    assert parse([FEED, BUCKET, f"--s3_prefix={given}"], ENVIRON)["s3_prefix"] == prefix


@pytest.mark.parametrize(
    "name",
    ["a.b-c", "Old_Bucket", "arn:aws:s3:us-west-2:123456789012:accesspoint/archive"],
)
def test_every_kind_of_bucket_is_taken(name: str) -> None:
    assert parse([FEED, f"--s3_bucket={name}"], ENVIRON)["s3_bucket"] == name


def test_what_another_service_is_called_may_have_a_path() -> None:
    settings = parse([FEED, BUCKET, "--s3_endpoint=https://gate.example.com/s3/"], ENVIRON)
    assert settings["s3_endpoint"] == "https://gate.example.com/s3"
