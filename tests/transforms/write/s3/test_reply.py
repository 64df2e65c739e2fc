"""S3's error codes, told by a server on loopback to the real client: what each means, in plain words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import formatdate
from pathlib import Path

import pytest

from pipelines.practice.http_server import Answer, PracticeServer, Request
from tests.transforms.write.encodings import batch, event
from tests.transforms.write.splunk.server import all_later, certificate
from transforms.event import Batch
from transforms.secret import remember
from transforms.way_out import WayOut
from transforms.write.contract import Writer
from transforms.write.s3 import writer as s3_client
from transforms.write.s3.destination import S3

HOUR = "dt=2026-03-01/hour=12"


class Bucket(PracticeServer):
    """Takes every object, unless it was told to answer something else."""

    def judge(self, request: Request) -> Answer:
        self.taken([request.path])
        return Answer(200, b"", (("ETag", '"0cc175b9"'),))

    def refuse(self, status: int, code: str, message: str = "said so", **headers: str) -> None:
        """Answer the next request with one of S3's error codes."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self.answer(status, body.encode(), {name.replace("_", "-"): text for name, text in headers.items()})


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as server:
        yield server


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-value")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def writer(bucket: Bucket) -> Writer:
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


def test_a_retry_after_that_is_a_date_is_heard(bucket: Bucket, writer: Writer) -> None:
    bucket.refuse(503, "SlowDown", Retry_After=formatdate(time.time() + 120, usegmt=True))
    wait = all_later(writer.write(batch(1, HOUR)), 1).retry_after
    assert wait is not None
    assert 100 < wait <= 120


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "User: arn:aws:iam::1:user/u is not authorized to perform: kms:GenerateDataKey on resource: k",
            "may not use the KMS key (AccessDenied, status 403: User: arn:aws:iam::1:user/u is not",
        ),
        (
            "User: arn:aws:iam::1:user/u is not authorized to perform: s3:PutObject with an explicit deny",
            "may not write there (AccessDenied, status 403: User: arn:aws:iam::1:user/u is not",
        ),
        ("Access Denied", "may not write there (AccessDenied, status 403)"),
    ],
)
def test_a_denial_says_who_was_denied_what(bucket: Bucket, writer: Writer, message: str, words: str) -> None:
    bucket.refuse(403, "AccessDenied", message)
    assert words in all_later(writer.write(batch(1, HOUR)), 1).cause


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (307, "TemporaryRedirect")])
def test_a_bucket_in_another_region_is_followed_there(
    bucket: Bucket, writer: Writer, status: int, code: str
) -> None:
    bucket.refuse(status, code, x_amz_bucket_region="eu-central-1")
    assert writer.write(batch(3, HOUR)) is None
    first, second = bucket.requests
    assert "/us-east-1/s3/" in first.headers["authorization"]
    assert "/eu-central-1/s3/" in second.headers["authorization"]
    assert (second.path, second.body) == (first.path, first.body)
    assert second.headers["if-none-match"] == "*"


def test_412_means_delivered_by_an_earlier_attempt(bucket: Bucket, writer: Writer) -> None:
    bucket.refuse(412, "PreconditionFailed")
    assert writer.write(batch(3, HOUR)) is None


def test_an_object_too_large_is_sent_again_in_halves(bucket: Bucket, writer: Writer) -> None:
    bucket.refuse(400, "EntityTooLarge")
    assert all_later(writer.write(batch(3, HOUR)), 3).too_large


def test_a_proxys_page_is_no_reason_to_stop(bucket: Bucket, writer: Writer) -> None:
    bucket.answer(502, b"<html>bad gateway")
    assert not all_later(writer.write(batch(3, HOUR)), 3).blocked


def test_no_tls_where_tls_is_expected_is_later() -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=answer, args=(plain,))
        thread.start()
        made = S3("archive", endpoint=f"https://127.0.0.1:{plain.getsockname()[1]}")
        outcome = all_later(made.open().write(batch(1, HOUR)), 1)
        thread.join(5)
    assert not outcome.blocked
    assert "no TLS connection" in outcome.cause


def test_a_certificate_of_nobody_blocks(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path)
    with Bucket(tls=context) as bucket:
        made = S3("archive", endpoint=bucket.url)
        outcome = all_later(made.open().write(batch(1, HOUR)), 1)
        assert outcome.blocked
        assert "--ca_file" in outcome.cause
        assert replace(made, way_out=WayOut(ca_file=ca_file)).open().write(batch(1, HOUR)) is None


def test_authorities_that_cannot_be_read_block(tmp_path: Path) -> None:
    made = S3("archive", endpoint="https://127.0.0.1:1", way_out=WayOut(ca_file=str(tmp_path / "none.pem")))
    outcome = all_later(made.open().write(batch(1, HOUR)), 1)
    assert outcome.blocked
    assert "none.pem of --ca_file cannot be read (No such file or directory)" in outcome.cause


