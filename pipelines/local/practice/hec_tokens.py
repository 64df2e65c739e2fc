"""The tokens of a practice Splunk, and how HEC judges the one that a request carries."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from pipelines.local.practice.hec import Refused


@dataclass
class Token:
    """One HEC token.

    index: where events go that name none. indexes: those it may write to; empty for all that exist.
    acknowledges: indexer acknowledgement is on (`useACK`), so every request needs a channel.
    """

    value: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "grantex"
    index: str = "main"
    indexes: Sequence[str] = ()
    acknowledges: bool = False
    disabled: bool = False


def judge_token(headers: Mapping[str, str], query: str, tokens: Iterable[Token]) -> Token:
    """The good token that a request carries. Raises Refused."""
    if "token" in parse_qs(query):
        raise Refused(16)  # a token in the URL, which has to be turned on and is not
    authorization = headers.get("authorization")
    if not authorization:
        raise Refused(2)
    given = _given(authorization)
    if not given:
        raise Refused(3)
    for token in tokens:
        if token.value == given:
            if token.disabled:
                raise Refused(1)
            return token
    raise Refused(4)


def _given(authorization: str) -> str:
    """The token in `Splunk <token>`, or in basic authentication as the password of anybody."""
    scheme, _, rest = authorization.partition(" ")
    if scheme == "Splunk":
        return rest.strip()
    if scheme != "Basic":
        return ""
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
