"""Stands for AWS's package of the same functions: its tokens are such as a broker takes for development.

A real signature is good at a cluster of AWS's alone.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from transforms.write.kafka.tokens import SIGNER


class FakeSigner(ModuleType):
    """seconds: how long each token is good. made: when each expires. asked: region and key of each."""

    def __init__(self, user: str, seconds: float) -> None:
        super().__init__(SIGNER)
        self.user, self.seconds = user, seconds
        self.made: list[float] = []
        self.asked: list[tuple[str, str]] = []

    def generate_auth_token_from_credentials_provider(self, region: str, provider: Any) -> tuple[str, int]:
        """As AWS's: the token, and the time when it expires in milliseconds."""
        now = time.time()
        expires = now + self.seconds
        self.asked.append((region, provider.load().access_key))
        self.made.append(expires)
        claims = {"sub": self.user, "iat": now, "exp": expires}
        header, body = (
            base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=")
            for each in ({"alg": "none"}, claims)
        )
        return f"{header}.{body}.", int(expires * 1000)


def install(monkeypatch: pytest.MonkeyPatch, user: str = "writer", seconds: float = 900.0) -> FakeSigner:
    """The signer, installed, and credentials for it in the environment."""
    signer = FakeSigner(user, seconds)
    monkeypatch.setitem(sys.modules, SIGNER, signer)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    give(monkeypatch)
    return signer


def give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPRACTICE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, nor files with any."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