def test_what_boto3_finds_wrong_with_the_settings_blocks(bucket: Bucket) -> None:
    outcome = all_later(S3("no bucket/at all", endpoint=bucket.url).open().write(batch(1, HOUR)), 1)
    assert outcome.blocked
    assert "Invalid bucket name" in outcome.cause


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_reset_is_later_and_unknown(bucket: Bucket, writer: Writer, when: str) -> None:
    bucket.reset(when)  # type: ignore[arg-type]
    assert all_later(writer.write(batch(2, HOUR)), 2).unknown
    assert bucket.request_count <= 1


def broken(*_: object) -> None:
    raise ValueError("an oddity")


def test_an_exception_before_anything_is_asked_is_a_bug(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client.S3Writer, "_request", broken)
    with pytest.raises(ValueError, match="an oddity"):
        writer.write(batch(1, HOUR))


def test_whatever_botocore_raises_about_an_answer_is_later(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client.Client, "put", broken)
    outcome = all_later(writer.write(batch(2, HOUR)), 2)
    assert outcome.unknown
    assert "answered what cannot be read" in outcome.cause
    assert "ValueError" in outcome.cause


# What delivers


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b""),
        (204, {}, b""),
        (204, {"ETag": '"a"'}, b""),
        (206, {"ETag": '"a"'}, b""),
        (200, {"content-type": "text/html"}, b"<!doctype html><title>Sign in</title>"),
        (200, {"content-type": "text/html", "ETag": '"a"'}, b"<!doctype html><title>Sign in</title>"),
        (200, {"content-type": "application/xhtml+xml", "ETag": '"a"'}, b"<?xml version='1.0'?><html/>"),
        (200, {"content-type": "application/json"}, b'{"success":false}'),
    ],
)
def test_a_2xx_without_an_etag_or_with_a_page_delivers_nothing(
    bucket: Bucket, writer: Writer, status: int, headers: dict[str, str], body: bytes
) -> None:
    bucket.answer(status, body, headers)
    outcome = all_later(writer.write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "sign-in page" in outcome.cause
    assert writer.write(batch(2, HOUR)) is None


@pytest.mark.parametrize("body", [b"", b"<html>Precondition Failed</html>", b"no XML"])
def test_412_in_words_that_are_not_s3s_delivers_nothing(bucket: Bucket, writer: Writer, body: bytes) -> None:
    bucket.answer(412, body)
    all_later(writer.write(batch(2, HOUR)), 2)


def test_412_without_words_but_under_s3s_headers_means_delivered(bucket: Bucket, writer: Writer) -> None:
    bucket.answer(412, b"", {"x-amz-request-id": "1"})
    assert writer.write(batch(2, HOUR)) is None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("where", [None, "https://login.example.com/", "login.example.com:8443/sso"])
def test_a_redirect_without_a_region_is_no_loop(
    bucket: Bucket, writer: Writer, status: int, where: str | None
) -> None:
    bucket.answer(status, b"", {"location": where} if where else {}, times=5000)
    outcome = all_later(writer.write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "--s3_region or --s3_endpoint" in outcome.cause
    assert bucket.request_count <= 5


def test_a_303_is_asked_once(bucket: Bucket, writer: Writer) -> None:
    bucket.answer(303, b"", {"location": "https://login.example.com/"}, times=5000)
    all_later(writer.write(batch(2, HOUR)), 2)
    assert bucket.request_count == 1


@pytest.mark.parametrize(
    ("status", "blocked"), [(401, True), (403, True), (404, True), (502, False), (503, False)]
)
def test_who_answered_in_s3s_place_is_said(
    bucket: Bucket, writer: Writer, status: int, blocked: bool
) -> None:
    bucket.answer(status, b"<html><h1>Blocked by web filter</h1></html>", {"content-type": "text/html"})
    outcome = all_later(writer.write(batch(2, HOUR)), 2)
    assert 'a page "Blocked by web filter"' in outcome.cause
    assert "s3:PutObject" not in outcome.cause
    assert outcome.blocked == blocked
    assert outcome.unknown == (status == 502)


@pytest.mark.parametrize(
    "body",
    [
        b"<a>" * 100_000,
        b"<Error>" + b"<Code>" * 50_000,
        b"<?xml version='1.0'?><Error><Code>a</Code>" + b"<x>" * 100_000 + b"</x>" * 100_000 + b"</Error>",
        b'{"x":' + b"[" * 100_000,
        b"\xff" * 1000,
    ],
)
@pytest.mark.parametrize("status", [200, 400, 403, 404, 409, 503])
def test_no_body_raises(bucket: Bucket, writer: Writer, status: int, body: bytes) -> None:
    bucket.answer(status, body, {"content-type": "application/xml"})
    all_later(writer.write(batch(2, HOUR)), 2)


def test_code_and_message_are_one_short_printable_line_without_secrets(
    bucket: Bucket, writer: Writer
) -> None:
    secret = "s3cr3t-" + "x" * 33
    remember(secret)
    bucket.refuse(403, "Odd\u009b2J" + "x" * 5_000_000, "line\nline " + "y" * 170 + secret + "z" * 100_000)
    cause = all_later(writer.write(batch(2, HOUR)), 2).cause
    assert cause.isprintable()
    assert len(cause) < 800
    assert "s3cr3t" not in cause


# Credentials that end (roles, trust and rights: test_s3_role.py)


def test_an_expired_token_is_read_again_from_its_file(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def store(token: str) -> None:
        key = "aws_access_key_id=k\naws_secret_access_key=s\n"
        file.write_text(f"[default]\n{key}aws_session_token={token}\n")

    store("old")
    opened = S3("archive", endpoint=bucket.url).open()
    bucket.refuse(400, "ExpiredToken")
    assert "session's token has expired" in all_later(opened.write(batch(1, HOUR)), 1).cause
    store("new")
    assert opened.write(batch(1, HOUR)) is None
    assert [one.headers["x-amz-security-token"] for one in bucket.requests] == ["old", "new"]


@pytest.fixture
def assuming(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A writer whose role the same server hands out."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", bucket.url)
    return S3("archive", endpoint=bucket.url, role_arn="arn:aws:iam::123456789012:role/w").open()


def hand_out(bucket: Bucket, key: str, seconds: float) -> None:
    """Answer the next AssumeRole with a session that lasts so long."""
    end = datetime.fromtimestamp(time.time() + seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    session = f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
    session += f"<SessionToken>t</SessionToken><Expiration>{end}</Expiration>"
    namespace = "xmlns='https://sts.amazonaws.com/doc/2011-06-15/'"
    result = f"<AssumeRoleResult><Credentials>{session}</Credentials></AssumeRoleResult>"
    body = f"<AssumeRoleResponse {namespace}>{result}</AssumeRoleResponse>"
    bucket.answer(200, body.encode(), path="/")


def refuse_role(bucket: Bucket, status: int, code: str, message: str = "") -> None:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    bucket.answer(status, f"<ErrorResponse>{error}</ErrorResponse>".encode(), path="/")


def test_a_roles_session_is_renewed_before_it_ends(bucket: Bucket, assuming: Writer) -> None:
    hand_out(bucket, "FIRST", 300)  # boto3 renews what ends within 10 minutes
    hand_out(bucket, "SECOND", 3600)
    for number in range(3):
        made = Batch([event(number)], partition=HOUR)
        assert assuming.write(made) is None
    used = [one.headers["authorization"] for one in bucket.requests if one.method == "PUT"]
    assert ["Credential=FIRST/" in used[0], *("Credential=SECOND/" in one for one in used[1:])] == [True] * 3
    assert sum(one.method == "POST" for one in bucket.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "message", "blocked", "words"),
    [
        (
            403,
            "AccessDenied",
            "not authorized",
            True,
            "the role cannot be assumed (AccessDenied, status 403: not authorized)",
        ),
        (
            400,
            "ValidationError",
            "odd",
            True,
            "the role cannot be assumed (ValidationError, status 400: odd)",
        ),
        (403, "ExpiredToken", "", True, "session's token has expired"),
        (403, "InvalidClientTokenId", "", True, "access key does not exist"),
        (
            403,
            "SignatureDoesNotMatch",
            "Signature expired: 2026 is now earlier than 2027",
            True,
            "clock is wrong",
        ),
        (403, "SignatureDoesNotMatch", "does not match", True, "secret key does not belong"),
        (503, "ServiceUnavailable", "", False, "busy"),
        (400, "Throttling", "", False, "busy"),
    ],
)
def test_a_role_that_is_refused(
    bucket: Bucket, assuming: Writer, status: int, code: str, message: str, blocked: bool, words: str
) -> None:
    refuse_role(bucket, status, code, message)
    outcome = all_later(assuming.write(batch(2, HOUR)), 2)
    assert outcome.blocked == blocked
    assert words in outcome.cause
    hand_out(bucket, "FIRST", 3600)
    assert assuming.write(batch(2, HOUR)) is None


def test_a_proxys_page_in_the_place_of_sts_is_later(bucket: Bucket, assuming: Writer) -> None:
    bucket.answer(400, b"bad gateway", path="/")
    outcome = all_later(assuming.write(batch(2, HOUR)), 2)
    assert outcome.blocked  # nobody but a person takes it out of the way
    assert "something in between" in outcome.cause
