"""Puts a batch into a bucket as one whole object, never twice; and the client that does it."""

from __future__ import annotations

import base64
import functools
import io
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import InvalidConfigError, NoCredentialsError
from botocore.handlers import BUILTIN_HANDLERS

from transforms.event import Batch
from transforms.preflight import Finding
from transforms.proxies import ProxyError
from transforms.secret import SecretError
from transforms.write.advice import ANY
from transforms.write.archive import CHECK, blocks, check_key, compression_of, key_of
from transforms.write.contract import Outcome, Writer, finding
from transforms.write.failure import failed
from transforms.write.over_http.connection import CONNECT_SECONDS, user_agent
from transforms.write.over_http.reply import READ_SECONDS
from transforms.write.s3.destination import S3
from transforms.write.s3.reply import (
    is_delivered,
    is_receipt,
    is_stale_credential,
    looked,
    not_confirmed,
    only_s3,
    outcome_of,
)

# botocore's event for an answer that it is about to read.
READING = "before-parse.s3.*"
# The region of AWS, and of services that have none.
DEFAULT_REGION = "us-east-1"
SESSION_NAME = "grantex-beam"


class NoWayOut(Exception):
    """A proxy is none, or a file with authorities cannot be read."""


def new_client(settings: S3, attempts: int = 1, service: str = "s3") -> Any:
    """botocore's own client of S3, or of a service beside it, for these settings. Raises BotoCoreError or
    NoWayOut."""
    way_out = settings.way_out
    # A session of its own: they are not safe for threads, and each reads the chain anew.
    session = botocore.session.get_session()
    session.register_component("data_loader", models(session.get_config_variable("data_path")))
    region = settings.region or session.get_config_variable("region") or DEFAULT_REGION
    url = settings.endpoint or f"https://{settings.bucket}.s3.{region}.amazonaws.com"
    try:
        way_out.aws(session, region)
        proxies = way_out.proxies_of(url)
    except OSError as error:
        raise NoWayOut(way_out.fault(error)) from None
    except (ProxyError, SecretError) as error:
        raise NoWayOut(str(error)) from None
    if settings.role_arn:
        session = way_out.aws(assumed(session, settings.role_arn, settings.external_id, region), region)
    # What boto3's own session would call, but for adding to the loader's paths each time.
    try:
        return session.create_client(
            service,
            region_name=region,
            endpoint_url=settings.endpoint,
            config=config(settings.endpoint is not None, attempts).merge(Config(proxies=proxies)),
        )
    except ValueError as error:  # of AWS_ENDPOINT_URL and the like; nobody has been asked anything
        raise InvalidConfigError(error_msg=str(error)) from error


class Client:
    """One S3 client. Raises BotoCoreError or NoWayOut when it cannot be made."""

    def __init__(self, settings: S3) -> None:
        self._s3 = new_client(settings)
        events = self._s3.meta.events
        for event, handler, *_ in BUILTIN_HANDLERS:
            if event == READING:  # it would call another's page a 500 of S3, before `only_s3` is asked
                events.unregister(event, handler)
        events.register(READING, only_s3)

    def put(self, request: dict[str, Any]) -> dict[str, Any]:
        """One PutObject, and what S3 says to it. Raises ClientError for a refusal, BotoCoreError for most of
        what else can happen, and anything else for answers that botocore does not understand."""
        response: dict[str, Any] = self._s3.put_object(**request)
        return response

    def look(self, bucket: str) -> None:
        """One HeadBucket, which writes nothing. Raises as `put`."""
        self._s3.head_bucket(Bucket=bucket)

    def close(self) -> None:
        """Let go of connections."""
        self._s3.close()


@functools.cache
def models(data_path: str | None) -> Any:
    """botocore's descriptions of the services: 12 MB for each client that reads them for itself."""
    return botocore.loaders.create_loader(data_path)


