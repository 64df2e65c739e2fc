"""Secrets kept by Google Secret Manager and AWS Secrets Manager; their libraries load at the first read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from transforms.secret_value import SecretError, decoded, usable

NETWORK_TIMEOUT = 10.0  # seconds for one read


@dataclass(frozen=True)
class GoogleSecret:
    """`secret:projects/P/secrets/S[/versions/V]` in Google Secret Manager, latest version by default."""

    resource: str

    def read(self) -> str:
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import GoogleAuthError

        version = self.resource if "/versions/" in self.resource else f"{self.resource}/versions/latest"
        try:
            with _google_client() as client:
                answer = client.access_secret_version(name=version, timeout=NETWORK_TIMEOUT)
        except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
            raise SecretError(f"{self}: Google Secret Manager says {type(error).__name__}") from None
        return usable(decoded(answer.payload.data, str(self)), str(self))

    def __str__(self) -> str:
        return f"secret:{self.resource}"

    __repr__ = __str__


@dataclass(frozen=True)
class AwsSecret:
    """`aws-secret:NAME` or its ARN in AWS Secrets Manager; `#key` picks one key of a JSON secret."""

    name: str
    key: str = ""

    def read(self) -> str:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        try:
            answer = _aws_client(self._region()).get_secret_value(SecretId=self.name)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "an error")
            raise SecretError(f"{self}: AWS Secrets Manager says {code}") from None
        except (BotoCoreError, ValueError) as error:
            raise SecretError(f"{self}: AWS Secrets Manager: {type(error).__name__}") from None
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise SecretError(f"{self}: holds bytes; store the value as text")
        return usable(self._picked(value), str(self))

    def _region(self) -> str | None:
        parts = self.name.split(":")
        return parts[3] if len(parts) >= 7 and parts[0] == "arn" else None

    def _picked(self, value: str) -> str:
        if not self.key:
            return value
        try:
            found = json.loads(value)[self.key]
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, str):
            raise SecretError(f"{self}: the secret is not a JSON object with text under that key")
        return found

    def __str__(self) -> str:
        return f"aws-secret:{self.name}{'#' if self.key else ''}{self.key}"

    __repr__ = __str__


def _google_client() -> Any:
    from google.cloud.secretmanager import SecretManagerServiceClient

    return SecretManagerServiceClient()


def _aws_client(region: str | None) -> Any:
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    limits = Config(
        connect_timeout=NETWORK_TIMEOUT / 2, read_timeout=NETWORK_TIMEOUT, retries={"max_attempts": 2}
    )
    return boto3.client("secretsmanager", region_name=region, config=limits)
