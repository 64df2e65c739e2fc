"""S3 through a role, against moto's STS, IAM and KMS, which check signatures, trust and rights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.servers.moto import BUCKET, EXTERNAL_ID, ROLE, Moto
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk.server import all_later
from transforms.write.s3.destination import S3

HOUR = "dt=2026-03-01/hour=12"


@pytest.fixture
def moto(moto_server: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moto]:
    """The server, with the user's key in a credentials file as the only one to be found."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.url)
    write_credentials(tmp_path, moto_server.access_key, moto_server.secret_key)
    yield moto_server
    moto_server.empty()


def write_credentials(directory: Path, access_key: str, secret_key: str) -> None:
    lines = f"[default]\naws_access_key_id={access_key}\naws_secret_access_key={secret_key}\n"
    (directory / "credentials").write_text(lines)


def settings(moto: Moto) -> S3:
    return S3(BUCKET, endpoint=moto.url, role_arn=ROLE, external_id=EXTERNAL_ID)


def test_the_role_may_what_the_user_may_not(moto: Moto) -> None:
    itself = replace(settings(moto), role_arn=None, external_id=None)
    outcome = all_later(itself.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "s3:PutObject" in outcome.cause
    assert moto.objects() == []
    assert settings(moto).open().write(batch(2, HOUR)) is None
    assert len(moto.objects()) == 1


def test_an_external_id_that_is_not_the_owners_blocks(moto: Moto) -> None:
    wrong = replace(settings(moto), external_id="somebody-else-s")
    outcome = all_later(wrong.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "check --s3_role_arn, --s3_external_id and the role's trust policy" in outcome.cause
    assert "user/base is not authorized to perform: sts:AssumeRole" in outcome.cause
    assert moto.objects() == []


def test_kms_storage_class_and_headers_arrive(moto: Moto) -> None:
    """The bucket has Object Lock, so AWS itself would refuse an object without a checksum."""
    asked = replace(settings(moto), kms_key=moto.kms_key, storage_class="GLACIER_IR", compression="zstd")
    assert asked.open().write(batch(2, HOUR)) is None
    (stored,) = moto.objects()
    assert (stored["ServerSideEncryption"], stored["SSEKMSKeyId"]) == ("aws:kms", moto.kms_key)
    assert stored["StorageClass"] == "GLACIER_IR"
    assert (stored["ContentType"], stored["ContentEncoding"]) == ("application/x-ndjson", "zstd")


def test_a_second_attempt_by_another_session_stores_nothing_twice(moto: Moto) -> None:
    for _ in range(2):
        assert settings(moto).open().write(batch(2, HOUR)) is None
    (stored,) = moto.objects()
    assert stored["Key"] == f"grantex-events/{HOUR}/{batch(2).events[0].id}-{batch(2).id}.ndjson.gz"


def test_a_users_key_that_was_rotated_is_found_in_the_file(moto: Moto, tmp_path: Path) -> None:
    writer = settings(moto).open()
    for access_key, secret_key, words in (
        ("AKIANOBODY", moto.secret_key, "access key does not exist"),
        (moto.access_key, "wrong-secret", "secret key does not belong"),
    ):
        write_credentials(tmp_path, access_key, secret_key)
        outcome = all_later(writer.write(batch(2, HOUR)), 2)
        assert outcome.blocked
        assert words in outcome.cause
        assert secret_key not in outcome.cause
    write_credentials(tmp_path, moto.access_key, moto.secret_key)
    assert writer.write(batch(2, HOUR)) is None


def test_a_role_without_credentials_of_ones_own_blocks(moto: Moto, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("")
    outcome = all_later(settings(moto).open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "no usable credentials" in outcome.cause


def test_a_bucket_that_is_not_there_is_named(moto: Moto) -> None:
    outcome = all_later(replace(settings(moto), bucket="elsewhere").open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "S3 bucket elsewhere" in outcome.cause
    assert "the bucket does not exist (NoSuchBucket" in outcome.cause
