"""A practice Cloud Storage on loopback that checks tokens, checksums and conditions, faulty on command.

Statuses and reasons are those of Cloud Storage's "HTTP status and error codes for JSON". It knows
`objects.insert` (multipart) with ifGenerationMatch=0, `objects.get` with and without `alt=media`,
`objects.list`, and `buckets.testIamPermissions`; the rest is 501.

As a program of its own: `python -m pipelines.practice.gcs --port P [--key TOKEN] [--ids FILE]`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import google_crc32c
import msgspec

from pipelines.practice import http_server
from pipelines.practice.http_server import Answer, Request
from pipelines.practice.s3 import ids_in

BUCKET = "grantex-practice"
TOKEN = "practice-google-token"  # noqa: S105 (of a practice server on loopback)
# Names that are remembered when objects are not kept; a second insert comes soon after the first or never.
MOST_NAMES = 10_000
PAGE = 1000
REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    501: "notImplemented",
    503: "backendError",
}
NOT_MET = "At least one of the pre-conditions you specified did not hold."
ENCODINGS = {"application/gzip": "gzip", "application/zstd": "zstd"}
_PATH = re.compile(r"(?:/upload|/download)?/storage/v1/b/([^/]+)/(o|iam/testPermissions)(?:/(.+))?")


class Stored(NamedTuple):
    """An object, and what was said of it."""

    data: bytes
    about: dict[str, Any]


class PracticeGCS(http_server.PracticeServer):
    """A context manager that serves `bucket` on `url` until it is left; `objects` is what was put there.

    key: None asks for no token, as an emulator does. rights: what callers may do.
    """

    def __init__(
        self,
        port: int = 0,
        key: str | None = None,
        bucket: str = BUCKET,
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        ids_file: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, keep_events=keep_events, keep_ids=keep_ids, ids_file=ids_file, tls=tls)
        self.bucket = bucket
        self.key = key
        self.rights = {"storage.objects.create"}
        self.objects: dict[str, Stored] = {}
        self._generation = 1_772_366_400_000_000
        self._put: dict[str, None] = {}  # the latest names, whether or not their objects are kept

    def judge(self, request: Request) -> Answer:
        found = _PATH.fullmatch(request.path)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "Invalid Credentials")
        if found is None:
            return error(501, "practice Cloud Storage does not know this")
        bucket, what, name = unquote(found[1]), found[2], unquote(found[3] or "")
        asked = {key: values[-1] for key, values in parse_qs(request.query).items()}
        if bucket != self.bucket:
            return error(404, "The specified bucket does not exist.")
        if what != "o":
            granted = sorted(self.rights & {asked.get("permissions", "")})
            return answer({"kind": "storage#testIamPermissionsResponse", "permissions": granted})
        if request.method == "POST":
            return self._insert(request, asked)
        return self._get(request, name, asked) if name else self._list(asked)

    def _insert(self, request: Request, asked: dict[str, str]) -> Answer:
        if "storage.objects.create" not in self.rights:
            return error(403, "the caller does not have storage.objects.create access")
        parts = parts_of(request)
        if parts is None or asked.get("uploadType") != "multipart":
            return error(400, "the body is not multipart/related with two parts")
        about, data = parts
        if wrong := damage(about, data):
            return error(400, wrong)
        name = str(about["name"])
        with self._changed:  # of several that put the same name, one is the first
            if asked.get("ifGenerationMatch") == "0" and name in self._put:
                return error(412, NOT_MET)
            self._generation += 1
            self._put[name] = None
            resource = {
                **about,
                "kind": "storage#object",
                "bucket": self.bucket,
                "generation": str(self._generation),
                "size": str(len(data)),
                **({"kmsKeyName": asked["kmsKeyName"]} if "kmsKeyName" in asked else {}),
            }
            if self._keep_events:
                self.objects[name] = Stored(data, resource)
            elif len(self._put) > MOST_NAMES:
                del self._put[next(iter(self._put))]
        self.taken(ids_in(data, ENCODINGS.get(str(about.get("contentType")), "")))
        return answer(resource)

    def _get(self, request: Request, name: str, asked: dict[str, str]) -> Answer:
        if name not in self.objects:
            return error(404, f"No such object: {self.bucket}/{name}")
        data, about = self.objects[name]
        if asked.get("alt") != "media":
            return answer(about)
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if part is None:
            return Answer(200, data)
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        return Answer(206, data[first : last + 1], (("Content-Range", f"bytes {first}-{last}/{len(data)}"),))

    def _list(self, asked: dict[str, str]) -> Answer:
        after = asked.get("pageToken", "")
        prefix = asked.get("prefix", "")
        names = sorted(name for name in self.objects if name.startswith(prefix) and name > after)
        page = names[:PAGE]
        more = {"nextPageToken": page[-1]} if len(names) > PAGE else {}
        return answer(
            {"kind": "storage#objects", "items": [self.objects[name].about for name in page], **more}
        )


def parts_of(request: Request) -> tuple[dict[str, Any], bytes] | None:
    """What a multipart body says of the object, and the object; None when it is no such body."""
    boundary = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
    if boundary is None:
        return None
    line = b"--" + boundary[1].encode()
    head, *parts = request.body.split(line + b"\r\n")
    if head or len(parts) != 2 or not parts[1].endswith(b"\r\n" + line + b"--\r\n"):
        return None
    try:
        about = msgspec.json.decode(parts[0].partition(b"\r\n\r\n")[2])
    except msgspec.DecodeError:
        return None
    data = parts[1].partition(b"\r\n\r\n")[2]
    return (about, data[: -len(line) - 6]) if isinstance(about, dict) and "name" in about else None


def damage(about: dict[str, Any], data: bytes) -> str:
    """What Cloud Storage says of an object that is not what was said of it; "" when it is."""
    crc32c = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    if about.get("crc32c", crc32c) != crc32c:
        return f'Provided CRC32C "{about["crc32c"]}" doesn\'t match calculated CRC32C "{crc32c}".'
    if about.get("md5Hash", md5) != md5:
        return f'Provided MD5 hash "{about["md5Hash"]}" doesn\'t match calculated MD5 hash "{md5}".'
    return ""


def answer(resource: dict[str, Any]) -> Answer:
    """A success in the form of the JSON API."""
    return Answer(200, msgspec.json.encode(resource))


def error(status: int, message: str) -> Answer:
    """A refusal in the form of the JSON API."""
    fault = {"domain": "global", "reason": REASONS[status], "message": message}
    return Answer(
        status, msgspec.json.encode({"error": {"code": status, "message": message, "errors": [fault]}})
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; see `http_server.command`."""
    return http_server.command("A practice Cloud Storage on loopback.", "key", TOKEN, PracticeGCS, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
