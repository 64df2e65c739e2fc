"""Environment variables that vendors' libraries read, as a demo on loopback needs them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def no_proxy() -> Iterator[None]:
    """What is on this machine is not looked for behind a proxy."""
    theirs = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    with _changed({"no_proxy": f"{theirs},127.0.0.1" if theirs else "127.0.0.1"}):
        yield


@contextlib.contextmanager
def aws(access_key: str, secret_key: str) -> Iterator[None]:
    """These credentials and none of the person's own, which shall not sign requests to a demo; and none of
    their settings, which may name a profile or an endpoint that leads elsewhere."""
    theirs: dict[str, str | None] = {name: None for name in os.environ if name.startswith("AWS_")}
    ours: dict[str, str | None] = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with _changed(theirs | ours):
        yield


@contextlib.contextmanager
def _changed(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Variables for a while; None takes one away."""
    before = {name: os.environ.get(name) for name in changes}
    _change(changes)
    try:
        yield
    finally:
        _change(before)


def _change(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
