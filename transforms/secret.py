"""A secret by reference: what is configured and pickled is where the value lives, never the value."""

from __future__ import annotations

from typing import Protocol


class SecretError(Exception):
    """A secret could not be read. The message names the reference and never the value."""


class Secret(Protocol):
    """Anything that can say a secret's value on the worker; `read` is called again after a rejection."""

    def read(self) -> str:
        """The value as it is now. Raises SecretError."""
