"""S3's error codes, told by a server on loopback to the real client: what each means, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.local.practice.http_server import PracticeServer
from pipelines.local.practice.http_wire import Answer, Request
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk_server import all_later
from transforms.write import s3_client
from transforms.write.contract import Outcome, Writer
from transforms.write.s3 import S3

HOUR = "dt=2026-03-01/hour=12"


class Bucket(PracticeServer):
    """Takes every object, unless it was told to answer something else."""

    def judge(self, request: Request) -> Answer:
        self.taken([request.path])
        return Answer(200, b"")

    def refuse(self, status: int, code: str, **headers: str) -> None:
        """Answer the next request with one of S3's error codes."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said so</Message></Error>"
        self.answer(status, body.encode(), {name.replace("_", "-"): text for name, text in headers.items()})


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as server:
        yield server


@pytest.fixture
def writer(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Writer:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-value")
    return S3("archive", endpoint=bucket.url).open()


def test_a_request_carries_what_the_settings_say(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, writer: Writer
) -> None:
    made = S3("archive", endpoint=bucket.url, storage_class="GLACIER_IR", kms_key="alias/archive")
    assert made.open().write(batch(2, HOUR)) is None
    headers = bucket.requests[0].headers
    assert bucket.requests[0].method == "PUT"
    assert bucket.requests[0].path.startswith("/archive/grantex-events/dt%3D2026-03-01/hour%3D12/evt_")
    assert headers["if-none-match"] == "*"
    assert headers["x-amz-storage-class"] == "GLACIER_IR"
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/archive"
    assert headers["x-amz-checksum-crc32"]
    assert "grantex-beam/" in headers["user-agent"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (500, "InternalError"),
        (400, "RequestTimeout"),
        (429, "TooManyRequestsException"),
        (400, "BadDigest"),
        (409, "ConditionalRequestConflict"),
        (502, "odd"),
    ],
)
def test_what_passes_by_itself_is_later_and_one_attempt_is_one_request(
    bucket: Bucket, writer: Writer, status: int, code: str
) -> None:
    bucket.refuse(status, code)
    outcome = all_later(writer.write(batch(3, HOUR)), 3)
    assert not outcome.blocked
    assert not outcome.too_large
    assert code in outcome.cause
    assert bucket.request_count == 1
    assert writer.write(batch(3, HOUR)) is None


def test_retry_after_is_heard(bucket: Bucket, writer: Writer) -> None:
    bucket.refuse(503, "SlowDown", Retry_After="9")
    assert all_later(writer.write(batch(1, HOUR)), 1).retry_after == 9.0


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "NoSuchBucket", "--s3_bucket"),
        (403, "AccessDenied", "s3:PutObject"),
        (403, "InvalidAccessKeyId", "access key does not exist"),
        (403, "SignatureDoesNotMatch", "secret key does not belong"),
        (400, "ExpiredToken", "expired"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (301, "PermanentRedirect", "--s3_region"),
        (400, "InvalidStorageClass", "--s3_storage_class"),
        (400, "KMS.NotFoundException", "--s3_kms_key"),
        (501, "NotImplemented", "conditional writes"),
        (400, "SomethingNew", "said so"),
    ],
)
def test_what_a_person_must_mend_blocks_in_plain_words(
    bucket: Bucket, writer: Writer, status: int, code: str, words: str
) -> None:
    bucket.refuse(status, code)
    outcome = all_later(writer.write(batch(3, HOUR)), 3)
    assert outcome.blocked
    assert words in outcome.cause
    assert code in outcome.cause
    assert "kept" in outcome.cause
    assert "secret-value" not in outcome.cause
    assert writer.write(batch(3, HOUR)) is None


def test_412_means_delivered_by_an_earlier_attempt(bucket: Bucket, writer: Writer) -> None:
    bucket.refuse(412, "PreconditionFailed")
    assert writer.write(batch(3, HOUR)) is None


def test_an_object_too_large_is_sent_again_in_halves(bucket: Bucket, writer: Writer) -> None:
    bucket.refuse(400, "EntityTooLarge")
    assert all_later(writer.write(batch(3, HOUR)), 3).too_large


def test_a_proxys_page_is_no_reason_to_stop(bucket: Bucket, writer: Writer) -> None:
    bucket.answer(502, b"<html>bad gateway")
    assert not all_later(writer.write(batch(3, HOUR)), 3).blocked


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_reset_is_later_and_unknown(bucket: Bucket, writer: Writer, when: str) -> None:
    bucket.reset(when)  # type: ignore[arg-type]
    assert all_later(writer.write(batch(2, HOUR)), 2).unknown
    assert bucket.request_count <= 1


def test_an_unexpected_exception_is_a_bug(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(s3_client.Client, "put", broken)
    with pytest.raises(ValueError, match="a bug"):
        writer.write(batch(1, HOUR))


def test_a_role_that_cannot_be_assumed_blocks(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-value")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", bucket.url)
    bucket.answer(403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")
    made = S3("archive", endpoint=bucket.url, role_arn="arn:aws:iam::123456789012:role/w", external_id="x1")
    outcome: Outcome = all_later(made.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "--s3_role_arn" in outcome.cause
    assert b"RoleArn=arn" in bucket.requests[0].body
    assert b"ExternalId=x1" in bucket.requests[0].body


def test_a_role_is_assumed_and_its_credentials_are_used(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-value")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", bucket.url)
    bucket.answer(
        200,
        b"<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult><Credentials>"
        b"<AccessKeyId>ROLEKEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        b"<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
    )
    made = S3("archive", endpoint=bucket.url, role_arn="arn:aws:iam::123456789012:role/w")
    assert made.open().write(batch(2, HOUR)) is None
    assert "Credential=ROLEKEY/" in bucket.requests[1].headers["authorization"]
    assert bucket.requests[1].headers["x-amz-security-token"] == "t"
