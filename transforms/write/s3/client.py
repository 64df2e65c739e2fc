"""A boto3 client as the archive needs it: one attempt a request, short waits, the chain's credentials."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import certifi
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import NoCredentialsError

from transforms.write.over_http.connection import CONNECT_SECONDS, READ_SECONDS, user_agent
from transforms.write.s3.destination import S3

# The region of the peer, and of services that have none.
DEFAULT_REGION = "us-east-1"
SESSION_NAME = "grantex-beam"


class UnreadableAuthorities(Exception):
    """The file of --ca_file cannot be read."""


class Client:
    """One S3 client. Raises BotoCoreError or UnreadableAuthorities when it cannot be made."""

    def __init__(self, settings: S3) -> None:
        self._resources = contextlib.ExitStack()
        verify = self._resources.enter_context(trusted(settings.ca_file))
        # A session of its own: they are not safe for threads, and each reads the chain anew.
        session = botocore.session.get_session()
        session.register_component("data_loader", models(session.get_config_variable("data_path")))
        region = settings.region or session.get_config_variable("region") or DEFAULT_REGION
        if settings.role_arn:
            session = assumed(session, settings.role_arn, settings.external_id, region, verify)
        # What boto3's own session would call, but for adding to the loader's paths each time.
        self._s3: Any = session.create_client(
            "s3",
            region_name=region,
            endpoint_url=settings.endpoint,
            verify=verify,
            config=config(path_style=settings.endpoint is not None),
        )

    def put(self, request: dict[str, Any]) -> None:
        """One PutObject. Raises ClientError for a refusal, BotoCoreError for all else that can happen."""
        self._s3.put_object(**request)

    def close(self) -> None:
        """Let go of connections and of the temporary file with authorities."""
        self._s3.close()
        self._resources.close()


@functools.cache
def models(data_path: str | None) -> Any:
    """botocore's descriptions of the services: 12 MB for each client that reads them for itself."""
    return botocore.loaders.create_loader(data_path)


def config(path_style: bool = False) -> Config:
    """One attempt (the outbox decides about another), and no wait longer than the other destinations'."""
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        signature_version="s3v4" if path_style else None,
        s3={"addressing_style": "path" if path_style else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra=user_agent(),
    )


def assumed(session: Any, role_arn: str, external_id: str | None, region: str, verify: str | None) -> Any:
    """A session with the role's credentials, which are asked for when first needed and again before they
    end; `session` vouches for us."""

    def create_client(service: str, **more: Any) -> Any:
        return session.create_client(
            service, **{**more, "region_name": region, "verify": verify, "config": config()}
        )

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


@contextlib.contextmanager
def trusted(ca_file: str | None) -> Any:
    """The path of a bundle with the usual authorities and those of `ca_file`; None for the usual ones.

    botocore takes a single file in place of its own.
    """
    if ca_file is None:
        yield None
        return
    try:
        content = Path(certifi.where()).read_bytes() + b"\n" + Path(ca_file).read_bytes()
    except OSError as error:
        raise UnreadableAuthorities(f"{ca_file} of --ca_file cannot be read ({error.strerror})") from None
    handle, path = tempfile.mkstemp(prefix="grantex-beam-", suffix=".pem")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)
