"""Whose feed it is: the developer behind an API key."""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec

from transforms.feed.request import ACCOUNT_PATH, FeedSettings

MAX_BODY = 64 * 1024


class _Me(msgspec.Struct):
    developerId: str


def fetch_developer_id(
    client: httpx.Client, settings: FeedSettings, key: str, extensions: dict[str, Any] | None = None
) -> str | None:
    """The `developerId` that `GET /v1/me` answers (the service's public source), or None when it cannot
    be known now: another status, no JSON, a network error, or no answer in `account_timeout` seconds."""
    until = time.monotonic() + settings.account_timeout
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        with client.stream(
            "GET",
            settings.root + ACCOUNT_PATH,
            headers=headers,
            timeout=settings.account_timeout,
            extensions=extensions,
        ) as response:
            if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
                return None
            body = bytearray()
            for block in response.iter_raw():
                body += block
                if len(body) > MAX_BODY or time.monotonic() > until:
                    return None
        return msgspec.json.decode(body, type=_Me).developerId or None
    except (httpx.HTTPError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
