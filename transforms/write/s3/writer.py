"""Puts a batch into a bucket as one object that is there completely or not at all, and never twice."""

from __future__ import annotations

import base64
import io
import time
import zlib
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from transforms.event import Batch
from transforms.write.contract import Outcome, Writer
from transforms.write.ndjson.layout import flat_key, is_flat_key, is_key, object_key
from transforms.write.ndjson.lines import SUFFIXES, blocks, compression_of
from transforms.write.s3 import client as s3_client
from transforms.write.s3.destination import S3
from transforms.write.s3.outcome import MENDED, is_delivered, is_stale_credential, outcome_of

CONTENT_TYPE = "application/x-ndjson"
CONTENT_ENCODINGS = {"gzip": "gzip", "zstd": "zstd"}


class S3Writer(Writer):
    """One client of the bucket, made at the first batch and anew when its credentials are refused."""

    def __init__(self, settings: S3) -> None:
        self._settings = settings
        self._where = f"S3 bucket {settings.bucket}"
        if settings.endpoint:
            self._where += f" at {settings.endpoint}"
        self._client: s3_client.Client | None = None

    def write(self, batch: Batch) -> Outcome | None:
        """Put `batch` once under its key; an object that is there already is this batch's earlier attempt."""
        key = self._key(batch)
        request = self._request(key, batch)
        try:
            client = self._client  # which `close` may take away
            if client is None:
                client = self._client = s3_client.Client(self._settings)
            client.put(request)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            if is_delivered(error):
                return None
            if is_stale_credential(error):
                self.close()  # the next attempt asks the chain anew
            return outcome_of(error, len(batch.events), self._where, time.time())
        except s3_client.UnreadableAuthorities as error:
            cause = f"{self._where}: {error}. {MENDED}."
            return Outcome(later=range(len(batch.events)), blocked=True, cause=cause)
        return None

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _key(self, batch: Batch) -> str:
        """The key of the first attempt, also when settings have changed since."""
        if batch.memo is not None:
            key = batch.memo.decode(errors="replace")
            parts = key.split("/")
            if is_key("/".join(parts[-3:])) or is_flat_key(parts[-1]):
                return key
        named = flat_key if self._settings.layout == "flat" else object_key
        key = named(batch, SUFFIXES[self._settings.compression])
        prefix = self._settings.prefix.strip("/")
        if prefix:
            key = f"{prefix}/{key}"
        batch.remember(key.encode())
        return key

    def _request(self, key: str, batch: Batch) -> dict[str, Any]:
        settings = self._settings
        compression = compression_of(key)
        body = b"".join(blocks(batch.events, compression))
        request: dict[str, Any] = {
            "Bucket": settings.bucket,
            "Key": key,
            # A stream, because the time to send bytes counts as one wait, and a slow line would never end.
            "Body": io.BytesIO(body),
            "ContentLength": len(body),
            "ContentType": CONTENT_TYPE,
            "IfNoneMatch": "*",
            # Made here: botocore's own would be sent behind the body, which not every service understands.
            "ChecksumCRC32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode(),
        }
        if compression in CONTENT_ENCODINGS:
            request["ContentEncoding"] = CONTENT_ENCODINGS[compression]
        if settings.storage_class:
            request["StorageClass"] = settings.storage_class
        if settings.kms_key:
            request["ServerSideEncryption"] = "aws:kms"
            request["SSEKMSKeyId"] = settings.kms_key
        return request
