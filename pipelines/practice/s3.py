"""A practice S3: buckets on loopback that check signatures, digests and preconditions, faulty on command.

Codes are those of Amazon's "Error responses" of S3. It knows HEAD of a bucket, and PUT, GET and HEAD of an
object in path style; the rest is 501.

As a program of its own: `python -m pipelines.practice.s3 --port P [--key K] [--ids FILE]`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import ssl
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from urllib.parse import unquote

import msgspec
import zstandard
from isal import isal_zlib
from isal.igzip_lib import IsalError

from pipelines.practice import http_server
from pipelines.practice.http_server import Answer, Request

ALGORITHM = "AWS4-HMAC-SHA256"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^/]+)/(\d{{8}}/[^/]+/[^/]+/aws4_request), ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
MAX_SKEW = timedelta(minutes=15)


def fault(request: Request, access_key: str, secret_key: str, now: datetime | None = None) -> str:
    """Amazon's code for what is wrong with the signature, "" when it is good."""
    found = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return "AccessDenied"
    key, scope, names, signature = found.groups()
    if key != access_key:
        return "InvalidAccessKeyId"
    stamp = request.headers.get("x-amz-date", "")
    if not _is_near(stamp, now or datetime.now(timezone.utc)):
        return "RequestTimeTooSkewed"
    text = "\n".join((ALGORITHM, stamp, scope, _hash(_canonical(request, names).encode())))
    right = hmac.new(_signing_key(secret_key, scope), text.encode(), hashlib.sha256).hexdigest()
    return "" if hmac.compare_digest(right, signature) else "SignatureDoesNotMatch"


def _canonical(request: Request, names: str) -> str:
    headers = request.headers
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in names.split(";")]
    # Parameters without a value are signed with an empty one.
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in request.query.split("&") if pair)
    payload = headers.get("x-amz-content-sha256") or _hash(request.body)
    return "\n".join((request.method, request.path, "&".join(pairs), *lines, "", names, payload))


def _signing_key(secret_key: str, scope: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_near(stamp: str, now: datetime) -> bool:
    try:
        signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return abs(now - signed) <= MAX_SKEW


ACCESS_KEY = "practice-access-key"
SECRET_KEY = "practice-secret-key"  # noqa: S105 (of a practice server on loopback)
BUCKET = "grantex-practice"
# Keys that are remembered when objects are not kept; a second put comes soon after the first or never.
MOST_KEYS = 10_000
STATUSES = {
    "AccessDenied": 403,
    "BadDigest": 400,
    "InvalidAccessKeyId": 403,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}


class PracticeS3(http_server.PracticeServer):
    """A context manager that serves `bucket` on `url` until it is left; `objects` is what was put there."""

    def __init__(
        self,
        port: int = 0,
        key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        bucket: str = BUCKET,
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        ids_file: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, keep_events=keep_events, keep_ids=keep_ids, ids_file=ids_file, tls=tls)
        self.access_key, self.secret_key = key, secret_key
        self.bucket = bucket
        self.refusing = ""
        self.objects: dict[str, bytes] = {}
        self._put: dict[str, None] = {}  # the latest keys, whether or not their objects are kept

    def refuse(self, code: str = "SlowDown") -> None:
        """Answer everything with one of STATUSES until `refuse("")`."""
        self.refusing = code

    def judge(self, request: Request) -> Answer:
        wrong = self.refusing or fault(request, self.access_key, self.secret_key)
        bucket, _, key = unquote(request.path).removeprefix("/").partition("/")
        if not wrong and bucket != self.bucket:
            wrong = "NoSuchBucket"
        if wrong:
            return error(request, wrong)
        if not key:
            return Answer(200, b"") if request.method == "HEAD" else error(request, "NotImplemented")
        if request.method == "PUT":
            return self._take(request, key)
        if request.method in ("GET", "HEAD"):
            if key not in self.objects:
                return error(request, "NoSuchKey")
            return Answer(200, self.objects[key] if request.method == "GET" else b"")
        return error(request, "NotImplemented")

    def _take(self, request: Request, key: str) -> Answer:
        if wrong := damage(request):
            return error(request, wrong)
        with self._changed:  # of several that put the same key, one is the first
            if request.headers.get("if-none-match", "*") != "*":
                return error(request, "NotImplemented")
            if "if-none-match" in request.headers and key in self._put:
                return error(request, "PreconditionFailed")
            self._put[key] = None
            if self._keep_events:
                self.objects[key] = request.body
            elif len(self._put) > MOST_KEYS:
                del self._put[next(iter(self._put))]
        self.taken(ids_in(request.body, request.headers.get("content-encoding", "")))
        return Answer(200, b"", (("ETag", etag(request.body)),))


def damage(request: Request) -> str:
    """The code for a body that is not what its own headers say."""
    said = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if said != "UNSIGNED-PAYLOAD" and said != hashlib.sha256(request.body).hexdigest():
        return "XAmzContentSHA256Mismatch"
    digest = base64.b64encode(zlib.crc32(request.body).to_bytes(4, "big")).decode()
    return "BadDigest" if request.headers.get("x-amz-checksum-crc32", digest) != digest else ""


class Line(msgspec.Struct, frozen=True, gc=False):
    """An event in an archive."""

    id: str = ""


decode_lines = msgspec.json.Decoder(Line).decode_lines


def ids_in(body: bytes, encoding: str) -> list[str]:
    """The ids of the events in an NDJSON object; none in an object of another kind."""
    try:
        if encoding == "gzip":
            body = isal_zlib.decompress(body, 31)
        elif encoding == "zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        return [line.id for line in decode_lines(body)]
    except (IsalError, zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError):  # type: ignore[misc]
        return []  # isal's is typed as a value


def etag(body: bytes) -> str:
    """An object's ETag, which says nothing about its safety."""
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def error(request: Request, code: str) -> Answer:
    """An answer in S3's form of errors; to HEAD it has no body."""
    if request.method == "HEAD":
        return Answer(STATUSES[code], b"")
    text = f"<Error><Code>{code}</Code><Message>practice S3 says {code}</Message></Error>"
    return Answer(STATUSES[code], f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; see `http_server.command`."""
    return http_server.command("A practice S3 on loopback.", "key", ACCESS_KEY, PracticeS3, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
