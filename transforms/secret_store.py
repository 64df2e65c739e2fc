"""Where a secret can be put that a service has just made: a file, or a secret manager; never over another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transforms.durable import open_private, replace_file
from transforms.secret import (
    NETWORK_TIMEOUT,
    AwsSecret,
    FileSecret,
    GoogleSecret,
    Secret,
    SecretError,
    asking_aws,
    asking_google,
    aws_client,
    aws_code,
    google_client,
    usable,
)
from transforms.way_out import USUAL, WayOut


def place(secret: Secret, way_out: WayOut = USUAL) -> Place:
    """The place that a reference names. Raises SecretError for one that nothing can be put into."""
    if isinstance(secret, FileSecret):
        return FilePlace(secret)
    if isinstance(secret, GoogleSecret) and "/versions/" not in secret.resource:
        return GooglePlace(secret, way_out)
    if isinstance(secret, AwsSecret) and not secret.key:
        return AwsPlace(secret, way_out)
    raise SecretError(
        f"{secret}: a new secret cannot be put there; give file:PATH, secret:projects/P/secrets/S without a "
        "version, or aws-secret:NAME without a key"
    )


class Place:
    """What a reference names, to be filled once."""

    def is_free(self) -> bool:
        """Whether nothing lies there yet. Raises SecretError when that cannot be known."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Find out that it can be filled, as far as that goes without a value. Raises SecretError."""
        raise NotImplementedError

    def put(self, value: str) -> None:
        """Put `value` there, for ever. Raises SecretError."""
        raise NotImplementedError


class FilePlace(Place):
    """A file for its owner alone."""

    def __init__(self, secret: FileSecret) -> None:
        self._secret = secret
        self._path = Path(secret.path).expanduser()

    def is_free(self) -> bool:
        try:
            return self._path.stat().st_size == 0
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self._error(error) from None

    def prepare(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(open_private(str(self._path), os.O_RDWR | os.O_CREAT))
            if self._path.stat().st_size == 0:
                self._path.unlink()
        except OSError as error:
            raise self._error(error) from None

    def put(self, value: str) -> None:
        try:
            replace_file(self._path, f"{usable(value, str(self._secret))}\n".encode())
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> SecretError:
        return SecretError(f"{self._secret}: {error.strerror or type(error).__name__}")


class GooglePlace(Place):
    """A secret of Google Secret Manager, made when it is missing."""

    def __init__(self, secret: GoogleSecret, way_out: WayOut) -> None:
        self._secret, self._way_out = secret, way_out

    def is_free(self) -> bool:
        from google.api_core.exceptions import NotFound

        return not self._call(
            "access_secret_version", NotFound, name=f"{self._secret.resource}/versions/latest"
        )

    def prepare(self) -> None:
        from google.api_core.exceptions import AlreadyExists

        project, _, name = self._secret.resource.partition("/secrets/")
        request = {"parent": project, "secret_id": name, "secret": {"replication": {"automatic": {}}}}
        self._call("create_secret", AlreadyExists, request=request)

    def put(self, value: str) -> None:
        payload = {"data": usable(value, str(self._secret)).encode()}
        self._call("add_secret_version", request={"parent": self._secret.resource, "payload": payload})

    def _call(self, method: str, *foreseen: type[Exception], **arguments: Any) -> bool:
        """Whether it worked; False when the answer is one of `foreseen`, any other is a SecretError."""
        with asking_google(self._secret):
            client, metadata = google_client(self._way_out)
            with client:
                try:
                    getattr(client, method)(**arguments, timeout=NETWORK_TIMEOUT, metadata=metadata)
                except foreseen:
                    return False
        return True


class AwsPlace(Place):
    """A secret of AWS Secrets Manager, made when it is missing."""

    def __init__(self, secret: AwsSecret, way_out: WayOut) -> None:
        self._secret, self._way_out = secret, way_out

    def is_free(self) -> bool:
        return self._call("get_secret_value", SecretId=self._secret.name) == "ResourceNotFoundException"

    def prepare(self) -> None:
        self._call("describe_secret", SecretId=self._secret.name)

    def put(self, value: str) -> None:
        text = usable(value, str(self._secret))
        if self._call("put_secret_value", SecretId=self._secret.name, SecretString=text):
            self._call("create_secret", missing="", Name=self._secret.name, SecretString=text)

    def _call(self, method: str, missing: str = "ResourceNotFoundException", **arguments: str) -> str:
        """ "" when it worked, `missing` when it said that; whatever else it says is a SecretError."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        with asking_aws(self._secret):
            try:
                getattr(aws_client(self._secret.region, self._way_out), method)(**arguments)
            except ClientError as error:
                if aws_code(error) != missing:
                    raise
                return missing
        return ""