def config(path_style: bool = False, attempts: int = 1) -> Config:
    """One attempt by default (the outbox decides about another), and no wait longer than the other
    destinations'."""
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        signature_version="s3v4" if path_style else None,
        s3={"addressing_style": "path" if path_style else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra=user_agent(),
    )


def assumed(session: Any, role_arn: str, external_id: str | None, region: str) -> Any:
    """A session with the role's credentials, which are asked for when first needed and again before they
    end; `session` vouches for us."""

    def create_client(service: str, **more: Any) -> Any:
        return session.create_client(service, **{**more, "region_name": region, "config": config()})

    credentials = session.get_credentials()
    if credentials is None:  # the fetcher would call a method of it
        raise NoCredentialsError
    extra = {"RoleSessionName": SESSION_NAME} | ({"ExternalId": external_id} if external_id else {})
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=create_client,
        source_credentials=credentials,
        role_arn=role_arn,
        extra_args=extra,
    )
    inside = botocore.session.Session()
    inside.register_component("data_loader", session.get_component("data_loader"))
    inside._credentials = DeferredRefreshableCredentials(
        method="assume-role", refresh_using=fetcher.fetch_credentials
    )
    return inside


CONTENT_TYPE = "application/x-ndjson"
CONTENT_ENCODINGS = {"gzip": "gzip", "zstd": "zstd"}


class S3Writer(Writer):
    """One client of the bucket, made at the first batch and anew when its credentials are refused."""

    def __init__(self, settings: S3) -> None:
        self._settings = settings
        self._where = settings.where
        self._client: Client | None = None

    def write(self, batch: Batch) -> Outcome | None:
        """Put `batch` once under its key; an object that is there already is this batch's earlier attempt."""
        count = len(batch.events)
        settings = self._settings
        key = key_of(batch, settings.layout, settings.prefix, settings.compression)
        batch.place = settings.address(key)
        request = self._request(key, batch)
        try:
            client = self._client  # which `close` may take away
            if client is None:
                client = self._client = Client(self._settings)
            response = client.put(request)
        except NoWayOut as error:
            return failed(self._where, ANY["secret"], range(count), why=str(error))
        except Exception as error:  # noqa: BLE001 - whatever an answer makes botocore raise
            if is_delivered(error):
                return None
            if is_stale_credential(error):
                self.close()  # the next attempt asks the chain anew
            return outcome_of(error, count, self._where, time.time())
        return None if is_receipt(response) else not_confirmed(response, count, self._where)

    def preflight(self) -> Iterator[Finding]:
        """Whether the bucket is there and the credentials are somebody's.

        The least rights that delivery needs (s3:PutObject) do not allow to look, so that a 403 tells nothing.
        """
        what = "the bucket"
        try:
            client = Client(self._settings)
            try:
                client.look(self._settings.bucket)
            finally:
                client.close()
        except NoWayOut as error:
            yield finding(what, failed(self._where, ANY["secret"], (), why=str(error)))
        except Exception as error:  # noqa: BLE001 - whatever an answer makes botocore raise
            yield looked(error, what, self._where)
        else:
            yield Finding(what, True)

    def check(self) -> Iterator[Finding]:
        """Put the check's object as any other is put: s3:PutObject on the prefix is all that this needs, and
        all that delivery needs."""
        what, key = "putting an object", check_key(self._settings.prefix)
        left = self._settings.address(key)
        try:
            client = Client(self._settings)
            try:
                response = client.put(self._request(key, CHECK))
            finally:
                client.close()
        except NoWayOut as error:
            yield finding(what, failed(self._where, ANY["secret"], (), why=str(error)))
        except Exception as error:  # noqa: BLE001 - whatever an answer makes botocore raise
            if is_delivered(error):
                yield Finding(what, True, note=f"{left} is there from an earlier check")
            else:
                yield finding(what, outcome_of(error, 0, self._where, time.time()))
        else:
            outcome = None if is_receipt(response) else not_confirmed(response, 0, self._where)
            yield replace(finding(what, outcome), note="" if outcome else f"leaves {left}, one line of text")

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

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
