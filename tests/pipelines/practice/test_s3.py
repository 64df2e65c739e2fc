"""The practice S3 itself, asked by boto3, which knows nothing of it, and by hand."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import zstandard
from botocore.config import Config
from botocore.exceptions import ClientError

from pipelines.practice import s3
from pipelines.practice.http_server import Request
from pipelines.practice.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, PracticeS3

BODY = b'{"id":"a"}\n{"id":"b"}\n'


@pytest.fixture
def server() -> Iterator[PracticeS3]:
    with PracticeS3() as running:
        yield running


def client(url: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="eu-central-1",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={}),
    )


def refusal(call: Callable[..., object], **arguments: object) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_object_is_put_and_had_again(server: PracticeS3) -> None:
    asked = client(server.url)
    asked.head_bucket(Bucket=BUCKET)
    asked.put_object(Bucket=BUCKET, Key="dt=2026-03-01/a b+ü.ndjson", Body=BODY)
    assert asked.get_object(Bucket=BUCKET, Key="dt=2026-03-01/a b+ü.ndjson")["Body"].read() == BODY
    assert server.objects == {"dt=2026-03-01/a b+ü.ndjson": BODY}
    assert server.ids == ["a", "b"]


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)]
)
def test_events_in_compressed_objects_are_counted(
    server: PracticeS3, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    asked = client(server.url)
    asked.put_object(Bucket=BUCKET, Key="k", Body=pack(BODY), ContentEncoding=encoding)
    asked.put_object(Bucket=BUCKET, Key="broken", Body=b"broken", ContentEncoding=encoding)
    assert server.ids == ["a", "b"]


def test_412_for_a_second_conditional_put(server: PracticeS3) -> None:
    asked = client(server.url)
    asked.put_object(Bucket=BUCKET, Key="k", Body=BODY, IfNoneMatch="*")
    again = {"Bucket": BUCKET, "Key": "k", "Body": b"other", "IfNoneMatch": "*"}
    assert refusal(asked.put_object, **again) == ("PreconditionFailed", 412)
    assert server.objects == {"k": BODY}
    asked.put_object(Bucket=BUCKET, Key="k", Body=b"other")
    assert server.objects == {"k": b"other"}, "without the condition the last put wins"
    assert refusal(asked.put_object, **again | {"IfNoneMatch": "etag"}) == ("NotImplemented", 501)


def test_412_is_remembered_without_the_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MOST_KEYS", 2)
    with PracticeS3(keep_events=False, keep_ids=False) as server:
        asked = client(server.url)
        for key in ("a", "b", "c"):
            asked.put_object(Bucket=BUCKET, Key=key, Body=BODY, IfNoneMatch="*")
        again = {"Bucket": BUCKET, "Body": BODY, "IfNoneMatch": "*"}
        assert refusal(asked.put_object, Key="c", **again)[0] == "PreconditionFailed"
        asked.put_object(Key="a", **again)  # forgotten: memory is bounded
        assert (server.count, server.ids, server.objects) == (8, [], {})


def test_404_for_other_buckets_and_keys(server: PracticeS3) -> None:
    asked = client(server.url)
    assert refusal(asked.put_object, Bucket="other", Key="k", Body=BODY) == ("NoSuchBucket", 404)
    assert refusal(asked.head_bucket, Bucket="other") == ("404", 404)
    assert refusal(asked.get_object, Bucket=BUCKET, Key="k") == ("NoSuchKey", 404)


def test_403_for_other_credentials(server: PracticeS3) -> None:
    put = {"Bucket": BUCKET, "Key": "k", "Body": BODY}
    assert refusal(client(server.url, access_key="x").put_object, **put) == ("InvalidAccessKeyId", 403)
    assert refusal(client(server.url, secret_key="x").put_object, **put) == ("SignatureDoesNotMatch", 403)
    with httpx.Client(trust_env=False, verify=False) as plain:
        answer = plain.put(f"{server.url}/{BUCKET}/k", content=BODY)
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text
    assert answer.headers["content-type"] == "application/xml"
    assert server.count == 0


def test_400_for_a_body_that_was_damaged(server: PracticeS3) -> None:
    crc = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()
    wrong = {"Bucket": BUCKET, "Key": "k", "Body": BODY, "ChecksumCRC32": crc}
    assert refusal(client(server.url).put_object, **wrong) == ("BadDigest", 400)
    headers = {"x-amz-content-sha256": "0" * 64}
    assert s3.damage(Request("PUT", "/", headers, BODY)) == "XAmzContentSHA256Mismatch"


def test_501_for_what_it_does_not_know(server: PracticeS3) -> None:
    asked = client(server.url)
    assert refusal(asked.list_objects_v2, Bucket=BUCKET, Prefix="a/b") == ("NotImplemented", 501)
    assert refusal(asked.delete_object, Bucket=BUCKET, Key="k") == ("NotImplemented", 501)


def test_refusing_lasts_until_it_is_told_otherwise(server: PracticeS3) -> None:
    asked = client(server.url)
    server.refuse()
    for _ in range(2):
        assert refusal(asked.put_object, Bucket=BUCKET, Key="k", Body=BODY) == ("SlowDown", 503)
    server.refuse("")
    asked.put_object(Bucket=BUCKET, Key="k", Body=BODY)


def test_a_signature_covers_method_path_query_headers_and_body_and_ages() -> None:
    """The example of Amazon's own documentation, "GET Object" in "Signature Calculations"."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": empty,
        "x-amz-date": "20130524T000000Z",
        "authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            f"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature={signature}"
        ),
    }
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    at = datetime(2013, 5, 24, tzinfo=timezone.utc)

    def fault(
        method: str = "GET", path: str = "/test.txt", query: str = "", later: float = 0, **more: str
    ) -> str:
        request = Request(method, path, {**headers, **more}, b"", query)
        return s3.fault(request, "AKIAIOSFODNN7EXAMPLE", secret, at + timedelta(seconds=later))

    assert fault() == ""
    assert fault("PUT") == fault(path="/other") == fault(query="acl") == "SignatureDoesNotMatch"
    assert fault(range="bytes=0-8") == "SignatureDoesNotMatch"
    assert fault(later=901) == fault(later=-901) == "RequestTimeTooSkewed"


@pytest.mark.slow
def test_as_a_program_it_appends_ids_and_ends_on_sigterm(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    command = [sys.executable, "-m", "pipelines.practice.s3", "--key", "k", "--ids", str(ids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        client(url, access_key="k").put_object(Bucket=BUCKET, Key="k", Body=BODY)
        assert ids.read_text() == "a\nb\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
