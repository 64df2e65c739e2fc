"""Puts a batch into a bucket of Cloud Storage as one whole object, never twice.

One `objects.insert` of the JSON API a batch (uploadType=multipart), on the condition that there is no such
object yet (ifGenerationMatch=0).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import google_crc32c
from google.auth.exceptions import GoogleAuthError

from transforms.event import Batch
from transforms.preflight import Finding
from transforms.write.archive import CHECK, blocks, check_key, compression_of, key_of
from transforms.write.contract import Outcome, Writer, finding
from transforms.write.failure import asked
from transforms.write.gcs.reply import looked, outcome_of
from transforms.write.google import GoogleHttp, GoogleToken, token_outcome
from transforms.write.over_http.reply import Reply

if TYPE_CHECKING:
    from transforms.write.gcs.destination import GCS

ROOT = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
RIGHT = "storage.objects.create"
# It may be in no body: 24 characters of chance.
BOUNDARY = "grantex-beam-5c3f8e0d9a7b41d6b2f4e1"
CONTENT_TYPES = {"gzip": "application/gzip", "zstd": "application/zstd", "none": "application/x-ndjson"}


class GCSWriter(Writer):
    """One connection to the service, and one to Google's tokens."""

    def __init__(self, settings: GCS) -> None:
        self._settings = settings
        self._where = settings.where
        self._root = settings.endpoint or ROOT
        self._http = GoogleHttp(settings.way_out)
        self._token = GoogleToken(settings.anonymous, SCOPE, settings.way_out)

    def write(self, batch: Batch) -> Outcome | None:
        """Put `batch` once under its name; one that is there already is this batch's earlier attempt."""
        settings, count = self._settings, len(batch.events)
        key = key_of(batch, settings.layout, settings.prefix, settings.compression)
        batch.place = settings.address(key)
        return self._put(key, batch, count)

    def _put(self, key: str, batch: Batch, count: int) -> Outcome | None:
        body, settings = self._body(key, batch), self._settings

        def judge(reply: Reply) -> Outcome | None:
            if reply.status == 401:
                self._token.forget()
            return outcome_of(reply, settings.bucket, key, count, self._where, time.time())

        try:
            headers = {**self._token.headers(), "Content-Type": f"multipart/related; boundary={BOUNDARY}"}
        except GoogleAuthError as error:
            return token_outcome(error, count, self._where)
        return asked(
            lambda: self._http.send("POST", self._url(), headers, body, None), judge, count, self._where
        )

    def preflight(self) -> Iterator[Finding]:
        """Whether the bucket is there and these credentials may fill it; asking takes no right."""
        what = "the bucket"
        url = f"{self._root}/storage/v1/b/{quote(self._settings.bucket, safe='')}/iam/testPermissions"
        found: list[Finding] = []

        def judge(reply: Reply) -> Outcome | None:
            found.append(looked(reply, what, RIGHT, self._where, time.time()))
            return None

        try:
            headers = self._token.headers()
        except GoogleAuthError as error:
            failure: Outcome | None = token_outcome(error, 0, self._where)
        else:
            url = f"{url}?{urlencode({'permissions': RIGHT})}"
            failure = asked(lambda: self._http.send("GET", url, headers, b"", None), judge, 0, self._where)
        if failure is not None:
            found = [Finding(what, False if failure.blocked else None, failure.cause)]
        yield from found

    def check(self) -> Iterator[Finding]:
        """Put the check's object as any other is put: storage.objects.create is all that this needs."""
        key = check_key(self._settings.prefix)
        outcome = self._put(key, CHECK, 0)
        left = self._settings.address(key)
        note = "" if outcome else f"leaves {left}, one line of text, unless it was there"
        yield replace(finding("putting an object", outcome), note=note)

    def close(self) -> None:
        """Let go; a request that hangs in another thread fails at once."""
        self._http.close()
        self._token.close()

    def _url(self) -> str:
        settings = self._settings
        asks = {"uploadType": "multipart", "ifGenerationMatch": "0"}
        if settings.kms_key:
            asks["kmsKeyName"] = settings.kms_key
        return f"{self._root}/upload/storage/v1/b/{quote(settings.bucket, safe='')}/o?{urlencode(asks)}"

    def _body(self, key: str, batch: Batch) -> bytes:
        """What is known of the object, then the object itself."""
        compression = compression_of(key)
        data = b"".join(blocks(batch.events, compression))
        checksum = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        about: dict[str, Any] = {"name": key, "contentType": CONTENT_TYPES[compression], "crc32c": checksum}
        if self._settings.storage_class:
            about["storageClass"] = self._settings.storage_class
        parts = (
            f"--{BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n"
            f"--{BOUNDARY}\r\nContent-Type: {CONTENT_TYPES[compression]}\r\n\r\n".encode(),
            data,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        )
        return b"".join(parts)
